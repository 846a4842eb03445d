"""What the training loop asks of whatever is learnt."""

from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ..bank.bank import BiasBank
from ..data.batching import ChunkCost
from ..data.datasets import Draw

# A mean training loss above it is divergence. In nats, where chance is ln C; for values in their mean square.
LIMIT = 1e3
# "tuning" and "validation": the first metric of each run, or None where it was not taken; "metrics": {name: value} each.
Scores = dict[str, list[Any]]


class Objective(Protocol):
    """What is learnt from rows of text.

    Attributes:
        draws: the training and tuning rows of each run, as indices of what `loss` takes.
        lengths: tokens of each training row (N,), by which chunks are cut.
        limit: a mean training loss above it is divergence.
        validation: rows that are reported on.
    """

    draws: list[Draw]
    lengths: np.ndarray
    limit: float
    validation: int

    def loss(self, bank: BiasBank, run_ids: Tensor, keys: Tensor | None, index: np.ndarray) -> Tensor:
        """The loss of training rows `index` (B,) under the runs `run_ids` (B,), each for itself: (B,)."""

    def scores(self, bank: BiasBank, validate: bool, last: bool, cost: ChunkCost) -> Scores:
        """The scores of every run after an epoch; on the validation split only if `validate`."""

    def efficiency(self) -> float:
        """Real over computed tokens of training so far."""


def no_scores(R: int) -> Scores:
    """Of R runs, before any is taken."""
    return {"tuning": [None] * R, "validation": [None] * R}
