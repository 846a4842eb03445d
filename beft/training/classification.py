"""Texts with classes or values, and a head on the encoder: their loss, their scores, and predictions of new texts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..bank.bank import BiasBank
from ..data.batching import CHUNKS, ChunkCost, Encoded, chunks, encode
from ..data.datasets import Dataset, Draw, Split
from ..data.tasks import score
from ..data.texts import rows_of
from ..models.loading import Loaded
from ..models.tokens import check_ids, check_length, check_texts
from ..study import Study
from .objective import LIMIT, Objective, Scores, no_scores

UNTRAINED = 2  # where nothing is kept for gradients a CPU's chunks are so many times as large as in training
# Tokens of a chunk that runs share until they part, and how many such chunks the rows of all runs may be together.
SHARED_TOKENS, PARTED = 400, 2
Array = TypeVar("Array", Tensor, np.ndarray)


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of each row (B,): cross-entropy in nats of codes (B,), squared error of values (B,).

    `logits` is (B, C), with C = 1 for values.
    """
    if targets.is_floating_point():
        return (logits[:, 0].float() - targets.float()).square()
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def targets(labels: object) -> Tensor:
    """Labels (N,) as `losses` takes them: int64 codes, or float32 values."""
    tensor = torch.as_tensor(labels)
    return tensor.float() if tensor.is_floating_point() else tensor


def predictions(logits: Array) -> Array:
    """The predictions of logits (N, C), or of class probabilities: codes (N,), or values (N,) where C is 1."""
    return logits[:, 0] if logits.shape[-1] == 1 else logits.argmax(-1)


class Classification(Objective):
    """Texts with classes or values."""

    def __init__(self, loaded: Loaded, data: Dataset, study: Study, draws: Sequence[Draw]) -> None:
        self.data, self.draws = _only_drawn(data, draws)
        tokenizer, longest = loaded.tokenizer, study.max_length
        self.train = encode(tokenizer, self.data.train.rows, longest)
        self.held_out = encode(tokenizer, data.validation.rows, longest)
        self.further = {name: encode(tokenizer, s.rows, longest) for name, s in data.further.items()}
        texts = f"the training texts of {data.task.name}"
        check_texts(loaded, self.train, (self.held_out, *self.further.values()), texts)
        self.labels = targets(self.data.train.labels)
        self.lengths, self.padding, self.validation = self.train.lengths, self.train.padding, len(data.validation)
        square = float(np.mean(self.data.train.labels**2)) if data.task.regression else 1.0
        self.limit = LIMIT * max(1.0, square)

    def loss(self, bank: BiasBank, run_ids: Tensor, keys: Tensor | None, index: np.ndarray) -> Tensor:
        """Cross-entropy or squared error, see `losses`."""
        inputs = self.train.rows(index, bank.device, bank.padded, bank.fills)
        logits = bank(run_ids, keys, **inputs)  # (B, C)
        return losses(logits, self.labels[torch.from_numpy(index)].to(bank.device))

    def table(self) -> tuple[Encoded, Tensor]:
        """The training rows and their targets (N,)."""
        return self.train, self.labels

    def scores(self, bank: BiasBank, validate: bool, last: bool, cost: ChunkCost) -> Scores:
        """The task's first metric on the tuning rows and the validation split; further splits after the last epoch.

        Where the task has several metrics or there are further splits, also "metrics", {name: value} of each run, those
        of further splits as "metric (split)".
        """
        scores, task = no_scores(bank.R), self.data.task
        if len(self.draws[0].tuning):
            tuned = logits(bank, self.train, [d.tuning for d in self.draws], cost)
            held = [self.data.train.labels[d.tuning] for d in self.draws]
            scores["tuning"] = [score_of(task.metric, own, x) for own, x in zip(held, tuned, strict=True)]
        if not validate:
            return scores
        metrics: list[dict[str, float | None]] = [{} for _ in range(bank.R)]
        for name, encoded in {"": self.held_out, **(self.further if last else {})}.items():
            labels = self.data.further[name].labels if name else self.data.validation.labels
            scored = logits(bank, encoded, [np.arange(len(labels))] * bank.R, cost)
            if not name:
                scores["validation"] = [score_of(task.metric, labels, x) for x in scored]
            for own, x in zip(metrics, scored, strict=True):
                for metric in task.metrics:
                    own[f"{metric} ({name})" if name else metric] = score_of(metric, labels, x)
        if len(metrics[0]) > 1:
            scores["metrics"] = metrics
        return scores


def _only_drawn(data: Dataset, draws: Sequence[Draw]) -> tuple[Dataset, list[Draw]]:
    """The same data and draws without the training rows that no run drew."""
    used = np.unique(np.concatenate([np.concatenate([d.train, d.tuning]) for d in draws]))
    split = Split(tuple(data.train.rows[i] for i in used), data.train.labels[used])
    moved = [Draw(np.searchsorted(used, d.train), np.searchsorted(used, d.tuning)) for d in draws]
    return replace(data, train=split), moved


def score_of(metric: str, labels: np.ndarray, x: Tensor) -> float | None:
    """The value of a metric for logits (N, C); None for logits or a value that are no numbers."""
    if not torch.isfinite(x).all():
        return None
    value = score(metric, labels, predictions(x).numpy())
    return value if np.isfinite(value) else None


@torch.inference_mode()
def logits(bank: BiasBank, encoded: Encoded, wanted: Sequence[np.ndarray], cost: ChunkCost) -> list[Tensor]:
    """Logits (n_r, C) of each run on its own rows, `wanted[r]` (n_r,), without dropout."""
    if bank.device.type == "cpu":
        cost = replace(cost, tokens=UNTRAINED * cost.tokens)
    longest = int(encoded.lengths[np.concatenate(wanted)].max())
    fits = bank.R * longest <= PARTED * cost.tokens
    alike = bank.shares and fits and all(np.array_equal(own, wanted[0]) for own in wanted)
    if bank.encoder_is_frozen or alike:  # what no run changes is the same for all: compute it once for each row
        if alike:
            share = cost.tokens // bank.R
            tokens = max(share, min(SHARED_TOKENS, PARTED * share))
            cost = replace(cost, tokens=tokens, rows=max(1, min(cost.rows, tokens // longest)))
        index = np.unique(np.concatenate(wanted))
        by_row: dict[int, Tensor] = {}
        for part in chunks(encoded.lengths[index], cost):
            inputs = encoded.rows(index[part], bank.device, bank.padded, bank.fills)
            every = bank.every_run(**inputs).cpu()  # (R, B, C)
            by_row.update(zip(index[part].tolist(), every.unbind(1), strict=True))
        return [torch.stack([by_row[i][r] for i in own.tolist()]) for r, own in enumerate(wanted)]
    owner = np.repeat(np.arange(bank.R), [len(w) for w in wanted])
    index = np.concatenate(wanted)
    flat: list[Tensor] = [torch.empty(0)] * len(index)
    for part in chunks(encoded.lengths[index], cost):
        run_ids = torch.from_numpy(owner[part]).to(bank.device)
        chunk = bank(run_ids, None, **encoded.rows(index[part], bank.device, bank.padded, bank.fills)).cpu()  # (B, C)
        for at, value in zip(part.tolist(), chunk, strict=True):
            flat[at] = value
    ends = np.cumsum([len(w) for w in wanted])
    return [torch.stack(flat[end - len(w) : end]) for end, w in zip(ends, wanted, strict=True)]


def predict(
    model: Any, tokenizer: Any, texts: Any, max_length: int = 128, columns: Sequence[str] | None = None
) -> np.ndarray:
    """Class probabilities (N, C), or values (N, 1), of new texts under any sequence classifier, a PeftModel for one.

    Args:
        texts: a text, whose answer is (C,); or N texts or pairs `(text_a, text_b)` in a list, tuple, array, Series,
            generator, DataFrame or data set column.
        columns: the columns that the model was tuned on, where known: then single texts and pairs are told apart by
            it, see `data.texts.rows_of`.

    Raises BeftError: no texts, or one that cannot be used, with its position; `max_length` beyond the model's
    positions, or a tokenizer of another model.
    """
    rows, single = rows_of(texts, columns)
    check_length(model, max_length)
    encoded = encode(tokenizer, rows, max_length)
    check_ids(encoded.columns["input_ids"], model)
    device = next(model.parameters()).device
    model.eval()
    pieces = chunks(encoded.lengths, CHUNKS[device.type])
    with torch.inference_mode():
        scored = torch.cat([model(**encoded.rows(part, device)).logits.float().cpu() for part in pieces])
    out = np.empty(tuple(scored.shape), dtype=np.float32)
    out[np.concatenate(pieces)] = (scored if scored.shape[-1] == 1 else scored.softmax(-1)).numpy()
    return out[0] if single else out
