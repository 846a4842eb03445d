"""Cells of a table: model x task x regime, as a profile lists them, and the runs of each.

A profile writes `cells: [{task: rte, regime: [low, medium], epochs: 6}, ...]`; what a cell does not say is the
notebook's own parameter (of `validation`, `template` and `labels` for its own task alone), `paper` is the paper's value
for that task and model. `rates: {b_q: 0.03}` are those of some methods, `rate: chosen` gives each method the rate that
its tuning split chooses (see `at_chosen_rates`; in the lists of `CHOOSING` alone), `rate_seeds: [0, 1]` with the runs
of these seeds. `methods: [b_q, b_v]` leaves out the notebook's other ones, `evaluated: 400` scores fewer validation
rows. A cell with `not_run: why` is named in tables and not run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..data import own_file, sources
from ..data.prompts import PROMPTS, Prompt
from ..data.tasks import TASKS, Task
from ..errors import BeftError
from ..paper import DECODER_EPOCHS
from ..settings.parameters import OWN
from ..study import Run, Study
from . import sweep
from .context import short

if TYPE_CHECKING:
    from ..settings.profiles import Settings


MAIN = {"model", "task", "regime", "batch_size", "max_length", "seeds", "rate", "epochs", "held_out", "dtype"}
"""Parameters of the main runs of a notebook."""
MAY_BE_NONE = ("long_cells", "step_cells", "layer_cells", "score_cells", "confirming_cells")
"""Lists of cells that a notebook can do without."""
CHOOSING = ("cells", "transfer_cells", "baseline_cells", "size_cells")
"""Lists of cells that go through `at_chosen_rates`; elsewhere `rate: chosen` would be the notebook's rate."""
CHOSEN = "chosen"
NOT_RUN = "not_run"
Record = dict[str, Any]
Absent = dict[str, str]
Choice = Callable[[list[list[Record]]], list[dict[str, float]]]


@dataclass(frozen=True)
class Cell:
    """One place of a table.

    Attributes:
        study: what its runs share.
        seeds: of every method.
        rate: of the methods that `rates` does not name.
        rates: method -> its own rate; baselines that train weights need smaller ones than biases.
        chosen: whether each method is to have the rate that its tuning split chooses.
        methods: which of a notebook's methods are run here; None for all.
        rate_seeds: of the runs that choose the rates; None for the notebook's.
    """

    study: Study
    seeds: tuple[int, ...]
    rate: float
    rates: Mapping[str, float]
    chosen: bool = False
    methods: tuple[str, ...] | None = None
    rate_seeds: tuple[int, ...] | None = None

    def of(self, methods: Sequence[str]) -> list[str]:
        """Those of a notebook's methods that are run here, in its order."""
        return [m for m in methods if self.methods is None or m in self.methods]

    def runs(self, methods: Sequence[str]) -> list[Run]:
        """Every method of this cell with every seed, at its rate."""
        return [Run(m, seed, self.rates.get(m, self.rate)) for m in self.of(methods) for seed in self.seeds]

    def exact(self) -> Study:
        """The same study in float32, in which rankings belong (THEORY section 5)."""
        return replace(self.study, dtype="float32")

    def __str__(self) -> str:
        s = self.study
        return f"{s.task}, {s.regime}, {s.model}"


def cells(s: Settings, name: str = "cells", prompted: bool = False) -> list[Cell]:
    """The cells that the parameter `name` of a notebook lists, in its order; `prompted` for language models.

    Under other settings of the main runs than the profile's, and without cells given, a notebook has the one cell of
    those settings: nobody who asks for another task or rate means a grid of others with it. Of `transfer_cells` it then
    has none, unless targets are given: those of the profile belong to its own source; and none of those that may be
    none. Raises BeftError: as `Study` and `Run`; an unknown task; one task, regime and model twice; rates to be chosen
    in a list where none are; `confirming_cells` with a seed that chose something.
    """
    every = _entries(s, name)
    entries = [entry for entry in every if NOT_RUN not in entry]
    if every and not entries:
        raise BeftError(f"every cell of {name} says {NOT_RUN}: leave one without it")
    if name not in CHOOSING and any(entry.get("rate") == CHOSEN for entry in entries):
        raise BeftError(f"no rates are chosen for {name}: give rate as a number or `paper`, or rates by method")
    found = [cell for entry in entries for cell in _expand(s, entry, prompted)]
    places = [(c.study.task, c.study.regime, c.study.model) for c in found]
    if twice := [place for n, place in enumerate(places) if place in places[:n]]:
        # tables take a cell's runs together, so those of the two would end up in one mean
        raise BeftError(f"{name} has {', '.join(map(str, twice[0]))} twice: one entry per task, regime and model")
    if name == "confirming_cells":
        _check_confirming(s, found, cells(s, prompted=prompted))
    return found


def _check_confirming(s: Settings, confirming: Sequence[Cell], before: Sequence[Cell]) -> None:
    """Raise BeftError for a seed that chose rates, or is one of the cells whose scores chose what is confirmed."""
    for again in confirming:
        place = (again.study.model, again.study.task)
        same = [c for c in before if (c.study.model, c.study.task) == place]
        chose = {*s["rate_seeds"]}.union(*((*c.seeds, *(c.rate_seeds or ())) for c in same))
        if seen := sorted(chose & {*again.seeds}):
            raise BeftError(
                f"confirming_cells, {again}: seeds {', '.join(map(str, seen))} are in cells or chose rates; give seeds "
                "that chose nothing"
            )


def not_run(s: Settings, name: str = "cells") -> list[Absent]:
    """The cells of the parameter `name` that are named and not run: {"model", "task", "regime", "reason"} of each."""
    return [
        {"model": short(model), "task": task, "regime": str(regime), "reason": entry[NOT_RUN]}
        for entry in _entries(s, name)
        if NOT_RUN in entry
        for model, task, regime in _combinations(s, entry)
    ]


def _entries(s: Settings, name: str) -> Sequence[Mapping[str, Any]]:
    entries: Sequence[Mapping[str, Any]] = s[name]
    if {*MAIN, *OWN} & s.overrides.keys() and name not in s.overrides:
        alone = name == "transfer_cells" and "transfer_targets" not in s.overrides
        entries = [] if alone or name in MAY_BE_NONE else [{}]
    return entries


def _expand(s: Settings, entry: Mapping[str, Any], prompted: bool) -> Iterator[Cell]:
    for model, task, regime in _combinations(s, entry):
        known = PROMPTS.get(task) if prompted else TASKS.get(task)
        own = {name: None for name in OWN if task != s["task"]} | {name: entry[name] for name in OWN if name in entry}
        study = s.study(
            model=model,
            task=task,
            regime=regime,
            epochs=_setting(entry, "epochs", s, known, model),
            dtype=entry.get("dtype", s["dtype"]),
            tuning=entry.get("held_out", s["held_out"]),
            validate="last",
            **({"evaluated": entry["evaluated"]} if "evaluated" in entry else {}),
            **own,
            **({"prompted": True, "schedule": "linear"} if prompted else {}),
        )
        yield Cell(
            study,
            tuple(entry.get("seeds", s["seeds"])),
            s["rate"] if entry.get("rate") == CHOSEN else _setting(entry, "rate", s, known, model),
            {**(s.get("method_rates") or {}), **entry.get("rates", {})},
            entry.get("rate") == CHOSEN,
            tuple(entry["methods"]) if "methods" in entry else None,
            tuple(entry["rate_seeds"]) if "rate_seeds" in entry else None,
        )


def _combinations(s: Settings, entry: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Model, task and regime: a list of them stands for every combination."""
    return itertools.product(*(entry.get(n, [s[n]]) for n in ("model", "task", "regime")))


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


def trial_runs(s: Settings, methods: Sequence[str], seeds: Sequence[int] | None = None) -> list[Run]:
    """The runs that choose the rates of these methods: each at its rates with every one of `rate_seeds`, or `seeds`.

    The rates of a method are those that `rate_grids` has for it, else `rates`. Methods that the notebook's
    `rate_methods` does not name are not tried.
    """
    tried = [method for method in methods if method in (s.get("rate_methods") or methods)]
    grids = s.get("rate_grids") or {}
    return [Run(m, seed, rate) for m in tried for rate in grids.get(m, s["rates"]) for seed in seeds or s["rate_seeds"]]


def rate_trials(s: Settings, cells: Sequence[Cell], methods: Sequence[str]) -> list[tuple[Study, list[Run]]]:
    """`trial_runs` of every cell, as `sweep.run_all` takes them; none for a cell whose rates are not chosen.

    They have as many epochs as the cell's reported runs, and train without the share `tuning` of the rows, on which
    they are scored.
    """
    tried = [trial_runs(s, cell.of(methods), cell.rate_seeds) if cell.chosen else [] for cell in cells]
    return [(replace(cell.study, tuning=s["tuning"]), runs) for cell, runs in zip(cells, tried, strict=True)]


def at_chosen_rates(
    s: Settings, cells: Sequence[Cell], methods: Sequence[str], choose: Choice
) -> tuple[list[Cell], list[Record]]:
    """The cells with the rates that their tuning splits choose, and the records of the runs that decided.

    A b_k that was not tried has the rate of the head alone: where it is null (THEORY section 1) it is the head alone.
    Other methods that were not tried keep the rate that the cell has for them, as cells do whose rates are not chosen.

    Args:
        choose: records of the trials of each cell -> {method: rate} of each; `intervals.choose_rates`.
    """
    trials = sweep.run_all(rate_trials(s, cells, methods), s.store)
    found = [
        replace(cell, rates={**cell.rates} | ({"b_k": rates["head"]} if "head" in rates else {}) | rates)
        for cell, rates in zip(cells, choose(trials), strict=True)
    ]
    return found, [record for records in trials for record in records]


def at_hand(cells: Sequence[Cell]) -> tuple[list[Cell], list[Absent]]:
    """The cells whose rows are at hand, and the others as {"model", "task", "regime", "reason"} for a table.

    Where none has, all of them are returned: whoever runs them meets the error that names the remedy.
    """
    asked = {(c.study.task, c.study.prompted): c.study.offline for c in cells}
    reasons = {
        (t, p): "" if own_file.is_own(t) else sources.missing(t, prompted=p, offline=offline)
        for (t, p), offline in asked.items()
    }
    found = [(cell, reasons[cell.study.task, cell.study.prompted]) for cell in cells]
    if cells and all(reason for _, reason in found):
        return list(cells), []
    absent = [
        {"model": short(c.study.model), "task": c.study.task, "regime": str(c.study.regime), "reason": reason}
        for c, reason in found
        if reason
    ]
    return [cell for cell, reason in found if not reason], absent
