"""Tiny models of several architectures, a tokenizer for them, and adapters written by this package and by PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from peft import BeftConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from beft.bank.baselines import open_bank
from beft.bank.peft_adapter import save_adapter
from beft.bank.saved import About, write_about
from beft.theory.null_key_bias import ARCHITECTURES, VOCABULARY

WORDS = ["good", "bad", "film", "plot", "slow", "the", "a", "not", "very", "it", "was", "and"]
# Of many lengths, in no order.
TEXTS = [
    "the film was good",
    "bad",
    "it was not very good and the plot was very slow and bad and the film was not a good film",
    "a slow plot and a bad film",
    "good good good",
    "not bad at all and it was a very very very good film",
    "the plot",
    "very slow",
]


def tokenizer(pad: int = 0) -> PreTrainedTokenizerFast:
    """Words of which there are as many as the tiny models have embeddings."""
    special = ["[BOS]", "[EOS]", "[UNK]"]
    special.insert(pad, "[PAD]")
    words = [*special, *WORDS]
    words += [f"w{i}" for i in range(VOCABULARY - len(words))]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bos, eos = special.index("[BOS]"), special.index("[EOS]")
    backend.post_processor = processors.TemplateProcessing(
        single="[BOS] $A", pair="[BOS] $A [EOS] $B:1", special_tokens=[("[BOS]", bos), ("[EOS]", eos)]
    )
    names = {"pad_token": "[PAD]", "bos_token": "[BOS]", "eos_token": "[EOS]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **names)


def tokenizer_of(model: Any) -> PreTrainedTokenizerFast:
    """The tokenizer that pads as the model expects it."""
    return tokenizer(1 if model.config.pad_token_id == 1 else 0)


def classifier(name: str, outputs: int = 2, seed: int = 0, **config: Any) -> Any:
    """A tiny classifier; all of one seed have the same weights but for the head."""
    made = _made(name, "AutoModelForSequenceClassification", seed, num_labels=outputs, **config)
    base = _made(name, "AutoModelForSequenceClassification", seed, num_labels=2, **config).state_dict()
    own = made.state_dict()
    made.load_state_dict({n: x if base[n].shape != x.shape else base[n] for n, x in own.items()})
    return made


def decoder(name: str, seed: int = 0) -> Any:
    """A tiny causal language model."""
    return _made(name, "AutoModelForCausalLM", seed)


def _made(name: str, auto: str, seed: int, **more: Any) -> Any:
    architecture = ARCHITECTURES[name]
    config = getattr(transformers, architecture.config)(**(dict(architecture.settings) | more))
    if config.pad_token_id is None:
        config.pad_token_id = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, auto).from_config(config, trust_remote_code=False)
    return model.requires_grad_(False).eval()


def ours(
    folder: Path, model: Any, method: str, seed: int = 0, about: About | None = None, with_tokenizer: bool = False
) -> Path:
    """An adapter of a run with random numbers, written by this package. `about`: what `beft.tune` writes beside it."""
    generator = torch.Generator().manual_seed(seed)
    with open_bank(model, [method], [seed]) as bank, torch.no_grad():
        for slot in bank.slots:
            slot.values.copy_(torch.randn(slot.values.shape, generator=generator) * 0.3)
        save_adapter(bank, 0, folder, labels=about.labels if about else ())
    if about is not None:
        write_about(folder, about)
    if with_tokenizer:
        tokenizer_of(model).save_pretrained(str(folder))
    return folder


def by_peft(folder: Path, model: Any, task: str, seed: int = 0, **config: Any) -> Path:
    """An adapter with random numbers made with PEFT alone; by default with PEFT's own targets. `model` is used up."""
    tuned = get_peft_model(model, BeftConfig(task_type=task, **config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    tuned.save_pretrained(str(folder))
    return folder


def alone(model: Any, folder: Path | None) -> Any:
    """A fresh model with one adapter, loaded by PEFT."""
    return model if folder is None else PeftModel.from_pretrained(model, str(folder)).eval()


@torch.inference_mode()
def logits_alone(model: Any, text: str | tuple[str, str], cut: int = 60, side: str = "right", padding: int = 0) -> Any:
    """Logits of a text by itself, padded by so many tokens on a side."""
    tok = tokenizer_of(model)
    parts = (text,) if isinstance(text, str) else text
    batch = tok(*parts, truncation=True, max_length=cut, return_tensors="pt")
    length = batch["input_ids"].shape[1] + padding
    tok.padding_side = side
    return model(**tok.pad(batch, padding="max_length", max_length=length, return_tensors="pt")).logits[0].numpy()
