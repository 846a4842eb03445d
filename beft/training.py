"""The one training loop: every method, every model, R runs at a time."""

from __future__ import annotations

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
from torch import Tensor
from tqdm.auto import tqdm

from .bank import BiasBank
from .batches import CHUNKS, ChunkCost, Encoded, chunks, encode
from .checkpoint import load_checkpoint, save_checkpoint
from .data import Draw, Split, TaskData, draw
from .dropout import example_keys
from .errors import BeftError
from .models import Loaded
from .optimizer import StackedAdam
from .study import Result, Run, Study
from .tasks import score

DIVERGED = 1e3  # nats: a mean training loss above it is taken for divergence; chance is ln C


def fit(
    loaded: Loaded,
    data: TaskData,
    study: Study,
    runs: Sequence[Run],
    *,
    on_epoch: Callable[[BiasBank, int], None] | None = None,
    on_end: Callable[[BiasBank, list[Result]], None] | None = None,
    checkpoint: Path | None = None,
    progress: bool | str = False,
    chunk_tokens: int | None = None,
    device: str | None = None,
) -> list[Result]:
    """Train `runs` in one bank; the model comes back as it was.

    Args:
        on_epoch: called with the bank and the number of epochs done (0 before the first).
        on_end: called with the bank, still holding the trained values, and the results.
        checkpoint: file that holds the state after each epoch; an interrupted call with the same one goes on there,
            to the same result. Removed at the end.
        progress: show a bar; a text is its label.
        chunk_tokens: padded tokens computed at a time (memory against speed; results differ by rounding).

    Raises:
        BeftError: not enough rows for the regime, or not enough memory. A run that diverges is no error: its
            outcome says so, and the others are untouched.
    """
    began = time.perf_counter()
    where = torch.device(device or default_device())
    cost = CHUNKS[where.type]
    cost = replace(cost, tokens=chunk_tokens or cost.tokens)
    draws = [draw(data, study.regime, run.seed, study.tuning) for run in runs]
    data, draws = _only_drawn(data, draws)
    train = encode(loaded.tokenizer, data.train.texts, study.max_length)
    validation = encode(loaded.tokenizer, data.validation.texts, study.max_length)
    bank = BiasBank(loaded.model.to(where), [r.method for r in runs], [r.seed for r in runs], study.dtype)
    try:
        rates = torch.tensor([run.rate for run in runs], dtype=torch.float32, device=where)
        optimizer = StackedAdam(bank.slots, rates, study.clip, study.eps)
        results = [
            _blank(run, d, data, bank.parameter_counts(i))
            for i, (run, d) in enumerate(zip(runs, draws, strict=True))
        ]
        done, before = load_checkpoint(checkpoint, optimizer, results)
        labels = torch.from_numpy(data.train.labels)
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
                    for part in chunks(train.lengths[index], cost):
                        rows = torch.from_numpy(owner[part]).to(where)  # (B,)
                        keys = example_keys(
                            bank.seeds[rows],
                            (epoch - 1) * steps + step,
                            torch.from_numpy(place[part]).to(where),
                        )
                        logits = bank(rows, keys, **train.rows(index[part], where))  # (B, C)
                        target = labels[torch.from_numpy(index[part])].to(where)
                        loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")  # (B,)
                        (
                            loss.sum() / b
                        ).backward()  # each run's own batch mean: its rows enter no other gradient
                        losses.index_add_(0, rows.cpu(), loss.detach().double().cpu())
                    optimizer.step()
                    bar.update()
                last = epoch == study.epochs
                scores = _scores(bank, data, train, validation, draws, study.validate == "each" or last, cost)
                for i, result in enumerate(results):
                    _note(result, epoch, float(losses[i]) / len(draws[i].train), scores, i)
                if on_epoch is not None:
                    on_epoch(bank, epoch)
                if checkpoint is not None and not last:
                    save_checkpoint(checkpoint, optimizer, results, before + time.perf_counter() - began)
        seconds = before + time.perf_counter() - began
        for result in results:
            result.seconds = seconds / bank.R
            result.bank = {
                "runs": bank.R,
                "seconds": seconds,
                "peak_memory_bytes": peak_memory(where),
                "padding_efficiency": train.padding.efficiency,
            }
        if on_end is not None:
            on_end(bank, results)
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
            raise
        raise BeftError(
            f"not enough memory on {where.type} for {len(runs)} runs of {loaded.name} at {cost.tokens} tokens a chunk: "
            "use fewer runs per bank, a smaller chunk_tokens or a smaller model"
        ) from error
    finally:
        bank.detach()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return results


def predict(
    model: Any, tokenizer: Any, texts: Sequence[str | tuple[str, ...]], max_length: int = 128
) -> np.ndarray:
    """Class probabilities (N, C) of new texts under any sequence classifier, a PeftModel for one."""
    encoded = encode(tokenizer, [(t,) if isinstance(t, str) else t for t in texts], max_length)
    device = next(model.parameters()).device
    model.eval()
    parts = chunks(encoded.lengths, CHUNKS[device.type])
    with torch.inference_mode():
        chances = [model(**encoded.rows(part, device)).logits.float().softmax(-1).cpu() for part in parts]
    out = np.empty((len(texts), chances[0].shape[-1]), dtype=np.float32)
    out[np.concatenate(parts)] = torch.cat(chances).numpy()
    return out


@torch.inference_mode()
def logits(bank: BiasBank, encoded: Encoded, wanted: Sequence[np.ndarray], cost: ChunkCost) -> list[Tensor]:
    """Logits (n_r, C) of each run on its own examples, `wanted[r]` (n_r,), without dropout."""
    if bank.encoder_is_frozen:  # the encoder says the same for all runs: compute it once for each example
        index = np.unique(np.concatenate(wanted))
        out: dict[int, Tensor] = {}
        for part in chunks(encoded.lengths[index], cost):
            every = bank.every_run(**encoded.rows(index[part], bank.device)).cpu()  # (R, B, C)
            out.update(zip(index[part].tolist(), every.unbind(1), strict=True))
        return [torch.stack([out[i][r] for i in picked.tolist()]) for r, picked in enumerate(wanted)]
    owner = np.repeat(np.arange(bank.R), [len(w) for w in wanted])
    index = np.concatenate(wanted)
    flat: list[Tensor] = [torch.empty(0)] * len(index)
    for part in chunks(encoded.lengths[index], cost):
        rows = torch.from_numpy(owner[part]).to(bank.device)
        got = bank(rows, None, **encoded.rows(index[part], bank.device)).cpu()  # (B, C)
        for at, value in zip(part.tolist(), got, strict=True):
            flat[at] = value
    ends = np.cumsum([len(w) for w in wanted])
    return [torch.stack(flat[end - len(w) : end]) for end, w in zip(ends, wanted, strict=True)]


def _scores(
    bank: BiasBank,
    data: TaskData,
    train: Encoded,
    validation: Encoded,
    draws: Sequence[Draw],
    validate: bool,
    cost: ChunkCost,
) -> dict[str, list[float | None]]:
    none: list[float | None] = [None] * bank.R
    scores = {"tuning": none, "validation": none}
    if len(draws[0].tuning):
        tuned = logits(bank, train, [d.tuning for d in draws], cost)
        scores["tuning"] = [
            _score(data, data.train.labels[d.tuning], x) for d, x in zip(draws, tuned, strict=True)
        ]
    if validate:
        everything = np.arange(len(data.validation.labels))
        scored = logits(bank, validation, [everything] * bank.R, cost)
        scores["validation"] = [_score(data, data.validation.labels, x) for x in scored]
    return scores


def _score(data: TaskData, labels: np.ndarray, x: Tensor) -> float | None:
    if not torch.isfinite(x).all():
        return None
    return score(data.task.metric, labels, x.argmax(-1).numpy())


def _only_drawn(data: TaskData, draws: Sequence[Draw]) -> tuple[TaskData, list[Draw]]:
    """The same data and draws without the training rows that no run drew."""
    used = np.unique(np.concatenate([np.concatenate([d.train, d.tuning]) for d in draws]))
    split = Split(tuple(data.train.texts[i] for i in used), data.train.labels[used])
    moved = [Draw(np.searchsorted(used, d.train), np.searchsorted(used, d.tuning)) for d in draws]
    return replace(data, train=split), moved


def _blank(run: Run, d: Draw, data: TaskData, parameters: dict[str, int]) -> Result:
    rows = {"train": len(d.train), "tuning": len(d.tuning), "validation": len(data.validation.labels)}
    return Result(run, rows, parameters)


def _note(result: Result, epoch: int, loss: float, scores: dict[str, list[float | None]], i: int) -> None:
    """Add an epoch to a result. A run that has diverged keeps its place in the bank and gets no more scores."""
    if result.outcome == "ok" and not loss <= DIVERGED:  # a NaN compares false
        result.outcome = f"diverged: mean training loss {loss:g} in epoch {epoch} at rate {result.run.rate:g}"
    ok = result.outcome == "ok"
    result.epochs.append(
        {"epoch": epoch, "train_loss": loss if math.isfinite(loss) else None}
        | {name: values[i] if ok else None for name, values in scores.items()}
    )


def default_device() -> str:
    """Where runs are trained unless told otherwise: "cuda" where there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def peak_memory(device: torch.device) -> int:
    """Peak bytes of this process: allocated on the GPU, resident on a CPU (which counts everything loaded)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
