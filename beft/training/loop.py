"""The one training loop: every method, every model, R runs at a time."""

from __future__ import annotations

import contextlib
import ctypes
import math
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from .. import paper
from ..bank.bank import BiasBank
from ..bank.baselines import PATCH
from ..bank.dropout import example_keys
from ..bank.optimizer import StackedAdam
from ..data.batching import CHUNKS, chunks
from ..data.datasets import Dataset, Draw, draw
from ..errors import OutOfMemory
from ..models.loading import Loaded
from ..study import Result, Run, Study
from .checkpoint import load_checkpoint, save_checkpoint
from .classification import Classification, Problem
from .evaluation import Scores
from .multiple_choice import Prompted

FROM_PADDING = ("roberta", "xlm-roberta", "camembert")  # their positions begin behind that of padding


def fit(
    loaded: Loaded,
    data: Any,
    study: Study,
    runs: Sequence[Run],
    *,
    problem: Callable[[Loaded, Any, Study, list[Draw]], Problem] | None = None,
    on_epoch: Callable[[BiasBank, int], None] | None = None,
    on_end: Callable[[BiasBank, list[Result]], None] | None = None,
    checkpoint: Path | None = None,
    progress: bool | str = False,
    chunk_tokens: int | None = None,
    checkpointing: bool = False,
    device: str | None = None,
) -> list[Result]:
    """Train `runs` in one bank; the model comes back as it was.

    Args:
        data: rows to draw from, a `Dataset`, or whatever `problem` takes.
        problem: makes what is learnt from the draws of the runs; by default a classification or prompts.
        on_epoch: called with the bank and the number of epochs done (0 before the first).
        on_end: called with the bank, still holding the trained values, and the results.
        checkpoint: file that holds the state after each epoch; an interrupted call with the same one goes on there,
            to the same result. Removed at the end.
        progress: show a bar; a text is its label.
        chunk_tokens: padded tokens computed at a time (memory against speed; results differ by rounding).
        checkpointing: compute layers again in the backward pass rather than keep what they computed.

    Raises:
        BeftError: not enough rows for the regime; OutOfMemory, a kind of it. A run that diverges is no error: its
            outcome says so, and the others are untouched.
    """
    began = time.perf_counter()
    where = torch.device(device or default_device())
    forget_peak(where)
    cost = CHUNKS[where.type]
    cost = replace(cost, tokens=chunk_tokens or cost.tokens)
    draws = [draw(data, study.regime, run.seed, study.tuning) for run in runs]
    study = roomy(study, loaded.model, runs)
    learnt = (problem or _usual)(loaded, data, study, draws)
    draws = learnt.draws
    bank = BiasBank(loaded.model.to(where), [r.method for r in runs], [r.seed for r in runs], study.dtype)
    try:
        rates = torch.tensor([run.rate for run in runs], dtype=torch.float32, device=where)
        optimizer = StackedAdam(bank.slots, rates, study.clip, study.eps)
        results = [
            _blank(run, d, learnt.validation, bank.parameter_counts(i))
            for i, (run, d) in enumerate(zip(runs, draws, strict=True))
        ]
        done, before = load_checkpoint(checkpoint, optimizer, results)
        steps = math.ceil(len(draws[0].train) / study.batch_size)
        if on_epoch is not None and done == 0:
            on_epoch(bank, 0)
        label = progress if isinstance(progress, str) else "training"
        with tqdm(
            total=study.epochs * steps,
            initial=done * steps,
            desc=label,
            unit="step",
            disable=not progress,
            mininterval=1.0,
        ) as bar:
            for epoch in range(done + 1, study.epochs + 1):
                losses = torch.zeros(bank.R, dtype=torch.float64)
                orders = [
                    np.random.default_rng([r.seed, epoch]).permutation(d.train)
                    for r, d in zip(runs, draws, strict=True)
                ]
                for step in range(steps):
                    at = slice(step * study.batch_size, (step + 1) * study.batch_size)
                    index = np.concatenate(
                        [order[at] for order in orders]
                    )  # (R * b,) examples, run after run
                    b = len(index) // bank.R
                    owner = np.repeat(np.arange(bank.R), b)
                    place = np.tile(np.arange(b), bank.R)
                    for part in chunks(learnt.lengths[index], cost):
                        rows = torch.from_numpy(owner[part]).to(where)  # (B,)
                        keys = example_keys(
                            bank.seeds[rows],
                            (epoch - 1) * steps + step,
                            torch.from_numpy(place[part]).to(where),
                        )
                        with bank.recomputing() if checkpointing else contextlib.nullcontext():
                            loss = learnt.loss(bank, rows, keys, index[part])  # (B,)
                            # each run's own batch mean: its rows enter no other gradient
                            (loss.sum() / b).backward()
                        losses.index_add_(0, rows.cpu(), loss.detach().double().cpu())
                    done_share = ((epoch - 1) * steps + step) / (study.epochs * steps)
                    optimizer.step(1.0 if study.schedule == "constant" else 1.0 - done_share)
                    bar.update()
                last = epoch == study.epochs
                scores = learnt.scores(bank, study.validate == "each" or last, last, cost)
                for i, result in enumerate(results):
                    _note(result, epoch, float(losses[i]) / len(draws[i].train), learnt.limit, scores, i)
                if on_epoch is not None:
                    on_epoch(bank, epoch)
                if checkpoint is not None and not last:
                    save_checkpoint(checkpoint, optimizer, results, before + time.perf_counter() - began)
        seconds = before + time.perf_counter() - began
        for result in results:
            result.seconds = seconds / bank.R
            result.bank = {
                "runs": bank.R,
                "of": [[run.method, run.seed, run.rate] for run in runs],
                "seconds": seconds,
                "peak_memory_bytes": peak_memory(where),
                "padding_efficiency": learnt.efficiency(),
            }
        if on_end is not None:
            on_end(bank, results)
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
            raise
        raise OutOfMemory(
            f"not enough memory on {where.type} for {len(runs)} runs of {loaded.name} at {cost.tokens} tokens a chunk: "
            "use fewer runs per bank, a smaller chunk_tokens or a smaller model"
        ) from error
    finally:
        bank.detach()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return results


def roomy(study: Study, model: Any, runs: Sequence[Run]) -> Study:
    """The study with texts so short that virtual tokens fit in front of them into the model's positions."""
    methods = [*(r.method for r in runs), getattr(vars(model).get(PATCH), "method", "")]
    virtual = max((paper.data()[m]["tokens"] for m in methods if m in ("prefix", "prompt")), default=0)
    positions = getattr(model.config, "max_position_embeddings", None)
    if not virtual or positions is None:
        return study
    first = getattr(model.config, "pad_token_id", 0) + 1 if model.config.model_type in FROM_PADDING else 0
    return replace(study, max_length=min(study.max_length, positions - first - virtual))


def _usual(loaded: Loaded, data: Dataset, study: Study, draws: list[Draw]) -> Problem:
    if data.prompt is not None:
        return Prompted(loaded.tokenizer, data, study, draws)
    return Classification(loaded, data, study, draws)


def _blank(run: Run, d: Draw, validation: int, parameters: dict[str, int]) -> Result:
    rows = {"train": len(d.train), "tuning": len(d.tuning), "validation": validation}
    return Result(run, rows, parameters)


def _note(result: Result, epoch: int, loss: float, limit: float, scores: Scores, i: int) -> None:
    """Add an epoch to a result. A run that has diverged keeps its place in the bank and gets no more scores."""
    if result.outcome == "ok" and not loss <= limit:  # a NaN compares false
        result.outcome = f"diverged: mean training loss {loss:g} in epoch {epoch} at rate {result.run.rate:g}"
    ok = result.outcome == "ok"
    result.epochs.append(
        {"epoch": epoch, "train_loss": loss if math.isfinite(loss) else None}
        | {name: values[i] if ok else None for name, values in scores.items()}
    )


def default_device() -> str:
    """Where runs are trained unless told otherwise: "cuda" where there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def forget_peak(device: torch.device) -> None:
    """Let `peak_memory` count from here, where the system can: on a GPU and on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError, AttributeError):  # what was freed still counts until it is given back
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def peak_memory(device: torch.device) -> int:
    """Peak bytes of this process: allocated on the GPU, resident on a CPU (which counts everything loaded)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
