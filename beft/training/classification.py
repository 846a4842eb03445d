"""What a bank of classifiers learns: labelled texts, the loss of some of them, and the scores of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..bank.bank import BiasBank
from ..data.batching import ChunkCost, encode
from ..data.datasets import Dataset, Draw, Split
from ..models.loading import Loaded
from ..study import Study
from .evaluation import Scores, epoch_scores
from .objective import losses, targets

# A mean training loss above it is taken for divergence. In nats, where chance is ln C; for values in their mean square.
DIVERGED = 1e3


class Problem(Protocol):
    """What the training loop asks of whatever is learnt.

    Attributes:
        draws: the training and tuning rows of each run, as indices of what `loss` takes.
        lengths: tokens of each training row (N,), by which chunks are cut.
        limit: a mean loss above it is divergence.
        validation: rows that are reported on.
    """

    draws: list[Draw]
    lengths: np.ndarray
    limit: float
    validation: int

    def loss(self, bank: BiasBank, rows: Tensor, keys: Tensor | None, index: np.ndarray) -> Tensor:
        """The loss of training rows `index` (B,) under the runs `rows` (B,), each for itself: (B,)."""

    def scores(self, bank: BiasBank, validate: bool, last: bool, cost: ChunkCost) -> Scores:
        """The scores of every run after an epoch, see `evaluation.epoch_scores`."""

    def efficiency(self) -> float:
        """Real over computed tokens of training so far."""


class Classification:
    """Texts with classes or values, and a head on the encoder. A `Problem`."""

    def __init__(self, loaded: Loaded, data: Dataset, study: Study, draws: Sequence[Draw]) -> None:
        self.data, self.draws = _only_drawn(data, draws)
        tokenizer, longest = loaded.tokenizer, study.max_length
        self.train = encode(tokenizer, self.data.train.rows, longest)
        self.held_out = encode(tokenizer, data.validation.rows, longest)
        self.further = {name: encode(tokenizer, s.rows, longest) for name, s in data.further.items()}
        self.labels = targets(self.data.train.labels)
        self.lengths, self.validation = self.train.lengths, len(data.validation.labels)
        square = float(np.mean(self.data.train.labels**2)) if data.task.regression else 1.0
        self.limit = DIVERGED * max(1.0, square)

    def loss(self, bank: BiasBank, rows: Tensor, keys: Tensor | None, index: np.ndarray) -> Tensor:
        """Cross-entropy or squared error, see `objective.losses`."""
        logits = bank(rows, keys, **self.train.rows(index, bank.device))  # (B, C)
        return losses(logits, self.labels[torch.from_numpy(index)].to(bank.device))

    def scores(self, bank: BiasBank, validate: bool, last: bool, cost: ChunkCost) -> Scores:
        """The task's metrics; further splits after the last epoch alone."""
        further = self.further if last else {}
        return epoch_scores(bank, self.data, self.train, self.held_out, further, self.draws, validate, cost)

    def efficiency(self) -> float:
        """Real over computed tokens of training so far."""
        return self.train.padding.efficiency


def _only_drawn(data: Dataset, draws: Sequence[Draw]) -> tuple[Dataset, list[Draw]]:
    """The same data and draws without the training rows that no run drew."""
    used = np.unique(np.concatenate([np.concatenate([d.train, d.tuning]) for d in draws]))
    split = Split(tuple(data.train.rows[i] for i in used), data.train.labels[used])
    moved = [Draw(np.searchsorted(used, d.train), np.searchsorted(used, d.tuning)) for d in draws]
    return replace(data, train=split), moved
