"""The architectures beft knows: one row of attribute paths each.

A fused projection is named three times in its row and split by slices; those rows (decoders) carry a function
that gives the slices, which separate projections do not need: theirs is the whole output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Positions = Callable[[Any], tuple[str, tuple[str, ...]]]


def _learned(config: Any) -> tuple[str, tuple[str, ...]]:
    return "learned absolute", ()


def _distilbert(config: Any) -> tuple[str, tuple[str, ...]]:
    return ("sinusoidal absolute" if config.sinusoidal_pos_embds else "learned absolute"), ()


def _deberta(config: Any) -> tuple[str, tuple[str, ...]]:
    relative = getattr(config, "relative_attention", False)
    kinds = config.pos_att_type or ()
    kinds = kinds.lower().split("|") if isinstance(kinds, str) else kinds
    extras: list[str] = []
    if relative and "c2p" in kinds:
        extras.append("content-to-position")
    if relative and "p2c" in kinds:
        extras.append("position-to-content")
    if extras and getattr(config, "share_att_key", False):
        extras.append("shared position projections")
    if getattr(config, "conv_kernel_size", 0) > 0:
        extras.append("convolution")
    absolute = "learned absolute" if getattr(config, "position_biased_input", True) else ""
    scheme = " and ".join(part for part in ("disentangled relative" if relative else "", absolute) if part)
    return scheme or "none", tuple(extras)


@dataclass(frozen=True)
class Family:
    """Where one architecture keeps its parts.

    Attributes:
        stack: path from the backbone to the list of layers.
        projections: path from a layer to the linear module of each term.
        positions: config -> (positional scheme, extras of the attention), in words.
        pooler: path of the pooler's dense layer inside the backbone.
        head_pooler: the same where it stands beside the backbone, in the model with a head.
        mixed: path from a layer to the module that takes the attention's output and the layer's input, token by
            token like all that follows it, in models whose head reads the first token only; None if not known.
    """

    stack: str
    projections: Mapping[str, str]
    positions: Positions = _learned
    pooler: str | None = None
    head_pooler: str | None = None
    mixed: str | None = None


_BERT = {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value"}
_DEBERTA = {
    term: f"attention.self.{name}_proj" for term, name in zip("qkv", ("query", "key", "value"), strict=True)
}

# By `config.model_type`. transformers 5 ignores BERT's old `position_embedding_type`: BERT is always absolute.
FAMILIES: Mapping[str, Family] = {
    "bert": Family("encoder.layer", _BERT, pooler="pooler.dense", mixed="attention.output"),
    "roberta": Family("encoder.layer", _BERT, pooler="pooler.dense", mixed="attention.output"),
    "electra": Family("encoder.layer", _BERT, mixed="attention.output"),
    "distilbert": Family("transformer.layer", {t: f"attention.{t}_lin" for t in "qkv"}, _distilbert),
    "deberta-v2": Family("encoder.layer", _DEBERTA, _deberta, head_pooler="pooler.dense"),
    "vit": Family("layers", {t: f"attention.{t}_proj" for t in "qkv"}, pooler="pooler.dense"),
}

# Where the sequence and image classification models of these families keep the linear layers of their heads.
HEAD = ("pre_classifier", "classifier", "classifier.dense", "classifier.out_proj")
