"""Where query, key and value, all biases and the head live in a transformer, and whether its key bias has an effect.

Every module has an exact dotted name, reached by walking attribute paths from the backbone (see `architectures`). No
name is matched by a substring: `output.dense` belongs to the attention and to the feed-forward block. A site is a
slice of its module's output, so that a fused projection is one module with several sites.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..errors import BeftError, unknown
from .architectures import FAMILIES, HEAD, NOT_NULL, Family, head_size
from .sites import LINEAR, TERMS, Anatomy, Site, Slice, anatomy_of, find, fused, join, linear_names, site_of

WITH_BIAS = (nn.Linear, Conv1D, nn.Conv1d, nn.Conv2d, nn.LayerNorm)


@dataclass(frozen=True)
class KeyBias:
    """Whether the key bias is provably without effect, and the reason in words."""

    null: bool
    reason: str


@dataclass(frozen=True)
class ClassifierHead:
    """The pooler's dense layer, if there is one, and the linear layers of the classification head."""

    pooler: str | None
    modules: tuple[str, ...]


def describe(model: nn.Module, sites: Mapping[str, str] | None = None, heads: int | None = None) -> Anatomy:
    """Find the query, key and value projections of `model`.

    Args:
        model: a transformers model, with or without a head, or a module that contains exactly one.
        sites: for an unknown architecture, a dotted name per term with `{layer}` for the layer's number,
            e.g. `{"v": "decoder.layers.{layer}.attn.v_proj"}`. `[start:stop]` behind the name selects a slice of
            a fused projection, e.g. `"h.{layer}.attn.c_attn[1536:2304]"`; `[start:stop/blocks]` selects that slice
            of each of so many equal blocks, for projections interleaved by head. Any subset of q, k, v.
        heads: with `sites`, the number of query heads where the model's config does not give it.

    Raises BeftError: an unknown architecture (the message lists its linear modules and how to name the sites), or a
    given name that is not in the model.
    """
    if sites is not None:
        return _custom_sites(model, sites, heads)
    name, backbone, family = backbone_of(model)
    config = backbone.config
    slices: Mapping[str, Slice] = {}
    if family.fused is not None:
        kv_heads, blocks = family.fused(config)
        slices = fused(config.num_attention_heads, kv_heads, head_size(config), blocks)
    known = [
        site_of(term, layer, full, module, slices.get(term), attention)
        for term in TERMS
        for layer, (attention, full, module) in enumerate(_projections(name, backbone, family, term))
    ]
    positions, extras = family.positions(config)
    size, heads = head_size(config) if family.fused else None, config.num_attention_heads
    return anatomy_of(config.model_type, known, heads, size, positions, extras, family.causal)


def key_bias_is_null(model: nn.Module) -> KeyBias:
    """Whether every bias on the keys leaves the output of `model` exactly as it is (THEORY section 1).

    `null` is True only where it is proven for the architecture and its config, and False for an unknown architecture.
    It holds for the model as it stands: keys that do not carry the bias, such as those of prefix tuning, end it.
    """
    try:
        _, backbone, family = backbone_of(model)
    except BeftError:
        return KeyBias(False, "not proven: this architecture is not known to beft.anatomy")
    positions, extras = family.positions(backbone.config)
    for extra, reason in NOT_NULL.items():
        if extra in extras:
            return KeyBias(False, reason)
    if positions.startswith("rotary"):
        return KeyBias(False, "RoPE turns the bias by another angle at each key")
    how = {
        "learned absolute": "positions are added to the input",
        "sinusoidal absolute": "positions are added to the input",
        "none": "there are no positions",
        "ALiBi (relative)": "ALiBi adds to the logits what depends on the distance alone",
        "additive relative": "what is added to the logits depends on the distance alone",
        "learned absolute and additive relative": "what is added to the logits depends on the distance alone",
    }.get(positions, "relative positions meet the query only")
    return KeyBias(True, f"all keys carry the same bias and {how}: one constant per query, which the softmax removes")


def anatomy_summary(name: str, model: nn.Module) -> dict[str, Any]:
    """The biases of a model as plain values; works on one without numbers too.

    Returns:
        model (its `name`), family; has_bias (by term, "q", "k" and "v"); heads, kv_heads, head_size; query_size and
        value_size (numbers in one layer's b_q, and in its b_k or b_v), value_total (b_v of all layers), parameters
        (numbers of the model); key_bias_null, reason.

    Raises BeftError as `describe`.
    """
    anatomy, verdict = describe(model), key_bias_is_null(model)
    by_term = {term: anatomy.of(term) for term in TERMS}
    return {
        "model": name,
        "family": anatomy.family,
        "has_bias": {term: sites[0].has_bias for term, sites in by_term.items()},
        "heads": anatomy.heads,
        "kv_heads": anatomy.kv_heads,
        "head_size": anatomy.head_size,
        "query_size": by_term["q"][0].size,
        "value_size": by_term["v"][0].size,
        "value_total": sum(site.size for site in by_term["v"]),
        "parameters": sum(p.numel() for p in model.parameters()),
        "key_bias_null": verdict.null,
        "reason": verdict.reason,
    }


def bias_modules(model: nn.Module, by_hand: bool = False) -> dict[str, nn.Module]:
    """Every linear, convolution or layer norm with a bias inside the backbone, by exact name, in model order.

    The embeddings' norms and projections are included; the pooler and modules outside the backbone are not.

    Args:
        by_hand: the sites are named by hand: the backbone is what transformers takes for one (`base_model`), and no
            pooler is known in it.

    Raises BeftError for an unknown architecture.
    """
    if by_hand:
        name, backbone, pooler = *_base_of(model), None
    else:
        name, backbone, family = backbone_of(model)
        pooler = join(name, family.pooler) if family.pooler else None
    named = {join(name, path): module for path, module in backbone.named_modules()}
    biased = {full: module for full, module in named.items() if isinstance(module, WITH_BIAS) and full != pooler}
    return {full: module for full, module in biased.items() if module.bias is not None}


def classifier(model: Any, by_hand: bool = False) -> ClassifierHead:
    """The pooler's dense layer, whose bias every method trains, and the head's linear layers, trained entirely.

    A bare backbone has no `modules`.

    Args:
        by_hand: the sites are named by hand: the head is every linear layer outside the backbone, and what pools inside
            it stays frozen. A language model's is none.

    Raises BeftError for an unknown architecture.
    """
    if by_hand:
        if model.get_output_embeddings() is not None:
            return ClassifierHead(None, ())
        base = f"{_base_of(model)[0]}."
        linear = [name for name, module in model.named_modules() if isinstance(module, LINEAR)]
        return ClassifierHead(None, tuple(name for name in linear if base != "." and not name.startswith(base)))
    name, _, family = backbone_of(model)
    parent = name.rpartition(".")[0]
    poolers = [join(name, family.pooler)] if family.pooler else []
    if name and family.head_pooler:
        poolers.append(join(parent, family.head_pooler))
    layers = [join(parent, path) for path in HEAD] if name else []
    poolers, layers = ([n for n in names if isinstance(find(model, n), LINEAR)] for names in (poolers, layers))
    return ClassifierHead(poolers[0] if poolers else None, tuple(layers))


def last_mixer(model: nn.Module) -> str | None:
    """Name of the module of the last layer behind which a classifier depends on the first token only.

    It takes the attention's output and the residual, (B, T, d) each, or their sum. Neither it nor anything behind it
    mixes tokens. None where the head reads more tokens, or where this is not known for the family.
    """
    name, backbone, family = backbone_of(model)
    if family.mixed is None or not classifier(model).modules:
        return None
    return join(name, family.stack, str(len(find(backbone, family.stack)) - 1), family.mixed)


def _base_of(model: Any) -> tuple[str, nn.Module]:
    """The part of a model that transformers takes for its backbone, with its dotted name ("" for the model itself)."""
    base = model.base_model
    return next(name for name, module in model.named_modules() if module is base), base


def backbone_of(model: nn.Module) -> tuple[str, Any, Family]:
    """The one module of a known family that holds the stack of layers, with its dotted name ("" for `model`).

    Raises BeftError if there is none, or more than one.
    """
    matches: list[tuple[str, Any, Family]] = []
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel):
            family = FAMILIES.get(module.config.model_type)
            if family is not None and isinstance(find(module, family.stack), nn.ModuleList):
                matches.append((name, module, family))
    if not matches:
        listing = "; ".join(linear_names(model)) or "none"
        raise BeftError(
            f"unknown architecture {type(model).__name__} (known: {', '.join(FAMILIES)}): name its projections by "
            'hand, e.g. sites={"q": "layers.{layer}.attn.q_proj", "v": "layers.{layer}.attn.v_proj[0:64]"}, an '
            "argument of tune, Study and BiasBank for a classifier, and of describe(model, sites=...); its linear "
            f"modules are: {listing}"
        )
    if len(matches) > 1:
        names = ", ".join(name or "the model itself" for name, _, _ in matches)
        raise BeftError(f"{type(model).__name__} contains {len(matches)} encoders ({names}): pass one of them")
    return matches[0]


def _projections(name: str, backbone: nn.Module, family: Family, term: str) -> Iterator[tuple[str, str, nn.Module]]:
    """(attention, exact name, module) of every projection of a term, in the order of layers."""
    places = {"self": (family.stack, family.projections)}
    if family.further is not None:
        places = {"encoder": places["self"], **family.further}
    for attention, (stack, paths) in places.items():
        layers = find(backbone, stack)  # an encoder alone lacks the decoder's
        for layer in range(len(layers) if layers is not None else 0):
            yield attention, join(name, stack, str(layer), paths[term]), layers[layer].get_submodule(paths[term])


def _custom_sites(model: nn.Module, sites: Mapping[str, str], heads: int | None) -> Anatomy:
    """`describe` for the sites that a user names, for architectures that beft does not know."""
    for term in sites:
        if term not in TERMS:
            raise unknown("bias term", term, TERMS)
    every = [site for term in TERMS if term in sites for site in _sites_named(model, term, sites[term])]
    if not every:
        raise BeftError(f"no sites given: name at least one of {', '.join(TERMS)}")
    config = getattr(model, "config", None)
    heads = heads or getattr(config, "num_attention_heads", None)
    if heads is None:
        raise BeftError("this model's config does not give the number of heads: call describe(..., heads=...)")
    size = getattr(config, "head_dim", None)
    if size is None and "q" not in sites and getattr(config, "hidden_size", None):
        size = config.hidden_size // heads  # type: ignore[union-attr]
    return anatomy_of("by hand", every, heads, size)


def _sites_named(model: nn.Module, term: str, text: str) -> list[Site]:
    """The sites of a term that a name with `{layer}` and an optional slice stands for."""
    match = re.fullmatch(r"([^\[\]]+?)(?:\[(\d+):(\d+)(?:/([1-9]\d*))?\])?", text)
    if match is None:
        raise BeftError(
            f"site {text!r} is not a dotted name with an optional slice like [0:64] or, in each of 4 blocks, [0:16/4]"
        )
    template, start, stop, blocks = match.groups()
    part = None if start is None else Slice(int(start), int(stop), int(blocks or 1))
    sites = []
    for layer in count() if "{layer}" in template else (0,):
        name = template.replace("{layer}", str(layer))
        module = find(model, name)
        if module is None:
            break
        if not isinstance(module, LINEAR):
            raise BeftError(f"site {name!r} is a {type(module).__name__}; a site is an nn.Linear or a Conv1D")
        sites.append(site_of(term, layer, name, module, part))
    if not sites:
        names = "; ".join(linear_names(model)) or "none"
        raise BeftError(f"site {text!r} is not in this model; its linear modules are: {names}")
    return sites
