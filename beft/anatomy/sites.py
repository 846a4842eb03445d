"""Sites: the places of query, key and value in a model, and modules by their exact names."""

import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.pytorch_utils import Conv1D

from ..errors import BeftError, unknown

TERMS = ("q", "k", "v")
LINEAR = (nn.Linear, Conv1D)


@dataclass(frozen=True)
class Slice:
    """Entries `[start:stop]` of each of `blocks` equal blocks of a vector.

    One block is an ordinary slice. Fused projections that are interleaved by head (GPT-NeoX, BLOOM, Falcon) have one
    block per head or group of heads, each with a query, a key and a value.
    """

    start: int
    stop: int
    blocks: int = 1

    @property
    def size(self) -> int:
        """Entries in all blocks together."""
        return self.blocks * (self.stop - self.start)

    def take(self, x: Tensor) -> Tensor:
        """These entries of x (..., width), block after block: (..., size)."""
        return x.unflatten(-1, (self.blocks, -1))[..., self.start : self.stop].flatten(-2)

    def put(self, values: Tensor, width: int) -> Tensor:
        """values (..., size) in a vector (..., width) that is zero elsewhere."""
        if self.size == width:
            return values
        each = values.unflatten(-1, (self.blocks, -1))
        return pad(each, (self.start, width // self.blocks - self.stop)).flatten(-2)


def fused(heads: int, kv_heads: int, size: int, blocks: int) -> dict[str, Slice]:
    """The slice of each term in a fused projection whose blocks hold queries, then keys, then values.

    Args:
        heads: of the query, a multiple of `blocks`.
        kv_heads: of key and value, a multiple of `blocks`.
        size: of a head.
    """
    q, kv = heads // blocks * size, kv_heads // blocks * size
    return {"q": Slice(0, q, blocks), "k": Slice(q, q + kv, blocks), "v": Slice(q + kv, q + 2 * kv, blocks)}


@dataclass(frozen=True)
class Site:
    """One bias term of one layer: `part` of the output of `module` (exact dotted name).

    `attention` names the attention where a model has several: "encoder", "decoder" or "cross" (keys and values come
    from the encoder). Their layers are numbered consecutively.
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
    """The attention of a transformer; `sites` are ordered by term (q, k, v), then by layer.

    `causal`: a token attends to earlier tokens only; False for custom sites, where it is not known.
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
        """The sites of one term, by layer. Raises BeftError for a term that this model does not have."""
        sites = tuple(site for site in self.sites if site.term == term)
        if not sites:
            raise unknown("bias term", term, dict.fromkeys(site.term for site in self.sites))
        return sites


def anatomy_of(
    family: str,
    sites: list[Site],
    heads: int,
    size: int | None,
    positions: str = "unknown",
    extras: tuple[str, ...] = (),
    causal: bool = False,
) -> Anatomy:
    """The anatomy with these sites, at least one; `size` of a head where it is not the query's over `heads`.

    Raises BeftError for terms with different numbers of layers.
    """
    by_term = {term: [site for site in sites if site.term == term] for term in TERMS}
    counts = {term: len(own) for term, own in by_term.items() if own}
    if len(set(counts.values())) != 1:
        raise BeftError(f"the terms have different numbers of layers ({counts}): name every layer of each")
    size = size or sites[0].size // heads
    kv_heads = (by_term["k"] or by_term["v"] or sites)[0].size // size
    return Anatomy(family, counts[sites[0].term], heads, kv_heads, size, positions, extras, tuple(sites), causal)


def site_of(term: str, layer: int, name: str, module: Any, part: Slice | None, attention: str = "self") -> Site:
    """The site of a term in a linear module: `part` of its output, or all. Raises BeftError where that does not fit."""
    width = width_of(module)
    part = part or Slice(0, width)
    if width % part.blocks or not 0 <= part.start < part.stop <= width // part.blocks:
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
    widths: dict[str, list[int]] = {}
    for name, module in model.named_modules():
        if isinstance(module, LINEAR):
            short = re.sub(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)", "{layer}", name, count=1)
            widths.setdefault(short, []).append(width_of(module))
    return [f"{name} ({len(own)} of {own[0]})" for name, own in widths.items()]


def join(*names: str) -> str:
    """A dotted name from its components; empty ones are left out."""
    return ".".join(name for name in names if name)


def find(module: nn.Module, path: str) -> Any:
    """The module at a dotted path, or None."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None
