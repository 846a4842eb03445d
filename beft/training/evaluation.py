"""Logits of a bank, predictions of any classifier, and the scores of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bank.bank import BiasBank
from ..data.batching import CHUNKS, ChunkCost, Encoded, chunks, encode
from ..data.datasets import Dataset, Draw
from ..data.tasks import score
from .objective import predictions

Scores = dict[
    str, list[Any]
]  # "tuning" and "validation": the first metric of each run, or None; see `epoch_scores`


def predict(
    model: Any, tokenizer: Any, texts: Sequence[str | tuple[str, ...]], max_length: int = 128
) -> np.ndarray:
    """Class probabilities (N, C), or values (N, 1), of new texts under any sequence classifier, a PeftModel for one."""
    encoded = encode(tokenizer, [(t,) if isinstance(t, str) else t for t in texts], max_length)
    device = next(model.parameters()).device
    model.eval()
    parts = chunks(encoded.lengths, CHUNKS[device.type])
    with torch.inference_mode():
        found = torch.cat([model(**encoded.rows(part, device)).logits.float().cpu() for part in parts])
    out = np.empty(tuple(found.shape), dtype=np.float32)
    out[np.concatenate(parts)] = (found if found.shape[-1] == 1 else found.softmax(-1)).numpy()
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


def epoch_scores(
    bank: BiasBank,
    data: Dataset,
    train: Encoded,
    validation: Encoded,
    further: dict[str, Encoded],
    draws: Sequence[Draw],
    validate: bool,
    cost: ChunkCost,
) -> Scores:
    """The scores of each run: `tuning` and `validation`, None where not taken.

    Where the task has several metrics or there are `further` splits, also `metrics`, {name: value} with the further
    splits' values as "metric (split)".
    """
    scores: Scores = {"tuning": [None] * bank.R, "validation": [None] * bank.R}
    if len(draws[0].tuning):
        tuned = logits(bank, train, [d.tuning for d in draws], cost)
        scores["tuning"] = [
            _score(data.task.metric, data.train.labels[d.tuning], x)
            for d, x in zip(draws, tuned, strict=True)
        ]
    if not validate:
        return scores
    metrics: list[dict[str, float | None]] = [{} for _ in range(bank.R)]
    for name, encoded in {"": validation, **further}.items():
        labels = data.further[name].labels if name else data.validation.labels
        scored = logits(bank, encoded, [np.arange(len(labels))] * bank.R, cost)
        if not name:
            scores["validation"] = [_score(data.task.metric, labels, x) for x in scored]
        for mine, x in zip(metrics, scored, strict=True):
            for metric in data.task.metrics:
                mine[f"{metric} ({name})" if name else metric] = _score(metric, labels, x)
    if len(metrics[0]) > 1:
        scores["metrics"] = metrics
    return scores


def _score(metric: str, labels: np.ndarray, x: Tensor) -> float | None:
    """The value of a metric; None for logits or a value that are no numbers."""
    if not torch.isfinite(x).all():
        return None
    value = score(metric, labels, predictions(x).numpy())
    return value if np.isfinite(value) else None
