"""What people use instead: PEFT's classes and transformers' Trainer, one run at a time, as their documentation has it.

`best` is the same with the Trainer's own settings for speed: bfloat16, and rows of like length together.
"""

import copy
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset as Table
from peft import BeftConfig, LoraConfig, TaskType, get_peft_model
from torch import Tensor
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

from beft.anatomy.projections import bias_modules, classifier, describe
from beft.data.batching import encode_options
from beft.data.datasets import Dataset, draw
from beft.data.prompts import Example
from beft.errors import unknown
from beft.models.loading import Loaded
from beft.study import Run, Study
from benchmarks.timing import where

METHODS = ("b_v", "all_biases", "lora", "full")


def adapted(loaded: Loaded, method: str, causal: bool = False) -> Any:
    """A copy of the model that PEFT, or `requires_grad` where PEFT has no such method, makes ready to be trained."""
    model, anatomy = copy.deepcopy(loaded.model), describe(loaded.model)
    task = TaskType.CAUSAL_LM if causal else TaskType.SEQ_CLS
    head = [] if causal else sorted({name.partition(".")[0] for name in classifier(model).modules})

    def last_parts(terms: str) -> list[str]:
        return sorted({site.module.rpartition(".")[2] for term in terms for site in anatomy.of(term)})

    if method == "b_v":
        return get_peft_model(model, BeftConfig(task_type=task, target_modules=last_parts("v"), modules_to_save=head))
    if method == "lora":
        parts = {"target_modules": last_parts("qv"), "modules_to_save": head}
        return get_peft_model(model, LoraConfig(task_type=task, r=8, lora_alpha=16, lora_dropout=0.0, **parts))
    if method == "full":
        return model.requires_grad_(True)
    if method != "all_biases":
        raise unknown("method", method, METHODS)
    model.requires_grad_(False)
    for module in bias_modules(model).values():
        module.bias.requires_grad_(True)
    for name in head:
        model.get_submodule(name).requires_grad_(True)
    return model


def arguments(study: Study, run: Run, folder: str, bf16: bool, grouped: bool = False) -> TrainingArguments:
    """The Trainer's arguments for the protocol of a run, with rows of like length together where `grouped`."""
    return TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=study.batch_size,
        per_device_eval_batch_size=64,
        num_train_epochs=study.epochs,
        learning_rate=run.rate,
        lr_scheduler_type=study.schedule,
        weight_decay=0.0,
        adam_epsilon=study.eps,
        max_grad_norm=study.clip,
        seed=run.seed,
        bf16=bf16,
        train_sampling_strategy="group_by_length" if grouped else "random",
        remove_unused_columns=not study.prompted,
        use_cpu=where().type == "cpu",
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )


def classify(
    loaded: Loaded, data: Dataset, study: Study, run: Run, best: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Train one run on a classifier and predict the validation split: logits (N, C) and labels (N,), in one order.

    That is not always the split's: where rows of like length are taken together, they are in predictions too.
    """
    rows = draw(data, study.regime, run.seed, study.tuning).train
    columns = [list(c) for c in zip(*(data.train.rows[i] for i in rows), strict=True)]
    tokens = loaded.tokenizer(*columns, truncation=True, max_length=study.max_length)
    train = Table.from_dict({**tokens, "labels": data.train.labels[rows].tolist()})
    columns = [list(c) for c in zip(*data.validation.rows, strict=True)]
    tokens = loaded.tokenizer(*columns, truncation=True, max_length=study.max_length)
    held_out = Table.from_dict({**tokens, "labels": data.validation.labels.tolist()})
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            adapted(loaded, run.method),
            arguments(study, run, folder, best, grouped=best),
            data_collator=DataCollatorWithPadding(loaded.tokenizer),
            train_dataset=train,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        predicted = trainer.predict(held_out)
        return np.asarray(predicted.predictions), np.asarray(predicted.label_ids)


class _Options(Trainer):  # type: ignore[misc]
    """The cross-entropy of the mean log-probabilities of a prompt's options, each a row of its own."""

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **more: Any) -> Any:
        right = inputs.pop("right")
        means = mean_log_probabilities(model, inputs).unflatten(0, (len(right), -1))
        return torch.nn.functional.cross_entropy(means, right)


def mean_log_probabilities(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Of the tokens that `scored` (B, T) marks, given those before them: (B,)."""
    scored = inputs["scored"][:, 1:]
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False).logits
    own = logits[:, :-1].float().log_softmax(-1).gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
    return (own * scored).sum(1) / scored.sum(1)


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Every option of every prompt as a row, padded to the longest."""
    options = [(ids, start) for row in rows for ids, start in zip(row["sequences"], row["starts"], strict=True)]
    longest = max(len(ids) for ids, _ in options)
    batch = {name: torch.zeros(len(options), longest, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    batch["scored"] = torch.zeros(len(options), longest)
    for i, (ids, start) in enumerate(options):
        batch["input_ids"][i, : len(ids)] = torch.tensor(ids)
        batch["attention_mask"][i, : len(ids)] = 1
        batch["scored"][i, start : len(ids)] = 1.0
    return batch | {"right": torch.tensor([row["label"] for row in rows])}


def prompt(loaded: Loaded, data: Dataset, study: Study, run: Run, best: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Train one run on a language model behind prompts; scores of the validation options (N, K) and labels (N,)."""
    rows = [data.train.rows[i] for i in draw(data, study.regime, run.seed, study.tuning).train]

    def table(examples: Sequence[Example]) -> list[dict[str, Any]]:
        encoded = [encode_options(loaded.tokenizer, e, study.max_length) for e in examples]
        return [
            {"sequences": x.sequences, "starts": x.starts, "label": e.label, "length": len(x.sequences[0])}
            for x, e in zip(encoded, examples, strict=True)
        ]

    with tempfile.TemporaryDirectory() as folder:
        options = arguments(study, run, folder, best)  # its sampler by length wants tables of tokens
        model = adapted(loaded, run.method, causal=True)
        trainer = _Options(model, options, data_collator=collate, train_dataset=table(rows))
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    held_out, scores = table(data.validation.rows), []
    model.eval()
    with torch.no_grad(), torch.autocast(where().type, torch.bfloat16, enabled=best):
        for at in range(0, len(held_out), study.batch_size):
            batch = {n: x.to(model.device) for n, x in collate(held_out[at : at + study.batch_size]).items()}
            right = batch.pop("right")
            scores.append(mean_log_probabilities(model, batch).unflatten(0, (len(right), -1)).cpu().numpy())
    return np.concatenate(scores), np.array([e.label for e in data.validation.rows])
