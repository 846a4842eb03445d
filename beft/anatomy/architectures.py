"""The architectures beft knows: one row of attribute paths each.

A fused projection is named three times in its row; `fused` then says how it is laid out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Positions = Callable[[Any], tuple[str, tuple[str, ...]]]
# Extras that end the proof that b_k is null (THEORY section 1), in the words of a verdict.
NOT_NULL = {
    "position-to-content": "position-to-content attention multiplies each key, bias included, by an embedding of its "
    "distance",
    "norm on keys": "a norm behind the projection divides each key, bias included, by its own length",
    "sinks": "a sink is one more slot of the softmax that carries no key bias",
    "soft-capped logits": "the logits are capped by a tanh, behind which a constant is none",
}


@dataclass(frozen=True)
class Family:
    """Where one architecture keeps its parts.

    Attributes:
        stack: path from the backbone to the list of layers.
        projections: path from a layer to the linear module of each term.
        positions: config -> (positional scheme, extras of the attention), in words.
        causal: whether a token sees those before it alone.
        further: other attentions: name -> (stack, projections); the decoder's and the cross-attention's.
        fused: config -> (heads of key and value, blocks) of a fused projection, see `fused.fused`.
        pooler: path of the pooler's dense layer inside the backbone.
        head_pooler: the same where it stands beside the backbone, in the model with a head.
        mixed: path from a layer to the module that takes the attention's output and the layer's input, token by
            token like all that follows it, in models whose head reads the first token only; None if not known.
    """

    stack: str
    projections: Mapping[str, str]
    positions: Positions
    causal: bool = False
    further: Mapping[str, tuple[str, Mapping[str, str]]] | None = None
    fused: Callable[[Any], tuple[int, int]] | None = None
    pooler: str | None = None
    head_pooler: str | None = None
    mixed: str | None = None


def _fixed(scheme: str, *extras: str) -> Positions:
    return lambda config: (scheme, extras)


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


def _rotary(config: Any) -> tuple[str, tuple[str, ...]]:
    """RoPE, on a part of each head where the config says so; a norm before it where the config has the flag."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = getattr(config, "rope_parameters", None) or {}
    rotated = getattr(config, "rotary_dim", None) or int(size * rope.get("partial_rotary_factor", 1.0))
    scheme = "rotary" if rotated == size else f"rotary ({rotated} of {size} dimensions)"
    return scheme, (("norm on keys",) if getattr(config, "qk_layernorm", False) else ())


def _rotary_with(*extras: str) -> Positions:
    return lambda config: (_rotary(config)[0], extras)


def _gemma2(config: Any) -> tuple[str, tuple[str, ...]]:
    return "rotary", (("soft-capped logits",) if config.attn_logit_softcapping else ())


def _falcon(config: Any) -> tuple[str, tuple[str, ...]]:
    return ("ALiBi (relative)" if config.alibi else "rotary"), ()


def _gpt2(config: Any) -> tuple[str, tuple[str, ...]]:
    scaled = not config.scale_attn_weights or getattr(config, "scale_attn_by_inverse_layer_idx", False)
    return "learned absolute", (("another scale of the logits",) if scaled else ())


def _falcon_blocks(config: Any) -> tuple[int, int]:
    if config.new_decoder_architecture:
        return config.num_kv_heads, config.num_kv_heads
    return (1, 1) if config.multi_query else (config.num_attention_heads, config.num_attention_heads)


def _bigcode_blocks(config: Any) -> tuple[int, int]:
    return (1, 1) if config.multi_query else (config.num_attention_heads, config.num_attention_heads)


def _per_head(config: Any) -> tuple[int, int]:
    return config.num_attention_heads, config.num_attention_heads


def _named(path: str) -> dict[str, str]:
    """One path per term from a path with {} for its letter."""
    return {term: path.format(term) for term in "qkv"}


_LEARNED = _fixed("learned absolute")
_BERT = {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value"}
_DEBERTA = {
    term: f"attention.self.{name}_proj" for term, name in zip("qkv", ("query", "key", "value"), strict=True)
}
_PROJ = _named("self_attn.{}_proj")


def _llama(positions: Positions = _rotary) -> Family:
    return Family("layers", _PROJ, positions, causal=True)


# By `config.model_type`. transformers 5 ignores BERT's old `position_embedding_type`: BERT is always absolute.
FAMILIES: Mapping[str, Family] = {
    # encoders
    "bert": Family("encoder.layer", _BERT, _LEARNED, pooler="pooler.dense", mixed="attention.output"),
    "roberta": Family("encoder.layer", _BERT, _LEARNED, pooler="pooler.dense", mixed="attention.output"),
    "electra": Family("encoder.layer", _BERT, _LEARNED, mixed="attention.output"),
    "distilbert": Family("transformer.layer", _named("attention.{}_lin"), _distilbert),
    "deberta-v2": Family("encoder.layer", _DEBERTA, _deberta, head_pooler="pooler.dense"),
    "vit": Family("layers", _named("attention.{}_proj"), _LEARNED, pooler="pooler.dense"),
    # decoders with a projection for each term
    "opt": Family("decoder.layers", _PROJ, _LEARNED, causal=True),
    "gptj": Family("h", _named("attn.{}_proj"), _rotary, causal=True),
    "llama": _llama(),
    "mistral": _llama(),
    "phi": _llama(),
    "qwen2": _llama(),
    "stablelm": _llama(),
    "gemma": _llama(),
    "gemma2": _llama(_gemma2),
    "gemma3_text": _llama(_rotary_with("norm on keys")),
    "qwen3": _llama(_rotary_with("norm on keys")),
    "gpt_oss": _llama(_rotary_with("sinks")),
    # decoders with one projection for all three
    "gpt2": Family(
        "h", _named("attn.c_attn"), _gpt2, causal=True, fused=lambda c: (c.num_attention_heads, 1)
    ),
    "gpt_bigcode": Family("h", _named("attn.c_attn"), _gpt2, causal=True, fused=_bigcode_blocks),
    "phi3": Family(
        "layers",
        _named("self_attn.qkv_proj"),
        _rotary,
        causal=True,
        fused=lambda c: (c.num_key_value_heads, 1),
    ),
    "gpt_neox": Family("layers", _named("attention.query_key_value"), _rotary, causal=True, fused=_per_head),
    "bloom": Family(
        "h",
        _named("self_attention.query_key_value"),
        _fixed("ALiBi (relative)"),
        causal=True,
        fused=_per_head,
    ),
    "falcon": Family(
        "h", _named("self_attention.query_key_value"), _falcon, causal=True, fused=_falcon_blocks
    ),
    # encoders with a decoder
    "t5": Family(
        "encoder.block",
        _named("layer.0.SelfAttention.{}"),
        _fixed("additive relative"),
        further={
            "decoder": ("decoder.block", _named("layer.0.SelfAttention.{}")),
            "cross": ("decoder.block", _named("layer.1.EncDecAttention.{}")),
        },
    ),
    "bart": Family(
        "encoder.layers",
        _PROJ,
        _LEARNED,
        further={
            "decoder": ("decoder.layers", _PROJ),
            "cross": ("decoder.layers", _named("encoder_attn.{}_proj")),
        },
    ),
}

# Where the sequence and image classification models of these families keep the linear layers of their heads.
HEAD = ("pre_classifier", "classifier", "classifier.dense", "classifier.out_proj")
