"""One call for one's own data: tune a bias, keep the adapter, predict."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bank.handover import check_handover, check_method, save_model, share_adapter, tuned_model
from .bank.virtual_tokens import reserve_virtual_tokens
from .data import sources as data_module
from .models import loading as models
from .study import Result, Run, Study
from .training.classification import predict
from .training.loop import fit


@dataclass
class Tuned:
    """A tuned classifier.

    Attributes:
        model: a plain transformers model, the bias merged and the head in place; of a prompt PEFT's, with its tokens.
        tokenizer: its tokenizer.
        labels: names of the classes, in the order of the logits; none for a regression.
        result: parameters, epochs and outcome of the run.
    """

    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    result: Result
    max_length: int

    @property
    def score(self) -> float | None:
        """The task's metric on the validation rows after the last epoch."""
        return self.result.final["validation"]

    def predict(self, texts: Sequence[str | tuple[str, str]]) -> list[str] | list[float]:
        """The most probable label of each text or pair of texts; of a regression, its value."""
        scores = predict(self.model, self.tokenizer, texts, self.max_length)  # (N, C)
        return [self.labels[i] for i in scores.argmax(1)] if self.labels else scores[:, 0].tolist()

    def save(self, folder: str | Path) -> None:
        """Write a plain checkpoint that AutoModelForSequenceClassification loads; of a prompt PEFT's adapter.

        How PEFT loads that is printed, and in its README.md. Raises BeftError: a folder that is a file.
        """
        code = save_model(self.model, self.tokenizer, folder)
        if code is not None:
            print(code)


def tune(
    task: str,
    *,
    method: str = "b_v",
    rate: float = 3e-3,
    epochs: int = 8,
    seed: int = 0,
    adapter: str | Path | None = None,
    progress: bool = True,
    **study: Any,
) -> Tuned:
    """Tune one bias term on a file with columns text (or text_a, text_b) and label, or on a task by name.

    Args:
        task: "reviews.csv" (or .tsv, .jsonl, .parquet), or a task's name.
        method: b_v, b_q, b_k, all_biases or head; a bias in another form (b_v:lora); lora, adapter, prompt, mask, full.
        adapter: folder to write the run to as a PEFT adapter, with its tokenizer and a README.md that says how PEFT
            loads it. There is none of mask and full, nor of head on a model without a pooler.
        study: other fields of `study.Study`, e.g. model="bert-base-cased", regime="low", offline=True; all
            training rows are used unless `regime` says otherwise.

    Raises BeftError: bad input, one sentence with the remedy; a run that diverged.
    """
    check_method(method)
    fields: dict[str, Any] = {"regime": "all", "task": str(task), "epochs": epochs} | study
    plan = Study(**fields)
    rows = data_module.load(plan.task, offline=plan.offline)
    loaded = models.load(plan.model, labels=rows.task.outputs, offline=plan.offline)
    names = rows.task.labels
    plan = reserve_virtual_tokens(plan, loaded.model, [method])
    run, label = Run(method, seed, rate), f"{method} on {rows.task.name}"
    for epoch in fit(loaded, rows, plan, [run], progress=label if progress else False):
        if not epoch.number:
            check_handover(epoch.bank, 0, names, adapter)
        if epoch.last:
            (result,) = epoch.results
            result.raise_if_lost()
            model = tuned_model(epoch.bank, 0, names, plan.model)
            if adapter is not None:
                code = share_adapter(epoch.bank, 0, adapter, plan.model, names, loaded.tokenizer)
                if progress:
                    print(code)
    return Tuned(model, loaded.tokenizer, names, result, plan.max_length)
