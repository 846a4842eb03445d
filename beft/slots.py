"""What the runs of a bank train: one stacked parameter per place, and which runs train it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import anatomy
from .errors import unknown
from .study import METHODS


@dataclass
class Slot:
    """One stacked parameter: what every run adds to (or has in place of) a part of one module.

    Attributes:
        module: exact dotted name.
        kind: "bias" (added to `output[..., start:stop]`), or "weight" and "offset" of a head's linear layer.
        group: "bias", "pooler" or "head", the three parts of a parameter count.
        start, stop: the slice of the module's output.
        values: (R, stop - start), for a weight (R, out, in).
        trained: bool (R,), the runs that train it; the other rows stay zero.
    """

    module: str
    kind: str
    group: str
    start: int
    stop: int
    values: nn.Parameter
    trained: Tensor


def bias_slots(model: Any, methods: Sequence[str]) -> list[Slot]:
    """The biases that a bank of these methods adds to, all zero, and the pooler's, which every run trains."""
    wanted: dict[tuple[str, int, int], list[int]] = {}
    for run, method in enumerate(methods):
        for place in places(model, method):
            wanted.setdefault(place, []).append(run)
    slots = [_slot(model, *place, "bias", runs, len(methods)) for place, runs in wanted.items()]
    pooler = anatomy.classifier(model).pooler
    if pooler is not None:
        size = model.get_submodule(pooler).out_features
        slots.append(_slot(model, pooler, 0, size, "pooler", range(len(methods)), len(methods)))
    return slots


def places(model: Any, method: str) -> Iterator[tuple[str, int, int]]:
    """(module, start, stop) of the biases a method trains."""
    if method in ("b_q", "b_k", "b_v"):
        for site in anatomy.describe(model).of(method[-1]):
            yield site.module, site.start, site.stop
    elif method == "all_biases":
        for name, module in anatomy.bias_modules(model).items():
            yield name, 0, len(module.bias)  # type: ignore[arg-type]
    elif method != "head":
        raise unknown("method", method, METHODS)


def _slot(model: Any, module: str, start: int, stop: int, group: str, runs: Sequence[int], R: int) -> Slot:
    device = next(model.parameters()).device
    trained = torch.zeros(R, dtype=torch.bool, device=device)
    trained[list(runs)] = True
    values = nn.Parameter(torch.zeros(R, stop - start, device=device))
    return Slot(module, "bias", group, start, stop, values, trained)


def head_slots(model: Any, seeds: Sequence[int]) -> list[Slot]:
    """Stacked heads, drawn as transformers does, each from its run's seed: runs of one seed start alike."""
    std = getattr(model.config, "initializer_range", 0.02)
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    device, slots = next(model.parameters()).device, []
    everyone = torch.ones(len(seeds), dtype=torch.bool, device=device)
    for name in anatomy.classifier(model).modules:
        out, width = model.get_submodule(name).weight.shape
        weight = torch.stack([torch.randn(out, width, generator=g) * std for g in generators])
        for kind, values in (("weight", weight), ("offset", torch.zeros(len(seeds), out))):
            parameter = nn.Parameter(values.to(device))
            slots.append(Slot(name, kind, "head", 0, out, parameter, everyone))
    return slots


def shares_places(description: anatomy.Anatomy, methods: Sequence[str]) -> bool:
    """Whether a method tunes a bias that also acts on something a batch shares, so that a run needs its own bank.

    DeBERTa projects the embeddings of distances once for all examples: with layers of its own, which all_biases
    tunes, or with the query's and key's.
    """
    if "disentangled relative" not in description.positions:
        return False
    shared = {"all_biases"} | (
        {"b_q", "b_k"} if "shared position projections" in description.extras else set()
    )
    return not shared.isdisjoint(methods)
