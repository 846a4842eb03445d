"""The architectures beft knows: a row of attribute paths each. The path of a fused projection stands for all terms."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BeftError

Positions = Callable[[Any], tuple[str, tuple[str, ...]]]
# Families whose positions begin behind that of padding.
FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
# The extra of a model that uses a layer at several depths: one bias there, added as often.
SHARED = "a layer at several depths"
# Extras that end the proof that b_k is null (THEORY section 1), with the reason.
NOT_NULL = {
    "position-to-content": "position-to-content attention multiplies each key, bias included, by an embedding of its "
    "distance",
    "norm on keys": "a norm behind the projection divides each key, bias included, by its own length",
    "sinks": "a sink is one more slot of the softmax that carries no key bias",
    "soft-capped logits": "the logits are capped by a tanh, behind which a constant is none",
}


@dataclass(frozen=True)
class Family:
    """The attribute paths and the attention of one architecture.

    Attributes:
        stack: path from the backbone to the list of layers.
        projections: path from a layer to the linear module of each term.
        positions: config -> (positional scheme, extras of the attention), in words.
        causal: whether a token attends to earlier tokens only.
        further: other attentions: name -> (stack, projections); the decoder's and the cross-attention's.
        fused: config -> (heads of key and value, blocks) of a fused projection, see `sites.fused`.
        pooler: path of the pooler's dense layer inside the backbone.
        head_pooler: path of the pooler where it stands beside the backbone, in the model with a head.
        mixed: in models whose head reads the first token only, the path from a layer to the module that takes the
            attention's output and the layer's input, or their sum; it and everything behind it treat tokens separately.
            None if not known.
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


def head_size(config: Any) -> int:
    """Entries of a head, by a model's config."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def first_position(config: Any) -> int:
    """The position of a text's first token: RoBERTa and its kin count from behind that of padding."""
    return (getattr(config, "pad_token_id", 0) or 0) + 1 if config.model_type in FROM_PADDING else 0


def text_positions(config: Any) -> int | None:
    """Most tokens of a text that a model has positions for; None where they are computed and not looked up.

    Rotary embeddings, ALiBi and relative positions go on beyond what a model was trained on.
    """
    positions = getattr(config, "max_position_embeddings", None)
    family = FAMILIES.get(config.model_type)
    absolute = "absolute" in family.positions(config)[0] if family else not hasattr(config, "rope_parameters")
    return positions - first_position(config) if positions and absolute else None


def _fixed(scheme: str) -> Positions:
    return lambda config: (scheme, ())


def _either(flag: str, scheme: str, otherwise: str) -> Positions:
    """One scheme where the config has the flag set, another where it has not."""
    return lambda config: (scheme if getattr(config, flag) else otherwise, ())


def _albert(config: Any) -> tuple[str, tuple[str, ...]]:
    """Raises BeftError: groups of several layers, of which no published model has any."""
    if config.inner_group_num != 1:
        raise BeftError(
            f"this albert model has groups of {config.inner_group_num} layers and beft knows groups of one: name its "
            'projections by hand, e.g. sites={"v": "albert.encoder.albert_layer_groups.{layer}.albert_layers.0.'
            'attention.value"}'
        )
    shared = config.num_hidden_groups < config.num_hidden_layers
    return "learned absolute", ((SHARED,) if shared else ())


def _deberta(config: Any) -> tuple[str, tuple[str, ...]]:
    relative = getattr(config, "relative_attention", False)
    terms = config.pos_att_type or ()
    terms = terms.lower().split("|") if isinstance(terms, str) else terms
    has = {"content-to-position": relative and "c2p" in terms, "position-to-content": relative and "p2c" in terms}
    has["shared position projections"] = any(has.values()) and getattr(config, "share_att_key", False)
    has["convolution"] = getattr(config, "conv_kernel_size", 0) > 0
    absolute = "learned absolute" if getattr(config, "position_biased_input", True) else ""
    scheme = " and ".join(filter(None, ("disentangled relative" if relative else "", absolute)))
    return scheme or "none", tuple(name for name, present in has.items() if present)


def _rotary(config: Any) -> tuple[str, tuple[str, ...]]:
    """RoPE, on some dimensions of each head if the config says so; a norm on the keys if the config has the flag."""
    size = head_size(config)
    rope = getattr(config, "rope_parameters", None) or {}
    rotated = getattr(config, "rotary_dim", None) or int(size * rope.get("partial_rotary_factor", 1.0))
    scheme = "rotary" if rotated == size else f"rotary ({rotated} of {size} dimensions)"
    return scheme, (("norm on keys",) if getattr(config, "qk_layernorm", False) else ())


def _rotary_with(*extras: str) -> Positions:
    return lambda config: (_rotary(config)[0], extras)


def _gemma2(config: Any) -> tuple[str, tuple[str, ...]]:
    return "rotary", (("soft-capped logits",) if config.attn_logit_softcapping else ())


def _gpt2(config: Any) -> tuple[str, tuple[str, ...]]:
    scaled = not config.scale_attn_weights or getattr(config, "scale_attn_by_inverse_layer_idx", False)
    return "learned absolute", (("another scale of the logits",) if scaled else ())


def _query_blocks(config: Any) -> tuple[int, int]:
    """All heads of the query, then of the key, then of the value."""
    return getattr(config, "num_key_value_heads", config.num_attention_heads), 1


def _head_blocks(config: Any) -> tuple[int, int]:
    """A query, a key and a value per head."""
    return config.num_attention_heads, config.num_attention_heads


def _multi_query_blocks(config: Any) -> tuple[int, int]:
    return (1, 1) if config.multi_query else _head_blocks(config)


def _falcon_blocks(config: Any) -> tuple[int, int]:
    grouped = config.new_decoder_architecture
    return (config.num_kv_heads, config.num_kv_heads) if grouped else _multi_query_blocks(config)


def _named(path: str) -> dict[str, str]:
    """One path per term from a path with {} for its letter."""
    return {term: path.format(term) for term in "qkv"}


_LEARNED = _fixed("learned absolute")
_DISTILBERT = _either("sinusoidal_pos_embds", "sinusoidal absolute", "learned absolute")
_FALCON = _either("alibi", "ALiBi (relative)", "rotary")
_RELATIVE = _fixed("learned absolute and additive relative")
_BERT = {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value"}
_ROBERTA = Family("encoder.layer", _BERT, _LEARNED, pooler="pooler.dense", mixed="attention.output")
_ALBERT = {term: path.replace("attention.self", "albert_layers.0.attention") for term, path in _BERT.items()}
_DEBERTA = {term: f"{path}_proj" for term, path in _BERT.items()}
_PROJ = _named("self_attn.{}_proj")


def _llama(positions: Positions = _rotary) -> Family:
    return Family("layers", _PROJ, positions, causal=True)


def _fused(stack: str, path: str, positions: Positions, blocks: Callable[[Any], tuple[int, int]]) -> Family:
    return Family(stack, _named(path), positions, causal=True, fused=blocks)


def _encoder_decoder(stack: str, own: str, cross: str, positions: Positions) -> Family:
    encoder, decoder, attention = stack.format("encoder"), stack.format("decoder"), _named(own)
    further = {"decoder": (decoder, attention), "cross": (decoder, _named(cross))}
    return Family(encoder, attention, positions, further=further)


# By `config.model_type`. transformers 5 ignores BERT's old `position_embedding_type`: BERT is always absolute.
FAMILIES: Mapping[str, Family] = {
    # encoders
    "bert": Family("encoder.layer", _BERT, _LEARNED, pooler="pooler.dense", mixed="attention.output"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": Family("encoder.layer", _BERT, _LEARNED, mixed="attention.output"),
    "mpnet": Family(
        "encoder.layer", _named("attention.attn.{}"), _RELATIVE, pooler="pooler.dense", mixed="attention.LayerNorm"
    ),
    "albert": Family("encoder.albert_layer_groups", _ALBERT, _albert, pooler="pooler"),
    "modernbert": Family("layers", _named("attn.Wqkv"), _rotary, fused=_query_blocks),
    "distilbert": Family("transformer.layer", _named("attention.{}_lin"), _DISTILBERT),
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
    "gpt2": _fused("h", "attn.c_attn", _gpt2, _query_blocks),
    "gpt_bigcode": _fused("h", "attn.c_attn", _gpt2, _multi_query_blocks),
    "phi3": _fused("layers", "self_attn.qkv_proj", _rotary, _query_blocks),
    "gpt_neox": _fused("layers", "attention.query_key_value", _rotary, _head_blocks),
    "bloom": _fused("h", "self_attention.query_key_value", _fixed("ALiBi (relative)"), _head_blocks),
    "falcon": _fused("h", "self_attention.query_key_value", _FALCON, _falcon_blocks),
    # encoders with a decoder
    "t5": _encoder_decoder(
        "{}.block", "layer.0.SelfAttention.{}", "layer.1.EncDecAttention.{}", _fixed("additive relative")
    ),
    "bart": _encoder_decoder("{}.layers", "self_attn.{}_proj", "encoder_attn.{}_proj", _LEARNED),
}

# Where the sequence and image classification models of these families keep the linear layers of their heads.
HEAD = ("pre_classifier", "classifier", "classifier.dense", "classifier.out_proj")
