"""What the runs of a bank train: one stacked parameter per place, and which runs train it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..anatomy import head as parts
from ..anatomy import projections as anatomy
from ..anatomy.sites import Slice
from ..study import WEIGHT_METHODS, split_method
from .forms import FORMS, Form, draws


@dataclass
class Slot:
    """One stacked parameter: what every run adds to (or has in place of) a part of one module.

    Attributes:
        module: exact dotted name.
        kind: "bias" (added to `part` of the output), "weight" and "offset" of a head's linear layer, "whole" and
            "entries" of a parameter (see `weights`; `module` is then the parameter's name).
        group: "bias", "pooler", "head" or "weights", the parts of a parameter count.
        part: which entries of the module's output, d of them.
        values: the trained numbers: (R, d), for a weight (R, out, in), for another form (R, p).
        trained: bool (R,), the runs that train it; the other rows stay as they were.
        form: how `values` become a bias; None where they are one.
        fixed: (R, f) drawn numbers of a form that are not trained; places of entries (k,) in a flat parameter.
        before: the pre-trained bias (d,) of a form.
    """

    module: str
    kind: str
    group: str
    part: Slice
    values: nn.Parameter
    trained: Tensor
    form: Form | None = None
    fixed: Tensor | None = None
    before: Tensor | None = None

    def delta(self) -> Tensor:
        """What each run adds to the bias, (R, d), in float32; zero for runs that do not train it."""
        if self.form is None:
            return self.values
        assert self.fixed is not None and self.before is not None
        with torch.autocast(self.values.device.type, enabled=False):
            added = self.form.delta(self.values, self.fixed, self.before)
        return torch.where(self.trained[:, None], added, 0.0)


def bias_slots(model: Any, methods: Sequence[str], seeds: Sequence[int]) -> list[Slot]:
    """The biases that a bank of these methods adds to, nothing at first, and the pooler's, which every run trains."""
    wanted: dict[tuple[str, Slice, str], list[int]] = {}
    for run, method in enumerate(methods):
        for place in places(model, method):
            wanted.setdefault((*place, split_method(method)[1]), []).append(run)
    slots = []
    for (module, part, form), runs in wanted.items():
        slot = _slot(model, module, part, "bias", runs, len(methods))
        slots.append(_in_form(model, slot, FORMS[form], seeds) if form else slot)
    pooler = parts.classifier(model).pooler
    if pooler is not None and "full" not in methods:
        size = model.get_submodule(pooler).out_features
        slots.append(_slot(model, pooler, Slice(0, size), "pooler", range(len(methods)), len(methods)))
    return slots


def places(model: Any, method: str) -> Iterator[tuple[str, Slice]]:
    """(module, part of its output) of the biases a method trains."""
    method, _ = split_method(method)
    if method == "all_biases":
        for name, module in parts.bias_modules(model).items():
            yield name, Slice(0, len(module.bias))  # type: ignore[arg-type]
    elif method not in ("head", *WEIGHT_METHODS):
        for site in anatomy.describe(model).of(method[-1]):
            yield site.module, site.part


def _slot(model: Any, module: str, part: Slice, group: str, runs: Sequence[int], R: int) -> Slot:
    device = next(model.parameters()).device
    # which runs train it is known even where a model has shapes and no numbers
    trained = torch.zeros(R, dtype=torch.bool, device="cpu" if device.type == "meta" else device)
    trained[list(runs)] = True
    values = nn.Parameter(torch.zeros(R, part.size, device=device))
    return Slot(module, "bias", group, part, values, trained)


def _in_form(model: Any, slot: Slot, form: Form, seeds: Sequence[int]) -> Slot:
    """The same place with its bias written in another form, each run's numbers drawn from its seed."""
    d, device = slot.part.size, slot.values.device
    bias = model.get_submodule(slot.module).bias
    before = torch.zeros(d) if bias is None else slot.part.take(bias.detach()).float().cpu()
    generators = [draws(seed, slot.module, slot.part.start) for seed in seeds]
    slot.values = nn.Parameter(torch.stack([form.start(d, g, before) for g in generators]).to(device))
    slot.form, slot.before = form, before.to(device)
    slot.fixed = torch.stack([form.fixed(d, g) for g in generators]).to(device)
    return slot


def head_slots(model: Any, seeds: Sequence[int]) -> list[Slot]:
    """Stacked heads, drawn as transformers does, each from its run's seed: runs of one seed start alike."""
    std = getattr(model.config, "initializer_range", 0.02)
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    device, slots = next(model.parameters()).device, []
    everyone = torch.ones(len(seeds), dtype=torch.bool, device=device)
    for name in parts.classifier(model).modules:
        out, width = model.get_submodule(name).weight.shape
        weight = torch.stack([torch.randn(out, width, generator=g) * std for g in generators])
        for kind, values in (("weight", weight), ("offset", torch.zeros(len(seeds), out))):
            parameter = nn.Parameter(values.to(device))
            slots.append(Slot(name, kind, "head", Slice(0, out), parameter, everyone))
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
    return not shared.isdisjoint(split_method(method)[0] for method in methods)
