"""Sites: the places of query, key and value in a model, and how modules are found by exact names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from ..errors import BeftError, unknown
from .fused import Slice

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


def anatomy_of(
    family: str,
    found: list[Site],
    heads: int,
    size: int | None,
    positions: str,
    extras: tuple[str, ...],
    causal: bool,
) -> Anatomy:
    """The anatomy that these sites make; `size` of a head where it is not the query's over `heads`.

    Raises:
        BeftError: terms with different numbers of layers.
    """
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


def site_of(
    term: str, layer: int, name: str, module: Any, part: Slice | None, attention: str = "self"
) -> Site:
    """The site of a term in a linear module: `part` of its output, or all. Raises BeftError where that does not fit."""
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


def linear_names(model: nn.Module) -> list[str]:
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
