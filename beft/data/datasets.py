"""A task with its rows, as all training and scoring uses it, and the rows that a run of some seed draws."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import BeftError, unknown
from .prompts import Example, Prompt, majority_option
from .tasks import GENERATED, PAPER, RATED, Task, majority_score

TEXT = "text"  # the suite of texts without labels


@dataclass(frozen=True)
class Split:
    """N rows with their labels.

    Attributes:
        rows: a tuple of strings per row, one per text column; an `Example` per row of a prompted task.
        labels: (N,), int64 codes of classes, float64 values of a regression, or int64 indices of the right options.
            Where rows have no labels (text to model, answers to generate), each row is a class of its own.
    """

    rows: tuple[Any, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def divided(self, held_out: np.ndarray) -> tuple[Split, Split]:
        """The other rows, and those of a boolean mask (N,)."""
        kept, taken = (
            Split(tuple(itertools.compress(self.rows, mask)), self.labels[mask]) for mask in (~held_out, held_out)
        )
        return kept, taken


@dataclass(frozen=True)
class Dataset:
    """A task with its rows.

    Attributes:
        source: where the rows come from, in words.
        fingerprint: 16 hex digits of the sha256 over the content of all splits.
        substitute: True for generated text, which captions must name.
        further: splits scored once, after the last epoch (MNLI's mismatched one), by name.
        prompt: the prompt of a prompted task, whose rows are `Example`s.
        summary: of rows of one's own, one line: what was read, merged and left out, and how it was split.
    """

    task: Task
    train: Split
    validation: Split
    source: str
    fingerprint: str
    substitute: bool = False
    further: dict[str, Split] = field(default_factory=dict)
    prompt: Prompt | None = None
    summary: str = ""

    @cached_property
    def majority(self) -> dict[str, float]:
        """What one answer for all rows reaches: of every metric on the validation split, and of further splits.

        The most frequent class or option; 0 for correlations and generated answers; nothing for texts without labels.
        Further splits are named as in records, "accuracy (validation_mismatched)".
        """
        if self.task.suite == TEXT:
            return {}
        if self.prompt is not None:
            return {self.prompt.metric: majority_option(self.prompt.metric, self.validation.rows)}
        splits = {"": self.validation, **{f" ({name})": split for name, split in self.further.items()}}
        return {
            metric + name: majority_score(metric, split.labels)
            for name, split in splits.items()
            for metric in self.task.metrics
        }


def labelled_dataset(
    task: Task, train: Split, validation: Split, source: str, substitute: bool = False, **further: Split
) -> Dataset:
    """Rows of one or two texts with labels."""
    content = [[split.rows, split.labels.tolist()] for split in (train, validation, *further.values())]
    return Dataset(task, train, validation, source, _fingerprint(content), substitute, further)


def text_dataset(
    name: str, train: Sequence[str], validation: Sequence[str], source: str, substitute: bool = False
) -> Dataset:
    """Texts to model, without labels."""
    task = Task(name, TEXT, ("text",), "text", (), ("accuracy",), {}, 1e-3, {"any": 1}, "language modelling")
    learn, test = (Split(tuple((t,) for t in texts), np.arange(len(texts))) for texts in (train, validation))
    return Dataset(task, learn, test, source, _fingerprint([[list(train), list(validation)]]), substitute)


def prompt_dataset(
    prompt: Prompt,
    train: Sequence[Example],
    validation: Sequence[Example],
    source: str,
    substitute: bool = False,
    task: Task | None = None,
) -> Dataset:
    """Examples of a prompted task; `task` of rows of one's own, else it is made of the prompt."""
    content = [[asdict(example) for example in examples] for examples in (train, validation)]
    learn, test = (Split(tuple(examples), _right_options(examples)) for examples in (train, validation))
    task = task or _prompted_task(prompt, len(train))
    return Dataset(task, learn, test, source, _fingerprint(content), substitute, prompt=prompt)


def _prompted_task(prompt: Prompt, rows: int) -> Task:
    regimes = {"low": min(1000, rows)}
    origin = {"microworld": GENERATED, "rated_sentences": RATED}.get(prompt.suite, PAPER)
    text = (prompt.task, prompt.suite, prompt.columns, "label", ())
    return Task(*text, (prompt.metric,), regimes, prompt.rate, {"any": 5}, origin)


def _right_options(examples: Sequence[Example]) -> np.ndarray:
    labels = np.array([example.label for example in examples], dtype=np.int64)
    return labels if len(labels) and labels.min() >= 0 else np.arange(len(labels))


def _fingerprint(content: Sequence[Any]) -> str:
    return hashlib.sha256("".join(map(json.dumps, content)).encode()).hexdigest()[:16]


def label_array(labels: Sequence[int | float]) -> np.ndarray:
    """Labels (N,): codes as int64, values as float64."""
    return np.asarray(labels, dtype=np.float64 if any(isinstance(x, float) for x in labels) else np.int64)


@dataclass(frozen=True)
class Draw:
    """Disjoint row indices into a training split: `train` for training, `tuning` for choosing learning rates."""

    train: np.ndarray
    tuning: np.ndarray


def draw(data: Dataset, regime: str | int, seed: int, tuning: float = 0.0) -> Draw:
    """The training rows of a regime by the paper's rule: the first n of `RandomState(seed).permutation(len(train))`.

    Args:
        data: the task's rows.
        regime: a regime of the task, "all", or a number of rows n.
        seed: of the permutation.
        tuning: share in [0, 0.5] of these n rows reserved for choosing settings: the last round(n * tuning) of them.
            It is part of the regime, not an addition to it.

    Raises BeftError for an unknown regime, more rows than there are, a tuning share that is no row at all, or training
    rows of one class only.
    """
    rows, name = len(data.train), data.task.name
    if isinstance(regime, str):
        sizes = {**data.task.regimes, "all": rows}
        if regime not in sizes:
            raise unknown(f"regime of {name}", regime, [*sizes, "or a number of rows"])
        n = sizes[regime]
    elif isinstance(regime, bool) or not isinstance(regime, int | np.integer) or regime < 1:
        raise BeftError(
            f"regime {regime!r} is no number of rows: give a whole number from 1 to {rows}, or a regime's name"
        )
    else:
        n = int(regime)
    if n > rows:
        raise BeftError(
            f"regime {regime!r} asks for {n} training rows but {name} has {rows}: give at most {rows}, or 'all'"
        )
    if not 0 <= tuning <= 0.5:
        raise BeftError(f"tuning share {tuning!r} is out of range: give a number from 0 to 0.5")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise BeftError(f"seed {seed!r} cannot be used: give a whole number from 0 to 4294967295")
    chosen = np.random.RandomState(seed).permutation(rows)[:n]
    cut = n - round(n * tuning)
    if tuning and cut == n:
        raise BeftError(f"a tuning share of {tuning} of {n} rows is no row at all: raise the share or the regime")
    if len(np.unique(data.train.labels[chosen[:cut]])) < 2:
        alike = "have all one label" if data.task.regression else "are all of one class"
        raise BeftError(f"the {cut} training rows drawn from {name} with seed {seed} {alike}: draw more rows")
    return Draw(chosen[:cut], chosen[cut:])
