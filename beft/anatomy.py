"""Where query, key and value live in a Hugging Face transformer, and whether its key bias can matter.

Everything is an exact dotted name, found by walking attribute paths from the backbone; no name is matched by a
part of it (`output.dense` is both the attention's and the feed-forward's). `families` says which paths to walk.
Every user of a site touches its `part` of its module's output only, so a fused projection is a module with several
sites.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .errors import BeftError, unknown
from .families import FAMILIES, NOT_NULL, Family
from .fused import Slice, fused

TERMS = ("q", "k", "v")
LINEAR = (nn.Linear, Conv1D)


@dataclass(frozen=True)
class Site:
    """One bias term of one layer: `part` of the output of `module` (exact dotted name).

    `attention` says which one where a model has several: "encoder", "decoder" or "cross" (whose keys and values come
    from the encoder); their layers are numbered on.
    """

    term: str
    layer: int
    module: str
    part: Slice
    has_bias: bool
    attention: str = "self"

    @property
    def size(self) -> int:
        """Entries of this bias term."""
        return self.part.size


@dataclass(frozen=True)
class Anatomy:
    """What a transformer's attention looks like; `sites` are ordered by term (q, k, v), then by layer.

    `causal`: a token sees those before it alone; False for models named by hand, of which it is not known.
    """

    family: str
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    positions: str
    extras: tuple[str, ...]
    sites: tuple[Site, ...]
    causal: bool = False

    def of(self, term: str) -> tuple[Site, ...]:
        """The sites of one term, by layer. Raises BeftError for a term this model does not have."""
        found = tuple(site for site in self.sites if site.term == term)
        if not found:
            raise unknown("bias term", term, dict.fromkeys(site.term for site in self.sites))
        return found


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
        return _by_hand(model, sites, heads)
    name, backbone, family = backbone_of(model)
    config = backbone.config
    parts: Mapping[str, Slice] = {}
    if family.fused is not None:
        kv_heads, blocks = family.fused(config)
        parts = fused(config.num_attention_heads, kv_heads, head_size(config), blocks)
    found = [
        _site(term, layer, full, module, parts.get(term), attention)
        for term in TERMS
        for layer, (attention, full, module) in enumerate(_projections(name, backbone, family, term))
    ]
    positions, extras = family.positions(config)
    size = head_size(config) if family.fused else None
    return _anatomy(
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


def backbone_of(model: nn.Module) -> tuple[str, Any, Family]:
    """The one module of a known family that holds the stack of layers, and its dotted name ("" for `model`)."""
    found: list[tuple[str, Any, Family]] = []
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel):
            family = FAMILIES.get(module.config.model_type)
            if family is not None and isinstance(find(module, family.stack), nn.ModuleList):
                found.append((name, module, family))
    if not found:
        listing = "; ".join(_linear_names(model)) or "none"
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


def _by_hand(model: nn.Module, sites: Mapping[str, str], heads: int | None) -> Anatomy:
    found: list[Site] = []
    for term in sorted(sites, key=lambda t: TERMS.index(t) if t in TERMS else -1):
        if term not in TERMS:
            raise unknown("bias term", term, TERMS)
        match = re.fullmatch(r"([^\[\]]+?)(?:\[(\d+):(\d+)(?:/([1-9]\d*))?\])?", sites[term])
        if match is None:
            raise BeftError(
                f"site {sites[term]!r} is not a dotted name with an optional slice like [0:64] or, in each of 4 "
                "blocks, [0:16/4]"
            )
        template, start, stop, blocks = match.groups()
        part = None if start is None else Slice(int(start), int(stop), int(blocks or 1))
        mine = []
        for layer, (name, module) in enumerate(_expand(model, template)):
            if not isinstance(module, LINEAR):
                raise BeftError(
                    f"site {name!r} is a {type(module).__name__}; a site is an nn.Linear or a Conv1D"
                )
            mine.append(_site(term, layer, name, module, part))
        if not mine:
            names = "; ".join(_linear_names(model)) or "none"
            raise BeftError(f"site {sites[term]!r} is not in this model; its linear modules are: {names}")
        found += mine
    if not found:
        raise BeftError(f"no sites given: name at least one of {', '.join(TERMS)}")
    config = getattr(model, "config", None)
    heads = heads or getattr(config, "num_attention_heads", None)
    if heads is None:
        raise BeftError(
            "this model's config does not give the number of heads: call describe(..., heads=...)"
        )
    size = getattr(config, "head_dim", None)
    if size is None and "q" not in sites and getattr(config, "hidden_size", None):
        size = config.hidden_size // heads  # type: ignore[union-attr]
    return _anatomy("by hand", found, heads, size, "unknown", (), False)


def _anatomy(
    family: str,
    found: list[Site],
    heads: int,
    size: int | None,
    positions: str,
    extras: tuple[str, ...],
    causal: bool,
) -> Anatomy:
    by_term = {term: [site for site in found if site.term == term] for term in TERMS}
    counts = {term: len(mine) for term, mine in by_term.items() if mine}
    if len(set(counts.values())) != 1:
        raise BeftError(f"the terms have different numbers of layers ({counts}): name every layer of each")
    size = size or found[0].size // heads
    keys = by_term["k"] or by_term["v"] or found
    return Anatomy(
        family,
        len(by_term[found[0].term]),
        heads,
        keys[0].size // size,
        size,
        positions,
        extras,
        tuple(found),
        causal,
    )


def _site(term: str, layer: int, name: str, module: Any, part: Slice | None, attention: str = "self") -> Site:
    width = width_of(module)
    part = part or Slice(0, width)
    if not part.fits(width):
        blocks = f" in each of {part.blocks} blocks" if part.blocks > 1 else ""
        raise BeftError(
            f"slice [{part.start}:{part.stop}]{blocks} does not fit {name!r}, whose output has {width} entries"
        )
    return Site(term, layer, name, part, module.bias is not None, attention)


def width_of(module: Any) -> int:
    """Entries of the output of a linear module."""
    return int(module.nf if isinstance(module, Conv1D) else module.out_features)


def _expand(model: nn.Module, template: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules a template with `{layer}` names, from layer 0 until one is missing."""
    layer = 0
    while (module := find(model, name := template.replace("{layer}", str(layer)))) is not None:
        yield name, module
        layer += 1
        if "{layer}" not in template:
            return


def _linear_names(model: nn.Module) -> list[str]:
    """Names of the linear modules with the layer's number abbreviated, e.g. `h.{layer}.mlp.c_fc (12 of 3072)`."""
    kinds: dict[str, list[int]] = {}
    for name, module in model.named_modules():
        if isinstance(module, LINEAR):
            short = re.sub(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)", "{layer}", name, count=1)
            kinds.setdefault(short, []).append(width_of(module))
    return [f"{name} ({len(sizes)} of {sizes[0]})" for name, sizes in kinds.items()]


def join(*parts: str) -> str:
    """A dotted name of its parts, without the empty ones."""
    return ".".join(part for part in parts if part)


def walk(module: nn.Module, path: str) -> Any:
    """The module at a dotted path, which must be there."""
    for part in path.split("."):
        module = getattr(module, part)
    return module


def find(module: nn.Module, path: str) -> Any:
    """The module at a dotted path, or None."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None
