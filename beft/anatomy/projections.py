"""Where query, key and value live in a Hugging Face transformer, and whether its key bias can matter.

Everything is an exact dotted name, found by walking attribute paths from the backbone; no name is matched by a
part of it (`output.dense` is both the attention's and the feed-forward's). `families` says which paths to walk.
Every user of a site touches its `part` of its module's output only, so a fused projection is a module with several
sites.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..errors import BeftError
from .architectures import FAMILIES, NOT_NULL, Family
from .custom_sites import by_hand
from .fused import Slice, fused
from .sites import TERMS, Anatomy, anatomy_of, find, join, linear_names, site_of, walk


@dataclass(frozen=True)
class Verdict:
    """Is the key bias provably without effect, and why (in words)."""

    null: bool
    reason: str


def describe(model: nn.Module, sites: Mapping[str, str] | None = None, heads: int | None = None) -> Anatomy:
    """Find the query, key and value projections of `model`.

    Args:
        model: a transformers model, with or without a head, or a module that contains exactly one.
        sites: for an architecture not known here, a dotted name per term with `{layer}` for the layer's number,
            e.g. `{"v": "decoder.layers.{layer}.attn.v_proj"}`; `[start:stop]` behind the name picks a slice of
            a fused projection, e.g. `"h.{layer}.attn.c_attn[1536:2304]"`, and `[start:stop/blocks]` that slice of
            each of so many equal blocks, for one interleaved by head. Any subset of q, k, v.
        heads: with `sites`, the number of query heads where the model's config does not say it.

    Raises:
        BeftError: unknown architecture (the message lists its linear modules and how to name sites by hand), or
            a hand-made name that is not in the model.
    """
    if sites is not None:
        return by_hand(model, sites, heads)
    name, backbone, family = backbone_of(model)
    config = backbone.config
    parts: Mapping[str, Slice] = {}
    if family.fused is not None:
        kv_heads, blocks = family.fused(config)
        parts = fused(config.num_attention_heads, kv_heads, head_size(config), blocks)
    found = [
        site_of(term, layer, full, module, parts.get(term), attention)
        for term in TERMS
        for layer, (attention, full, module) in enumerate(_projections(name, backbone, family, term))
    ]
    positions, extras = family.positions(config)
    size = head_size(config) if family.fused else None
    return anatomy_of(
        config.model_type, found, config.num_attention_heads, size, positions, extras, family.causal
    )


def head_size(config: Any) -> int:
    """Entries of a head, by a model's config."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def key_bias_is_null(model: nn.Module) -> Verdict:
    """Does every bias on the keys leave the output of `model` exactly as it is (THEORY section 1)?

    True only where it is proven for the architecture and its config; an unknown architecture is False with that
    reason. The verdict is about the model as it stands: keys that do not carry the bias, such as the extra slots
    of prefix tuning, end it.
    """
    try:
        _, backbone, family = backbone_of(model)
    except BeftError:
        return Verdict(False, "not proven: this architecture is not known to beft.anatomy")
    positions, extras = family.positions(backbone.config)
    for extra, reason in NOT_NULL.items():
        if extra in extras:
            return Verdict(False, reason)
    if positions.startswith("rotary"):
        return Verdict(False, "RoPE turns the bias by another angle at each key")
    how = {
        "learned absolute": "positions are added to the input",
        "sinusoidal absolute": "positions are added to the input",
        "none": "there are no positions",
        "ALiBi (relative)": "ALiBi adds to the logits what depends on the distance alone",
        "additive relative": "what is added to the logits depends on the distance alone",
    }.get(positions, "relative positions meet the query only")
    return Verdict(
        True, f"all keys carry the same bias and {how}: one constant per query, which the softmax removes"
    )


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


def backbone_of(model: nn.Module) -> tuple[str, Any, Family]:
    """The one module of a known family that holds the stack of layers, and its dotted name ("" for `model`)."""
    found: list[tuple[str, Any, Family]] = []
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel):
            family = FAMILIES.get(module.config.model_type)
            if family is not None and isinstance(find(module, family.stack), nn.ModuleList):
                found.append((name, module, family))
    if not found:
        listing = "; ".join(linear_names(model)) or "none"
        raise BeftError(
            f"unknown architecture {type(model).__name__} (known: {', '.join(FAMILIES)}): name its projections by "
            'hand, e.g. describe(model, sites={"q": "layers.{layer}.attn.q_proj", "v": '
            f'"layers.{{layer}}.attn.v_proj[0:64]"}}); its linear modules are: {listing}'
        )
    if len(found) > 1:
        names = ", ".join(name or "the model itself" for name, _, _ in found)
        raise BeftError(f"{type(model).__name__} contains {len(found)} encoders ({names}): pass one of them")
    return found[0]


def _projections(
    name: str, backbone: nn.Module, family: Family, term: str
) -> Iterator[tuple[str, str, nn.Module]]:
    """(attention, exact name, module) of every projection of a term, in the order of layers."""
    places = {"self": (family.stack, family.projections)}
    if family.further is not None:
        places = {"encoder": places["self"], **family.further}
    for attention, (stack, paths) in places.items():
        layers = find(backbone, stack)  # an encoder alone lacks the decoder's
        for layer in range(len(layers) if layers is not None else 0):
            yield attention, join(name, stack, str(layer), paths[term]), walk(layers[layer], paths[term])
