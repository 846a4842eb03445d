"""The one training loop: every method, every model, R runs at a time."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..bank.bank import BiasBank
from ..bank.baselines import FrozenPart, open_bank
from ..bank.dropout import example_keys
from ..bank.optimizer import StackedAdam
from ..bank.unpadded import CALL, SCORES
from ..bank.virtual_tokens import reserve_virtual_tokens
from ..data.batching import CHUNKS, ChunkCost, Padding, chunks
from ..data.datasets import Dataset, Draw, draw
from ..errors import BeftError, OutOfMemory
from ..models.loading import Loaded
from ..models.tokens import check_length
from ..progress import Bar
from ..study import Result, Run, Study
from .classification import Classification
from .device import default_device, forget_peak, peak_memory, repeatable
from .graphs import Passes
from .multiple_choice import Prompted
from .objective import Objective


@dataclass(frozen=True)
class Spent:
    """What a bank has taken so far, interruptions not counted: seconds, and peak bytes of memory."""

    seconds: float = 0.0
    peak: int = 0


MakeObjective = Callable[[Loaded, Dataset, Study, list[Draw]], Objective]


@dataclass(frozen=True)
class Epoch:
    """The state of a bank after an epoch, with the bank still on the model.

    Attributes:
        number: epochs done; 0 before the first.
        last: whether it is the last one: then the results are complete.
        results: one per run, with a row of numbers per epoch done.
        objective: what is learnt; it may hold more of the last scores than the results do.
    """

    number: int
    last: bool
    bank: BiasBank
    results: list[Result]
    objective: Objective


def fit(
    loaded: Loaded,
    data: Dataset,
    study: Study,
    runs: Sequence[Run],
    *,
    objective: MakeObjective | None = None,
    frozen: FrozenPart | None = None,
    entries: Mapping[str, Tensor] | None = None,
    checkpoint: Path | None = None,
    progress: bool | str = False,
    advance: Callable[[int], Any] = lambda rows: None,
    cost: ChunkCost | None = None,
    recompute: bool = False,
    device: str | None = None,
) -> Iterator[Epoch]:
    """Train `runs` in one bank, an epoch at a time; the model is as it was when the iteration ends.

    Yields the state before the first epoch (or where a checkpoint takes over) and after every epoch.

    Args:
        objective: makes what is learnt from the draws of the runs; by default a classification, or prompts.
        frozen: for a `full` run, a part of the model that stays as it is.
        entries: for a `mask` run, the entries of each parameter that are trained.
        checkpoint: file that holds the state after each epoch; an interrupted call with the same one goes on there,
            to the same result. Removed at the end.
        progress: show a bar; a text is its label.
        advance: is called after each step with the training rows that it visited, all runs together, and first with
            those of the epochs that a checkpoint has.
        cost: of a chunk, the tokens that are computed at a time in training (memory against speed; results differ by
            rounding); scoring keeps nothing for gradients and takes up to four times as many. By default that of the
            device.
        recompute: compute layers again in the backward pass rather than keep what they computed.

    Raises BeftError: not enough rows for the regime; OutOfMemory, a kind of it. A run that diverges is no error: its
    outcome says so, and the others are untouched.
    """
    began, label = time.perf_counter(), progress if isinstance(progress, str) else "training"
    where = torch.device(device or default_device())
    forget_peak(where)
    cost = cost or CHUNKS[where.type]
    draws = [draw(data, study.regime, run.seed, study.tuning) for run in runs]
    methods, seeds = [run.method for run in runs], [run.seed for run in runs]
    longest = study.max_length if data.prompt is None else min(study.max_length, data.prompt.max_length)
    check_length(loaded.model, longest)
    reserved_for = [*methods, *([frozen.method] if frozen is not None else [])]
    study = reserve_virtual_tokens(study, loaded.model, reserved_for)
    usual = Prompted if data.prompt is not None else Classification
    learnt = (objective or usual)(loaded, data, study, draws)
    options: dict[str, Any] = {"frozen": frozen, "entries": entries, "name": Path(loaded.name).name}
    options["sites"] = study.sites
    with (
        _memory_explained(f"{len(runs)} runs of {loaded.name}", where, cost),
        open_bank(loaded.model.to(where), methods, seeds, study.dtype, **options) as bank,
    ):
        if bank.padded < 1:
            cost = replace(cost, padded=max(bank.padded, SCORES), call=max(cost.call, CALL))
        rates = torch.tensor([run.rate for run in runs], dtype=torch.float32, device=where)
        optimizer = StackedAdam(bank.slots, rates, float(study.clip), float(study.eps))
        results = _empty_results(runs, learnt, bank)
        done, before = load_checkpoint(checkpoint, optimizer, results, learnt.padding)
        steps = math.ceil(len(learnt.draws[0].train) / study.batch_size)
        bar = Bar(total=study.epochs * steps, initial=done * steps, desc=label, unit="step", disable=not progress)
        if done:
            advance(done * sum(len(d.train) for d in draws))

        def stepped(rows: int) -> None:
            bar.update()
            advance(rows)

        passes = _passes(bank, learnt, cost) if not recompute else None
        with bar:
            yield Epoch(done, False, bank, results, learnt)
            for number in range(done + 1, study.epochs + 1):
                epoch = Epoch(number, number == study.epochs, bank, results, learnt)
                with repeatable(where):
                    losses = train_epoch(bank, learnt, optimizer, study, number, cost, recompute, stepped, passes)
                    _score(epoch, losses, study, cost)
                spent = Spent(before.seconds + time.perf_counter() - began, max(before.peak, peak_memory(where)))
                if epoch.last:
                    _complete(epoch, spent, cost, recompute)
                elif checkpoint is not None:
                    save_checkpoint(checkpoint, optimizer, results, learnt.padding, spent)
                yield epoch
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)


@contextmanager
def _memory_explained(what: str, device: torch.device, cost: ChunkCost) -> Iterator[None]:
    """Let what there is no memory for end in an OutOfMemory."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
            raise
        raise OutOfMemory(
            f"not enough memory on {device.type} for {what} at {cost.tokens} tokens a chunk: "
            "use fewer runs per bank, a smaller chunk or a smaller model"
        ) from error


def train_epoch(
    bank: BiasBank,
    objective: Objective,
    optimizer: StackedAdam,
    study: Study,
    epoch: int,
    cost: ChunkCost,
    recompute: bool,
    advance: Callable[[int], Any],
    passes: Passes | None = None,
) -> Tensor:
    """One pass of every run over its own rows in its own order; returns the mean training losses (R,)."""
    draws, size, seeds = objective.draws, study.batch_size, bank.seeds.cpu()
    orders = [
        np.random.default_rng([int(seed), epoch]).permutation(d.train) for seed, d in zip(seeds, draws, strict=True)
    ]
    steps = math.ceil(len(orders[0]) / size)
    losses = torch.zeros(bank.R, dtype=torch.float64, device=bank.device)  # read at the end: a read would wait
    for step in range(steps):
        index = np.concatenate([order[step * size : (step + 1) * size] for order in orders])  # (R * b,)
        b = len(index) // bank.R
        owner, place = (torch.from_numpy(x) for x in (np.repeat(np.arange(bank.R), b), np.tile(np.arange(b), bank.R)))
        keys = example_keys(seeds[owner], (epoch - 1) * steps + step, place)  # (R * b,)
        if passes is not None:
            passes.step(index, keys)
        else:
            for part in chunks(objective.lengths[index], cost):  # rows of all runs, sorted by length
                run_ids, own = owner[part].to(bank.device), keys[part].to(bank.device)  # (B,)
                with bank.recomputing() if recompute else nullcontext():
                    loss = objective.loss(bank, run_ids, own, index[part])  # (B,)
                    (loss.sum() / b).backward()  # each run's own batch mean: its rows enter no other gradient
                losses.index_add_(0, run_ids, loss.detach().double())
        share = ((epoch - 1) * steps + step) / (study.epochs * steps)
        optimizer.step(1.0 if study.schedule == "constant" else 1.0 - share)
        advance(len(index))
    if passes is not None:
        losses += passes.losses
        passes.losses.zero_()
    return losses.cpu() / torch.tensor([len(d.train) for d in draws])


def _passes(bank: BiasBank, objective: Objective, cost: ChunkCost) -> Passes | None:
    """What plays a GPU's training steps back, where they can be: rows of text, by an encoder that packs tokens."""
    table = objective.table()
    if table is None or bank.device.type != "cuda" or bank.padded == 1:
        return None
    return Passes(bank, *table, cost.tokens)


def _empty_results(runs: Sequence[Run], objective: Objective, bank: BiasBank) -> list[Result]:
    results = []
    for i, (run, d) in enumerate(zip(runs, objective.draws, strict=True)):
        rows = {"train": len(d.train), "tuning": len(d.tuning), "validation": objective.validation}
        results.append(Result(run, rows, bank.parameter_counts(i)))
    return results


def _score(epoch: Epoch, losses: Tensor, study: Study, cost: ChunkCost) -> None:
    """Add an epoch to the results. A run that has diverged keeps its place in the bank and gets no more scores."""
    validate = study.validate == "each" or epoch.last
    scores = epoch.objective.scores(epoch.bank, validate, epoch.last, cost)
    for i, (result, loss) in enumerate(zip(epoch.results, losses.tolist(), strict=True)):
        if result.outcome == "ok" and not loss <= epoch.objective.limit:  # a NaN compares false
            result.outcome = (
                f"diverged: mean training loss {loss:g} in epoch {epoch.number} at rate {result.run.rate:g}"
            )
        own = {n: values[i] if result.outcome == "ok" else None for n, values in scores.items()}
        result.epochs.append({"epoch": epoch.number, "train_loss": loss if math.isfinite(loss) else None} | own)


def _complete(epoch: Epoch, spent: Spent, cost: ChunkCost, recompute: bool) -> None:
    """Add to the results what a record has of the bank: its runs, cost and memory."""
    for result in epoch.results:
        result.seconds = spent.seconds / len(epoch.results)
        result.bank = {
            "runs": len(epoch.results),
            "of": [[r.run.method, r.run.seed, r.run.rate] for r in epoch.results],
            "seconds": spent.seconds,
            "peak_memory_bytes": spent.peak,
            "padding_efficiency": epoch.objective.padding.efficiency,
            "chunk_tokens": cost.tokens,
            "recomputed": recompute,
        }


def save_checkpoint(path: Path, optimizer: StackedAdam, results: list[Result], padding: Padding, spent: Spent) -> None:
    """Write values, moments and the epochs so far; a reader sees the whole file or the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    progress = {
        "runs": [[vars(r.run), r.epochs, r.outcome] for r in results],
        "padding": vars(padding),
        "spent": vars(spent),
    }
    state = {name: tensor.contiguous() for name, tensor in optimizer.state().items()}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    save_file(state, temporary, metadata={"progress": json.dumps(progress)})
    os.replace(temporary, path)


def load_checkpoint(
    path: Path | None, optimizer: StackedAdam, results: list[Result], padding: Padding
) -> tuple[int, Spent]:
    """Restore a bank if `path` holds its state; return the epochs done, 0 if not, and what they took.

    A file that cannot be read or belongs to other runs is ignored: a checkpoint only ever saves time.
    """
    nothing = (0, Spent())
    if path is None or not path.exists():
        return nothing
    try:
        with safe_open(path, framework="pt") as file:
            progress = json.loads(file.metadata()["progress"])
            if [run for run, _, _ in progress["runs"]] != [vars(r.run) for r in results]:
                return nothing
            counted, spent = Padding(**progress["padding"]), Spent(**progress["spent"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if _shapes(state) != _shapes(optimizer.state()):  # before anything is overwritten
                return nothing
            optimizer.restore(state)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError):
        return nothing
    for result, (_, epochs, outcome) in zip(results, progress["runs"], strict=True):
        result.epochs, result.outcome = epochs, outcome
    padding.real, padding.computed = counted.real, counted.computed
    return len(results[0].epochs), spent


def runs_of_checkpoint(path: Path) -> list[Run]:
    """The runs whose state a checkpoint holds; none of a file that is no checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            return [Run(**run) for run, _, _ in json.loads(file.metadata()["progress"])["runs"]]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, BeftError):
        return []


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
