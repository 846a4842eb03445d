"""A user's own file as a task: classes or values, and the part of it that is held out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BeftError
from .datasets import Dataset, Split, label_array, labelled_dataset
from .files import are_values, class_of, is_whole, read, texts_of, values_of
from .tasks import TASKS

VALIDATION_SHARE = 0.2


def user_file(path: Path) -> Dataset:
    """The rows of a .csv, .tsv, .jsonl or .parquet file with the columns that `data.load` states.

    Raises:
        BeftError: it cannot be read, lacks a column, or has rows that cannot be used; the row is named.
    """
    table = read(path)
    columns = ("text_a", "text_b") if {"text_a", "text_b"} & set(table) else ("text",)
    texts = texts_of(table, columns, "label", path.name)
    coded = _values if are_values(table["label"]) else classes
    labels, names, held_out = coded(table["label"], path.name)
    train, validation = (
        Split(tuple(texts[i] for i in np.flatnonzero(part)), labels[part]) for part in (~held_out, held_out)
    )
    like = TASKS["sst2"]
    task = replace(
        like,
        name=path.stem,
        suite="file",
        text_columns=columns,
        label_column="label",
        labels=names,
        metrics=like.metrics if names else ("spearman", "pearson"),
        regimes={regime: min(size, len(train)) for regime, size in like.regimes.items()},
        source=f"a user's file; rate, epochs and sizes as for sst2 ({like.source})",
    )
    cut = "stratified 20%" if names else "20%"
    return labelled_dataset(task, train, validation, f"file {path.name}; validation: a fixed {cut} cut of it")


def classes(column: list[Any], where: str) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Codes (N,), names of the classes, and which rows are held out (N,), of a column of labels."""
    given = [class_of(value, row, where) for row, value in enumerate(column, 1)]
    whole = all(is_whole(name) for name in given)  # then 10 comes after 2
    names = sorted(set(given), key=lambda name: (int(name) if whole else 0, name))
    if len(names) < 2:
        raise BeftError(f"all rows of {where} have the label {names[0]!r}: a task needs at least two classes")
    rarest, count = min(Counter(given).items(), key=lambda item: item[1])
    if count < 2:
        raise BeftError(
            f"label {rarest!r} of {where} has a single row: each class needs two or more, one to learn, one to test"
        )
    codes = label_array([names.index(name) for name in given])
    held_out = np.zeros(len(given), dtype=bool)
    for code in range(len(names)):
        rows = np.flatnonzero(codes == code)
        size = max(1, round(VALIDATION_SHARE * len(rows)))
        held_out[np.random.RandomState(0).permutation(rows)[:size]] = True
    return codes, tuple(names), held_out


def _values(column: list[Any], where: str) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Values (N,), no names, and which rows are held out (N,), of a column of numbers."""
    values = values_of(column, where)
    count = len(values)
    held_out = np.zeros(count, dtype=bool)
    held_out[np.random.RandomState(0).permutation(count)[: round(VALIDATION_SHARE * count)]] = True
    found = np.asarray(values, dtype=np.float64)
    if min(len(np.unique(found[part])) for part in (~held_out, held_out)) < 2:
        raise BeftError(f"{where} has too few different labels for a regression: add rows")
    return found, (), held_out
