"""What `benchmarks.steps` measures: seconds of plain and stacked runs, padding, and the peak memory of a process."""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from beft.data import sources as data_module
from beft.data.batching import ChunkCost, Padding, chunks
from beft.data.datasets import Dataset, Split
from beft.errors import BeftError
from beft.models import loading as models
from beft.paths import ROOT
from beft.study import Run, Study
from beft.training.device import default_device, peak_memory
from beft.training.loop import fit
from benchmarks import reference as plain

WARM = 2  # batches computed before a clock starts
MEMORY_ROWS = 160  # training rows of each run, and validation rows, when memory is measured: ten steps fill all buffers


class Timed(NamedTuple):
    """Seconds of some runs, their mean final validation score (None: not known), training padding efficiency."""

    seconds: float
    score: float | None = None
    efficiency: float | None = None


def where() -> torch.device:
    """The device that a bank would choose."""
    return torch.device(default_device())


def no_bfloat16(device: torch.device) -> str | None:
    """Why bfloat16 is not timed on this device, or None where its arithmetic is native."""
    if device.type == "cuda":
        return None if torch.cuda.is_bf16_supported(including_emulation=False) else "the GPU has no bfloat16"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "the CPU's features cannot be read here"
    match = re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags)
    return None if match else "the CPU has neither avx512_bf16 nor amx_bf16"


# --- the plain protocol ---------------------------------------------------------------------------------------


def spread(lengths: np.ndarray, order: np.ndarray, batch_size: int, count: int) -> list[np.ndarray]:
    """At most `count` of an epoch's full batches (all rows, if less), evenly spaced by their longest sentence."""
    batches = [order[at : at + batch_size] for at in range(0, len(order) - batch_size + 1, batch_size)]
    batches = batches or [order]
    batches.sort(key=lambda index: int(lengths[index].max()))
    count = min(count, len(batches))
    return [batches[int((i + 0.5) * len(batches) / count)] for i in range(count)]


def sample(
    loaded: models.Loaded, data: Dataset, study: Study, run: Run, longest: bool, count: int, repeats: int
) -> dict[str, float]:
    """Seconds per batch of the plain protocol: {"train", "score_training", "score_validation"}.

    A batch's time is the median of its repeats. Batches padded to max_length cost the same, so the median over them
    stands for all; those padded to their longest do not, so their mean over the spread of lengths does.
    """
    train, validation = plain.rows_of(loaded, data, study, run.seed)
    model, parameters = plain.prepare(loaded, run.method, run.seed)
    device = where()
    model.to(device)
    optimizer = plain.adamw(parameters, run.rate, study.eps)

    def step(index: np.ndarray) -> None:
        plain.train_step(model, optimizer, *train.batch(index, longest, device), study.clip)

    def scoring(rows: plain.Rows) -> Callable[[np.ndarray], None]:
        def one(index: np.ndarray) -> None:
            with torch.no_grad():
                model(**rows.batch(index, longest, device)[0]).logits.cpu()

        return one

    seconds = {}
    order = np.random.default_rng([run.seed, 1]).permutation(len(train))
    model.train()
    todo: list[tuple[str, Callable[[np.ndarray], None], plain.Rows, np.ndarray]]
    todo = [("train", step, train, order)]
    todo += [("score_training", scoring(train), train, np.arange(len(train)))]
    todo += [("score_validation", scoring(validation), validation, np.arange(len(validation)))]
    for name, call, rows, order in todo:
        if name != "train":
            model.eval()
        picked = spread(rows.lengths, order, study.batch_size, count)
        for index in (picked * WARM)[:WARM]:
            call(index)
        each = [statistics.median(_seconds(call, index) for _ in range(repeats)) for index in picked]
        seconds[name] = statistics.fmean(each) if longest else statistics.median(each)
    return seconds


def _seconds(call: Callable[..., Any], *arguments: Any) -> float:
    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    began = now()
    call(*arguments)
    return now() - began


def scaled(per_batch: dict[str, float], train: int, validation: int, study: Study) -> float:
    """Seconds of one whole run from those of a batch, linear in batches; counts only what `per_batch` names."""
    rows = {"train": train, "score_training": train, "score_validation": validation}
    return study.epochs * sum(seconds * rows[name] / study.batch_size for name, seconds in per_batch.items())


def whole(
    loaded: models.Loaded,
    data: Dataset,
    study: Study,
    runs: Sequence[Run],
    longest: bool,
    score_training: bool,
) -> Timed:
    """Plain runs one after another, in full."""
    began = time.perf_counter()
    ends = [plain.fit(loaded, data, study, run, longest=longest, score_training=score_training)[-1] for run in runs]
    return Timed(time.perf_counter() - began, statistics.fmean(end["validation"] for end in ends))


def stacked(
    loaded: models.Loaded,
    data: Dataset,
    study: Study,
    runs: Sequence[Run],
    repeats: int = 1,
    tick: Callable[[], None] = lambda: None,
) -> list[Timed]:
    """The same runs in one bank, tokenising included: each run with its equal share of the bank's time.

    Args:
        tick: called after each epoch.
    """
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        for epoch in fit(loaded, data, study, runs):
            if epoch.number:
                tick()
        results = epoch.results
        seconds.append(time.perf_counter() - began)
    share = statistics.median(seconds) / len(runs)
    return [Timed(share, r.final["validation"], r.bank["padding_efficiency"]) for r in results]


def scoring_padding(lengths: np.ndarray, runs: int, cost: ChunkCost) -> Padding:
    """Real and computed tokens when `runs` runs score the same rows, of these lengths (N,), in one bank."""
    tiled, padding = np.tile(lengths, runs), Padding()
    for part in chunks(tiled, cost):
        padding.real += int(tiled[part].sum())
        padding.computed += int(tiled[part].max()) * len(part)
    return padding


# --- memory ---------------------------------------------------------------------------------------------------


def peak_of(runs: int, model: str, task: str, rows: int) -> dict[str, int]:
    """{"before", "peak"}: peak bytes of a fresh process before and after it trained `runs` runs of all biases.

    Raises:
        BeftError: that process failed.
    """
    command = [sys.executable, "-m", "benchmarks.timing", str(runs), model, task, str(rows)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)}
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BeftError(f"the memory of a bank of {runs} could not be measured: {reason}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _peak(runs: int, model: str, task: str, rows: int) -> dict[str, int]:
    data = data_module.load(task)
    few = Split(data.validation.rows[:MEMORY_ROWS], data.validation.labels[:MEMORY_ROWS])
    loaded = models.load(model, labels=data.task.outputs)
    study = Study(model, task, min(MEMORY_ROWS, rows), epochs=1)
    before = resident()
    members = [Run("all_biases", seed, 1e-3) for seed in range(runs)]
    for _ in fit(loaded, replace(data, validation=few), study, members):
        pass
    return {"before": before, "peak": resident()}


def resident() -> int:
    """Peak bytes of this process alone: on Linux getrusage's figure starts from that of the parent process."""
    status = Path("/proc/self/status")
    if where().type == "cpu" and status.exists():
        match = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))
        if match:
            return int(match.group(1)) * 1024
    return peak_memory(where())


if __name__ == "__main__":
    print(json.dumps(_peak(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))))
