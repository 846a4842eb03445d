"""Cells of a table: model x task x regime, as a profile lists them, and the runs of each.

A profile writes `cells: [{task: rte, regime: [low, medium], epochs: 6}, ...]`; what a cell does not say is the
notebook's own parameter, `paper` is the paper's value for that task and model.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..data import own_file, sources
from ..data.prompts import PROMPTS, Prompt
from ..data.tasks import TASKS, Task
from ..errors import BeftError
from ..paper import DECODER_EPOCHS
from ..study import Run, Study
from .context import short

if TYPE_CHECKING:
    from ..settings.profiles import Settings


MAIN = {"model", "task", "regime", "batch_size", "max_length", "seeds", "rate", "epochs", "held_out", "dtype"}
"""Parameters of the main runs of a notebook."""


@dataclass(frozen=True)
class Cell:
    """One place of a table.

    Attributes:
        study: what its runs share.
        seeds: of every method.
        rate: of the methods that `rates` does not name.
        rates: method -> its own rate; baselines that train weights need smaller ones than biases.
    """

    study: Study
    seeds: tuple[int, ...]
    rate: float
    rates: Mapping[str, float]

    def runs(self, methods: Sequence[str]) -> list[Run]:
        """Every method with every seed, at its rate."""
        return [Run(m, seed, self.rates.get(m, self.rate)) for m in methods for seed in self.seeds]

    def exact(self) -> Study:
        """The same study in float32, in which rankings belong (THEORY section 5)."""
        return replace(self.study, dtype="float32")

    def __str__(self) -> str:
        s = self.study
        return f"{s.task}, {s.regime}, {s.model}"


def cells(s: Settings, name: str = "cells", prompted: bool = False) -> list[Cell]:
    """The cells that the parameter `name` of a notebook lists, in its order; `prompted` for language models.

    Under other settings of the main runs than the profile's, and without cells given, a notebook has the one cell of
    those settings: nobody who asks for another task or rate means a grid of others with it. Raises BeftError: as
    `Study` and `Run`; an unknown task.
    """
    entries: Sequence[Mapping[str, Any]] = s[name]
    if MAIN & s.overrides.keys() and name not in s.overrides:
        entries = [{}]
    return [cell for entry in entries for cell in _expand(s, entry, prompted)]


def _expand(s: Settings, entry: Mapping[str, Any], prompted: bool) -> Iterator[Cell]:
    """A list of models, tasks or regimes stands for every combination."""
    values = {n: entry.get(n, [s[n]]) for n in ("model", "task", "regime")}
    for model, task, regime in itertools.product(*values.values()):
        known = PROMPTS.get(task) if prompted else TASKS.get(task)
        study = s.study(
            model=model,
            task=task,
            regime=regime,
            epochs=_setting(entry, "epochs", s, known, model),
            tuning=s["held_out"],
            validate="last",
            **({"prompted": True, "schedule": "linear"} if prompted else {}),
        )
        yield Cell(
            study,
            tuple(entry.get("seeds", s["seeds"])),
            _setting(entry, "rate", s, known, model),
            dict(s.get("method_rates") or {}),
        )


def _setting(entry: Mapping[str, Any], name: str, s: Settings, task: Task | Prompt | None, model: str) -> Any:
    value = entry.get(name, s[name])
    if value != "paper":
        return value
    if task is None:
        return s[name]
    if name == "rate":
        return task.rate
    return task.epochs_for(model)[0] if isinstance(task, Task) else DECODER_EPOCHS


def jobs(cells: Sequence[Cell], methods: Sequence[str]) -> list[tuple[Study, list[Run]]]:
    """The cells as `sweep.run_all` takes them."""
    return [(cell.study, cell.runs(methods)) for cell in cells]


def at_hand(cells: Sequence[Cell]) -> tuple[list[Cell], list[dict[str, str]]]:
    """The cells whose rows are at hand, and the others as {"model", "task", "regime", "reason"} for a table.

    Raises BeftError where no cell has rows, with what is missing.
    """
    asked = {(c.study.task, c.study.prompted): c.study.offline for c in cells}
    reasons = {
        (t, p): "" if own_file.is_own(t) else sources.missing(t, prompted=p, offline=offline)
        for (t, p), offline in asked.items()
    }
    found = [(cell, reasons[cell.study.task, cell.study.prompted]) for cell in cells]
    if cells and all(reason for _, reason in found):
        raise BeftError(f"none of the cells can be run: {found[0][1]}; set BEFT_DATA to a folder that holds it")
    absent = [
        {"model": short(c.study.model), "task": c.study.task, "regime": str(c.study.regime), "reason": reason}
        for c, reason in found
        if reason
    ]
    return [cell for cell, reason in found if not reason], absent
