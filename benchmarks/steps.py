"""Time and memory of stacked runs against the authors' protocol written plainly (`benchmarks.reference`), side by side.

    python -m benchmarks.steps            the low-data grid: five methods, three seeds, two epochs

All of it is measured in one process on one machine, but for the peak memory, which needs fresh processes. The plain
protocol would take about an hour on two cores, so it is timed on a sample of its batches and scaled by their number;
`--full` runs it whole.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from beft import paths
from beft.data import sources as data_module
from beft.data.batching import CHUNKS, encode
from beft.data.datasets import Dataset
from beft.errors import BeftError, exit_status
from beft.experiments.context import MODEL_AND_DATA, Context
from beft.experiments.memory import BANK
from beft.experiments.packing import pack
from beft.models import files as model_files
from beft.records.provenance import build_record
from beft.records.store import Store
from beft.study import METHODS, Run, Study
from benchmarks import timing
from benchmarks.report import report, summary
from benchmarks.timing import Timed

# Each step has everything the ones before it have.
STEPS = ("plain", "longest", "unscored", "stacked", "bfloat16")
MEMORY_RUNS = 16
TARGETS = {"float32": 8.0, "bfloat16": 15.0, "efficiency": 0.9, "memory": 1.5}


@dataclass(frozen=True)
class Options:
    """What to time. `samples`: batches of the plain protocol per method and kind; ignored with `full`."""

    model: str = model_files.DEFAULT
    task: str | None = None
    rows: int = 1000
    seeds: int = 3
    epochs: int = 2
    repeats: int = 1
    samples: int = 6
    rate: float = 3e-3  # at which the default encoder learns; it has no bearing on the time
    full: bool = False

    def __post_init__(self) -> None:
        check_sizes(self, "seeds", "epochs", "repeats", "samples")


def check_sizes(options: Any, *counts: str) -> None:
    """Raise BeftError where one of these counts is below 1, or `rows` fill no batch."""
    for name in counts:
        if getattr(options, name) < 1:
            raise BeftError(f"{name} {getattr(options, name)} is too small: give at least 1")
    if getattr(options, "rows", Study.batch_size) < Study.batch_size:
        raise BeftError(f"rows {options.rows} do not fill one batch: give at least {Study.batch_size}")


def find_data(task: str | None) -> tuple[Dataset, str]:
    """The rows to time on, and what to say where they stand in for SST-2 (only if neither task nor BEFT_DATA is given).

    Raises:
        BeftError: what was asked for is not there.
    """
    try:
        return data_module.load(task or "sst2"), ""
    except BeftError as error:
        if task is not None or os.environ.get("BEFT_DATA"):
            raise
        return data_module.load("microworld_sentiment"), f"Generated text, a substitute for SST-2: {error}."


def measure(options: Options, progress: bool = True) -> dict[str, Any]:
    """All measurements as a record of kind "bench".

    Raises:
        BeftError: a model or task that is not there, or whatever a run says.
    """
    began = time.perf_counter()
    available, note = find_data(options.task)
    study = Study(options.model, options.task or available.task.name, options.rows, options.epochs)
    context = Context(study)
    data, loaded, device = context.labelled, context.loaded, timing.where()
    rows = {"train": options.rows, "validation": len(data.validation)}
    runs = {m: [Run(m, seed, options.rate) for seed in range(options.seeds)] for m in METHODS}
    banks = list(pack(context, [run for group in runs.values() for run in group], BANK))
    no_bf16 = timing.no_bfloat16(device)
    memory: dict[str, Any] = {}
    times: dict[str, dict[str, list[Timed]]] = {step: {m: [] for m in METHODS} for step in STEPS}
    batches: dict[str, dict[str, dict[str, float]]] = {"plain": {}, "longest": {}}

    def measure_memory(count: int, tick: Callable[[], None]) -> None:
        memory[str(count)] = timing.peak_of(count, study.model, study.task, options.rows)

    def sample_reference(method: str, step: str, count: int, tick: Callable[[], None]) -> None:
        longest = step == "longest"
        got = timing.sample(loaded, data, study, runs[method][0], longest, count, options.repeats)
        batches[step][method] = got
        rest = {name: seconds for name, seconds in got.items() if name != "score_training"}
        for name, part in ((step, got), ("unscored", rest)) if longest else ((step, got),):
            one = timing.scaled(part, rows["train"], rows["validation"], study)
            times[name][method].append(Timed(one * options.seeds))

    def run_reference(method: str, step: str, tick: Callable[[], None]) -> None:
        how = (step != "plain", step != "unscored")
        times[step][method].append(timing.whole(loaded, data, study, runs[method], *how))

    def run_bank(members: list[Run], step: str, tick: Callable[[], None]) -> None:
        its = replace(study, dtype="bfloat16" if step == "bfloat16" else "float32")
        shares = timing.stacked(loaded, data, its, members, options.repeats, tick)
        for run, share in zip(members, shares, strict=True):
            times[step][run.method].append(share)

    # (label, about how many thousand tokens it computes, call): the weights of the progress bar
    jobs: list[tuple[str, float, Callable[[Callable[[], None]], None]]] = []
    # a training step costs three to four forward passes, and the plain protocol then scores its rows
    per_token = options.epochs * (5 * rows["train"] + rows["validation"]) / 1000
    for count in (1, MEMORY_RUNS):
        jobs.append((f"memory of {count}", 20 + 8.0 * count, partial(measure_memory, count)))
    for step in STEPS[:3] if options.full else STEPS[:2]:
        for m in METHODS:
            if options.full:
                cost = options.seeds * per_token * (128 if step == "plain" else 25)
                jobs.append((f"{step}, {m}", cost, partial(run_reference, m, step)))
            else:
                count = options.samples * (1 if step == "plain" else 4)  # batches of all lengths: take more
                cost = options.repeats * options.samples * 16 * 0.128 * (3 if m == "head" else 5)
                jobs.append((f"{step}, {m}", cost, partial(sample_reference, m, step, count)))
    for step in STEPS[3:4] if no_bf16 else STEPS[3:]:
        for members in banks:
            cost = options.repeats * len(members) * per_token * (5 if _heads(members) else 20)
            jobs.append((f"{step}, {len(members)} runs", cost, partial(run_bank, members, step)))
    with tqdm(total=sum(cost for _, cost, _ in jobs), disable=not progress, leave=False) as bar:
        bar.bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
        for label, cost, call in jobs:
            bar.set_description(label)
            until = bar.n + cost
            call(partial(_advance, bar, cost / (options.epochs * options.repeats + 1)))
            bar.update(until - bar.n)

    identity = {name: value for name, value in context.common().items() if name in MODEL_AND_DATA}
    subject = context.subject()
    subject["data"] |= {"note": note, "rows": rows}
    return build_record(
        "bench",
        asdict(options) | identity | {"kind": "bench"},
        subject,
        device.type,
        times={s: {m: _sum(t) for m, t in per.items()} for s, per in times.items() if per[METHODS[0]]},
        batches=batches,
        banks=_paddings(context, banks, times["stacked"]),
        skipped={"bfloat16": no_bf16} if no_bf16 else {},
        memory=memory,
        targets=TARGETS,
        seconds=time.perf_counter() - began,
    )


def _heads(members: Sequence[Run]) -> bool:
    """Whether the bank trains heads alone, so that all its runs share one pass through the encoder when scored."""
    return all(run.method == "head" for run in members)


def _sum(timed: Sequence[Timed]) -> dict[str, float | None]:
    """Seconds added up, and the mean score where all are known."""
    scores = [part.score for part in timed if part.score is not None]
    score = statistics.fmean(scores) if len(scores) == len(timed) else None
    return {"seconds": sum(part.seconds for part in timed), "score": score}


def _paddings(
    context: Context, banks: Sequence[Sequence[Run]], stacked: dict[str, list[Timed]]
) -> list[dict[str, Any]]:
    """Real over computed tokens of each bank, in training and in scoring."""
    study, device = context.study, timing.where()
    lengths = encode(context.loaded.tokenizer, context.labelled.validation.rows, study.max_length).lengths
    left, blocks = {m: list(timed) for m, timed in stacked.items()}, []
    for members in banks:
        training = [left[run.method].pop(0).efficiency for run in members][0]
        scoring = timing.scoring_padding(lengths, 1 if _heads(members) else len(members), CHUNKS[device.type])
        blocks.append({"runs": len(members), "training": training, "scoring": scoring.efficiency})
    return blocks


def _advance(bar: tqdm, cost: float) -> None:
    bar.update(cost)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 whether or not the targets are met, 2 (nothing measured), 130 (interrupted)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=__doc__, allow_abbrev=False)
    start = Options()
    parser.add_argument("--model", default=start.model)
    parser.add_argument("--task", help="default: sst2, or generated text, saying so, where it is not to be had")
    parser.add_argument("--rows", type=int, default=start.rows, help="training rows of a run")
    parser.add_argument("--seeds", type=int, default=start.seeds)
    parser.add_argument("--epochs", type=int, default=start.epochs)
    parser.add_argument("--repeats", type=int, default=start.repeats, help="of each measurement; medians are shown")
    parser.add_argument("--samples", type=int, default=start.samples, help="batches of the plain protocol to time")
    parser.add_argument("--full", action="store_true", help="run the plain protocol whole (about two hours)")
    return run(parser, arguments, lambda given: measure(Options(**given)), report, "steps", summary)


def run(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    measured: Callable[[dict[str, Any]], dict[str, Any]],
    report: Callable[[dict[str, Any]], str],
    name: str,
    summary: Callable[[dict[str, Any]], str],
) -> int:
    """Measure what the command line asks for; write the record, its report and README's table `name` (`summary`).

    Returns the exit status, as `main`.
    """
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, help="default: data/results/bench")
    given = vars(parser.parse_args(arguments))
    out = given.pop("out")

    def work() -> None:
        store = Store(out or paths.home() / "data" / "results" / "bench")
        path = store.write(measured(given))
        record = store.read(path)
        path.with_suffix(".md").write_text(report(record), encoding="utf-8")
        if out is None:
            target = paths.home() / "figures" / "bench" / f"{name}.md"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(summary(record), encoding="utf-8")
        print(report(record))
        print(f"record: {path}")

    return exit_status(work, "nothing was written")


def parser_of(options: Any, module: str, description: str | None) -> argparse.ArgumentParser:
    """An argument for each field of a dataclass of numbers and names; `options` has the defaults."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=description, allow_abbrev=False)
    for name, value in asdict(options).items():
        parser.add_argument(f"--{name}", default=value, type=int if isinstance(value, int) else str)
    return parser


if __name__ == "__main__":
    sys.exit(main())
