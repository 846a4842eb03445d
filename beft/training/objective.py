"""What the training loop asks of whatever is learnt."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from torch import Tensor

from ..bank.bank import BiasBank
from ..data.batching import ChunkCost, Encoded, Padding
from ..data.datasets import Draw

# A mean training loss above it is divergence. In nats, where chance is ln C; for values in their mean square.
LIMIT = 1e3
# "tuning", "validation": the first metric of each run, None where it was not taken; "metrics": {name: value} each.
Scores = dict[str, list[Any]]


class Objective(ABC):
    """What is learnt from rows of text.

    Attributes:
        draws: the training and tuning rows of each run, as indices of what `loss` takes.
        lengths: tokens of each training row (N,), by which chunks are cut.
        validation: rows that are reported on.
        padding: real and computed tokens of training so far.
        limit: a mean training loss above it is divergence.
    """

    draws: list[Draw]
    lengths: np.ndarray
    validation: int
    padding: Padding
    limit: float = LIMIT

    @abstractmethod
    def loss(self, bank: BiasBank, run_ids: Tensor, keys: Tensor | None, index: np.ndarray) -> Tensor:
        """The loss of training rows `index` (B,) under the runs `run_ids` (B,), each for itself: (B,)."""

    def table(self) -> tuple[Encoded, Tensor] | None:
        """The training rows and their targets (N,), where `loss` is `classification.losses` of the logits of rows."""
        return None

    @abstractmethod
    def scores(self, bank: BiasBank, validate: bool, last: bool, cost: ChunkCost) -> Scores:
        """The scores of every run after an epoch; on the validation split only if `validate`."""


def no_scores(R: int) -> Scores:
    """Of R runs, before any is taken."""
    return {"tuning": [None] * R, "validation": [None] * R}
