"""Labelled rows of text, as everything that trains or scores takes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .tasks import Task


@dataclass(frozen=True)
class Split:
    """N rows: `texts`, one tuple per row with one string per text column, and `labels`, int64 codes `(N,)`; of a
    regression float64 values."""

    texts: tuple[tuple[str, ...], ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TaskData:
    """A task with its rows.

    source: where they come from, in words. fingerprint: 16 hex digits of the sha256 over texts and labels of all
    splits. substitute: True for generated text, which figures must name. further: splits that are scored once, after
    the last epoch (MNLI's mismatched one), by name.
    """

    task: Task
    train: Split
    validation: Split
    source: str
    fingerprint: str
    substitute: bool
    further: dict[str, Split] = field(default_factory=dict)


def task_data(
    task: Task,
    train: Split,
    validation: Split,
    source: str,
    substitute: bool = False,
    further: dict[str, Split] | None = None,
) -> TaskData:
    """A task with its rows and their fingerprint."""
    further = further or {}
    digest = hashlib.sha256()
    for part in (train, validation, *further.values()):
        digest.update(json.dumps([part.texts, part.labels.tolist()]).encode())
    return TaskData(task, train, validation, source, digest.hexdigest()[:16], substitute, further)


def label_array(labels: Sequence[int | float]) -> np.ndarray:
    """Codes as int64, values as float64."""
    return np.asarray(labels, dtype=np.float64 if any(isinstance(x, float) for x in labels) else np.int64)
