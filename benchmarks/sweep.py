"""What sweeps cost: a grid in banks against one run after another, the machinery around a cell, and Dask.

    python -m benchmarks.sweep      five methods, five seeds, five rates on one task

All of it is measured in one process on one machine, side by side. One run after another is our own loop with banks of
one, timed on a sample of the grid's runs, between the banks, and scaled by their number.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from beft.errors import BeftError
from beft.experiments import sweep
from beft.experiments.context import MODEL_AND_DATA, Context
from beft.experiments.memory import BANK
from beft.experiments.packing import pack
from beft.models import files as model_files
from beft.records.provenance import build_record
from beft.records.store import Store
from beft.study import METHODS, Run, Study
from beft.training.device import default_device
from beft.training.loop import fit
from benchmarks.report import table
from benchmarks.steps import check_sizes, find_data, parser_of, run

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
TARGETS = {"grid_cpu": 2.0, "grid_cuda": 8.0, "overhead": 0.05, "dask": 1.25}


@dataclass(frozen=True)
class Options:
    """What to time. `singles`: runs of each method timed alone; `cells`: tiny cells for the overhead.

    A grid's run sees its training rows many times and the validation split once; with much fewer rows or epochs than
    these, scoring that split, which no bank makes faster, would be what is timed. `dtype` is that of `laptop`.
    """

    model: str = model_files.DEFAULT
    task: str | None = None
    rows: int = 250
    epochs: int = 4
    seeds: int = 5
    rates: int = 5
    singles: int = 2
    cells: int = 20
    workers: int = 2
    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        check_sizes(self, "epochs", "seeds", "rates", "singles", "cells", "workers")
        if self.cells < 2:
            raise BeftError(
                "cells 1 is too small: the first cell's time has the reading of rows and model in it, give 2"
            )
        if self.rates > len(RATES):
            raise BeftError(f"rates {self.rates} is too large: give at most {len(RATES)}")


def measure(options: Options, progress: bool = True) -> dict[str, Any]:
    """All measurements as a record of kind "bench".

    Raises:
        BeftError: a model or task that is not there, or whatever a run says.
    """
    began = time.perf_counter()
    available, note = find_data(options.task)
    task = options.task or available.task.name
    study = Study(options.model, task, options.rows, options.epochs, dtype=options.dtype, validate="last")
    context = Context(study)
    with tqdm(total=100, disable=not progress, leave=False) as bar:
        bar.bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
        grid = _grid(context, options, bar)
        bar.set_description("overhead")
        overhead = _overhead(replace(study, regime=32, epochs=1), options.cells)
        bar.update(5)
        bar.set_description("Dask")
        dask = _dask(study, options)
        bar.update(25)
    identity = {name: value for name, value in context.common().items() if name in MODEL_AND_DATA}
    settings = asdict(options) | identity | {"kind": "bench", "method": "sweep"}
    subject = context.subject()
    subject["data"]["note"] = note
    measured: dict[str, Any] = {"grid": grid, "overhead": overhead, "dask": dask, "targets": TARGETS}
    seconds = time.perf_counter() - began
    return build_record("bench", settings, subject, default_device(), **measured, seconds=seconds)


def _grid(context: Context, options: Options, bar: tqdm) -> dict[str, Any]:
    """Seconds of the whole grid in banks, and of it one by one, scaled from `singles` runs of each method."""
    runs = [Run(m, s, r) for m in METHODS for s in range(options.seeds) for r in RATES[: options.rates]]
    banks = list(pack(context, runs, BANK))
    per_method = options.seeds * options.rates
    alone = [Run(m, s % options.seeds, RATES[s % options.rates]) for s in range(options.singles) for m in METHODS]
    stacked, single = 0.0, {m: [] for m in METHODS}  # type: ignore[var-annotated]
    turns = max(len(banks), len(alone))
    bar.set_description("grid")
    for i in range(turns):  # interleaved, so that a slow minute of the machine is shared
        if i < len(banks):
            stacked += _timed(context, banks[i])
        if i < len(alone):
            single[alone[i].method].append(_timed(context, [alone[i]]))
        bar.update(70 / turns)
    one_by_one = {m: per_method * sum(times) / len(times) for m, times in single.items()}
    return {
        "runs": len(runs),
        "banks": [len(b) for b in banks],
        "stacked": stacked,
        "one_by_one": sum(one_by_one.values()),
        "single": {m: sum(times) / len(times) for m, times in single.items()},
    }


def _timed(context: Context, runs: list[Run]) -> float:
    start = time.perf_counter()
    for _ in fit(context.loaded, context.data, context.study, runs):
        pass
    return time.perf_counter() - start


def _overhead(study: Study, count: int) -> dict[str, Any]:
    """Seconds per cell of `sweep.run_all` besides training, and of reading everything back."""
    jobs = [(replace(study, max_length=16 + i % 64, clip=1 + i / 1000), [Run("b_v", 0, 1e-3)]) for i in range(count)]

    def besides(some: list, store: Store) -> tuple[float, float]:
        """Seconds of a sweep besides training, and of reading all of it back."""
        start = time.perf_counter()
        records = sweep.run_all(some, store, progress=False)
        middle = time.perf_counter()
        sweep.run_all(some, store, progress=False)
        trained = sum(part[0]["bank"]["seconds"] for part in records)
        return middle - start - trained, time.perf_counter() - middle

    with tempfile.TemporaryDirectory() as folder:
        besides(jobs[:1], Store(Path(folder) / "warm"))
        one, all_ = (besides(jobs[:n], Store(Path(folder) / str(n))) for n in (1, count))
    # rows and model are read once for a sweep, whatever the number of its cells: the first cell's time has that in it
    return {
        "cells": count,
        "per_cell": (all_[0] - one[0]) / (count - 1),
        "reread": (all_[1] - one[1]) / (count - 1),
        "once": one[0],
    }


def _dask(study: Study, options: Options) -> dict[str, Any]:
    """Seconds of the same sweep in this process and on local workers, which start up in that time."""
    jobs = [
        (
            replace(study, clip=1 + i / 1000),
            [Run("b_v", s, 1e-3) for s in range(8)],
        )
        for i in range(2 * options.workers)
    ]
    with tempfile.TemporaryDirectory() as folder:
        times: list[float] = []
        for scheduler in (None, f"local:{options.workers}"):
            start = time.perf_counter()
            sweep.run_all(jobs, Store(Path(folder) / str(len(times))), progress=False, scheduler=scheduler)
            times.append(time.perf_counter() - start)
    return {"workers": options.workers, "banks": len(jobs), "here": times[0], "there": times[1]}


def report(record: dict[str, Any]) -> str:
    """The record as Markdown, with pass or miss for every target."""
    grid, overhead, dask, wanted = (record[n] for n in ("grid", "overhead", "dask", "targets"))
    device = record["device"]
    kind = "cuda" if device["kind"] == "cuda" else "cpu"
    checks = [
        (
            "grid in banks, times faster than one by one",
            grid["one_by_one"] / grid["stacked"],
            f"grid_{kind}",
            True,
        ),
        ("seconds of the sweep per cell besides training", overhead["per_cell"], "overhead", False),
        (
            f"{dask['workers']} Dask workers over this process, time",
            dask["there"] / dask["here"],
            "dask",
            False,
        ),
    ]
    rows = []
    for what, value, name, least in checks:
        met = value >= wanted[name] if least else value <= wanted[name]
        words = f"{'at least' if least else 'at most'} {wanted[name]:g}"
        rows.append([what, f"{value:.3g}", words, "pass" if met else "MISS"])
    s = record["settings"]
    reread = f"{1000 * overhead['reread']:.0f} ms" if overhead["reread"] >= 0.001 else "too little to measure"
    lines = [
        *table(["what", "measured", "target", ""], rows),
        "",
        f"{grid['runs']} runs in banks of {', '.join(map(str, grid['banks']))}: {grid['stacked']:.0f} s; one by one "
        f"{grid['one_by_one']:.0f} s, scaled from {s['singles']} runs of each method. Reading a cell back: "
        f"{reread}; rows and model, once a sweep: {overhead['once']:.1f} s. "
        f"Dask: {dask['banks']} banks, {dask['here']:.0f} s in this process, "
        f"{dask['there']:.0f} s on workers that start in that time.",
        "",
        f"{record['model']['name']} on {record['data']['task']} ({record['data']['source']}), {s['rows']} rows, "
        f"{s['epochs']} epochs, {s['dtype']}. {device['name']}, {device['threads']} threads, torch "
        f"{record['versions']['torch']}, commit {record['code']['commit'][:7]}"
        f"{' and changes' if record['code']['dirty'] else ''}.",
        "",
    ]
    return "\n".join(([f"**{record['data']['note']}**", ""] if record["data"]["note"] else []) + lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 whether or not the targets are met, 2 (nothing measured), 130 (interrupted)."""
    parser = parser_of(Options(), "sweep", __doc__)
    return run(parser, arguments, lambda given: measure(Options(**given)), report, "sweep", report)


if __name__ == "__main__":
    sys.exit(main())
