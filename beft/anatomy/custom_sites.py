"""Sites that a user names by hand, for architectures that beft does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import nn

from ..errors import BeftError, unknown
from .fused import Slice
from .sites import LINEAR, TERMS, Anatomy, Site, anatomy_of, find, linear_names, site_of


def by_hand(model: nn.Module, sites: Mapping[str, str], heads: int | None) -> Anatomy:
    """What `anatomy.describe` gives for `sites` and `heads`, which it explains. Raises BeftError for wrong names."""
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
            mine.append(site_of(term, layer, name, module, part))
        if not mine:
            names = "; ".join(linear_names(model)) or "none"
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
    return anatomy_of("by hand", found, heads, size, "unknown", (), False)


def _expand(model: nn.Module, template: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules a template with `{layer}` names, from layer 0 until one is missing."""
    layer = 0
    while (module := find(model, name := template.replace("{layer}", str(layer)))) is not None:
        yield name, module
        layer += 1
        if "{layer}" not in template:
            return
