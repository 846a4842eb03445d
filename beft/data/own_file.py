"""Rows of one's own: from a file, a folder of splits or a data frame, with one line that says what was read."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BeftError, unknown
from . import files, labels, own_rows
from .cut import classes, cut
from .datasets import Dataset, Split, label_array, labelled_dataset
from .files import USER_SUFFIXES, Table, suffix_of
from .own_rows import SHOWN, Rows, Told
from .tasks import TASKS, Task

DROPS = ("blank", "rare", "duplicates")
VALIDATION_NAMES = ("validation", "dev", "valid", "val")
ROLES = ("text", "text_a", "text_b", "label")
FRAME = "data frame"


@dataclass(frozen=True)
class Source:
    """A table, and what is said of it: in messages, in the summary, and of how it was read."""

    where: str
    table: Table
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Own:
    """Rows of one's own, read and cleaned.

    Attributes:
        name: of the task.
        tables: one, or those of the training and the validation rows.
        columns: that hold texts.
        parts: the rows of `tables` that are used, with names of classes or values as labels.
        kind: "classes" or "values".
        told: what the summary says of how they were read.
    """

    name: str
    tables: list[Source]
    columns: tuple[str, ...]
    parts: list[Rows]
    kind: str
    told: Told


def load_own(source: Any, **reading: Any) -> Dataset:
    """The rows of a file, a folder or a data frame, read as `read_own`; see `sources.load`."""
    own = read_own(source, **reading)
    splits, names = splits_of(own)
    made = labelled_dataset(task_of(own, names, len(splits[0])), *splits, source_of(own, names))
    return replace(made, summary=summary_of(made, own))


def read_own(
    source: Any,
    *,
    kind: str | None = None,
    drop: str | Iterable[str] = (),
    validation: Any = None,
    columns: Mapping[str, str] | None = None,
    texts: tuple[str, ...] = (),
) -> Own:
    """The rows of a file, a folder or a data frame without what cannot be used; arguments as of `sources.load`.

    Args:
        texts: the columns of texts, whose numbers are texts too; by default `text`, or `text_a` and `text_b`.
    """
    drops = _options(kind, drop, columns)
    name, tables = _sources(source, validation)
    tables = [replace(one, table=_renamed(one, columns or {})) for one in tables]
    if texts:
        tables = [replace(one, table=_with_texts(one, texts)) for one in tables]
    else:
        texts = ("text_a", "text_b") if {"text_a", "text_b"} & set(tables[0].table) else ("text",)
    told = Told(seen=[f"in {one.where} {remark}" for one in tables for remark in one.remarks])
    parts = [own_rows.usable(one.table, one.where, texts, kind, drops, told) for one in tables]
    if len({(tuple(part.texts), tuple(part.labels)) for part in parts}) < len(parts):
        raise BeftError(
            f"{tables[0].where} and {tables[1].where} hold the same rows: give validation rows that are not trained on"
        )
    found = labels.kind_of([labels.Column(part.labels, part.numbers, part.where) for part in parts], kind)
    parts = own_rows.named(parts, told) if found == "classes" else own_rows.valued(parts)
    parts = own_rows.without_repeats(parts, "duplicates" in drops, told)
    if found == "classes" and "rare" in drops:
        parts = own_rows.without_rare(parts, told)
    return Own(name, tables, texts, parts, found, told)


def _options(kind: Any, drop: Any, columns: Any) -> tuple[str, ...]:
    """What to drop, as a tuple. Raises BeftError for options that are none."""
    if not (kind is None or isinstance(kind, str) and kind in labels.KINDS):
        raise unknown("kind", kind, labels.KINDS)
    if not (columns is None or isinstance(columns, Mapping)):
        raise BeftError(
            f"columns {columns!r} is no mapping: give the names of columns as {{'text': ..., 'label': ...}}"
        )
    for role in columns or {}:
        if role not in ROLES:
            raise unknown("use of a column", role, ROLES)
    drops = (drop,) if isinstance(drop, str) else tuple(drop) if isinstance(drop, Iterable) else (drop,)
    for name in drops:
        if not isinstance(name, str) or name not in DROPS:
            raise unknown("kind of rows to drop", name, DROPS)
    return drops


def _sources(source: Any, validation: Any) -> tuple[str, list[Source]]:
    """The name of the task, and the table of its rows, or those of its training and its validation rows."""
    folder = _folder(source)
    if folder is not None:
        found: dict[str, Any] = {
            "train": _split_path(folder, ("train",)),
            "validation": _split_path(folder, VALIDATION_NAMES),
        }
        name = where = folder.resolve().name
        given: Mapping[str, Any] | None = found
    else:
        given = source if isinstance(source, Mapping) else None
        name = where = FRAME
    if given is None:
        first = _opened(source, FRAME)
        name = first.where if first.where == FRAME else first.where[: -len(suffix_of(Path(first.where)))]
        return name, [first] + ([] if validation is None else [_opened(validation, f"validation {FRAME}")])
    if validation is not None:
        raise BeftError(f"{where} has a validation split, and validation names another: leave it out")
    names = [split for split in VALIDATION_NAMES if split in given]
    if "train" not in given or len(names) != 1:
        raise BeftError(
            f"the splits {', '.join(map(repr, given)) or 'none'} are not a train and a validation split: give "
            "{'train': ..., 'validation': ...}"
        )
    opened = [_opened(given[split], f"{split} {FRAME}") for split in ("train", names[0])]
    if name != FRAME:
        opened = [replace(one, where=f"{name}/{one.where}") for one in opened]
    return name, opened


def is_own(task: Any) -> bool:
    """Whether a task is rows of one's own: no known name, and a path, a URL, a folder here, or no text at all."""
    if not isinstance(task, str):
        return True
    if task in TASKS:
        return False
    return "://" in task or bool(Path(task).suffix) or len(Path(task).parts) > 1 or _folder(task) is not None


def path_of(source: str | Path) -> Path:
    """The path of a file or folder. Raises BeftError for a URL."""
    if "://" in str(source) or re.match("(https?|s3|gs|hf):/", str(source)):  # a Path has one slash of two
        raise BeftError(f"{str(source)!r} is a URL: download the file and give its path")
    try:
        return Path(source).expanduser()
    except RuntimeError:  # a user's home that does not exist
        return Path(source)


def _folder(source: Any) -> Path | None:
    """The folder that a task names, or None; a name that ends as a data file's does names no folder."""
    if not isinstance(source, str | Path) or not str(source).strip() or "://" in str(source):
        return None
    path = path_of(source)
    return path if os.path.isdir(path) and not suffix_of(path) else None


def _split_path(folder: Path, names: Sequence[str]) -> Path:
    """The one file of a folder that is named after one of the splits. Raises BeftError for none and for several."""
    paths = [path for name in names for suffix in USER_SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]
    if not paths:
        raise BeftError(
            f"folder {folder.resolve().name} has no {names[0]} split: add {names[0]}.csv (or "
            f"{', '.join(USER_SUFFIXES[1:5])}), or give the path of a single file"
        )
    if len(paths) > 1:
        raise BeftError(f"folder {folder.resolve().name} has {paths[0].name} and {paths[1].name}: remove all but one")
    return paths[0]


def _opened(source: Any, frame: str) -> Source:
    """The table of a file or a data frame, which messages name `frame`."""
    if isinstance(source, str | Path):
        path = path_of(source)
        files.require_suffix(path, f"cannot use {str(source)!r} as a task")
        table, remarks = files.read_told(path)
        return Source(path.name, table, remarks)
    return Source(frame, _table_of(source, frame))


def _table_of(source: Any, frame: str) -> Table:
    """The columns of a pandas DataFrame, or of what has a `to_pandas` (datasets.Dataset, polars, pyarrow)."""
    import pandas as pd

    content = source.to_pandas() if hasattr(source, "to_pandas") else source
    if not isinstance(content, pd.DataFrame):
        raise BeftError(
            f"cannot use a {type(source).__name__} as a task: give a task's name, the path of a file or a folder, "
            "or a pandas DataFrame"
        )
    files.refuse_repeated(map(str, content.columns), f"the {frame}")
    table = files.columns_of(content)
    for column, feature in (getattr(source, "features", None) or {}).items():
        if hasattr(feature, "int2str"):  # a ClassLabel of `datasets`, -1 for no label
            table[column] = [None if code is None or code < 0 else feature.int2str(int(code)) for code in table[column]]
    return table


def _renamed(source: Source, columns: Mapping[str, str]) -> Table:
    """The table with the columns in the places that `columns` gives them. Raises BeftError for a missing one."""
    files.require_columns(source.table, tuple(columns.values()), source.where)
    other = {"text_a", "text_b"} if "text" in columns else set()
    kept = {name: cells for name, cells in source.table.items() if name not in {*other, *columns.values()}}
    return kept | {role: source.table[name] for role, name in columns.items()}


def _values(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Values (N,), and which rows are held out (N,)."""
    values = np.asarray(rows.labels, dtype=np.float64)
    held_out = cut(np.zeros(len(values)), rows.keys, least=0)
    if min(len(np.unique(values[side])) for side in (~held_out, held_out)) < 2:
        raise BeftError(f"{rows.where} has too few different labels for a regression: add rows")
    return values, held_out


def _with_texts(source: Source, columns: tuple[str, ...]) -> Table:
    """The table with the numbers of these columns as texts. Raises BeftError, with the nearest names, for no column."""
    for column in columns:
        if source.table and column not in source.table:
            raise unknown(f"column of {source.where} in the template", column, source.table)
    return source.table | {name: list(map(labels.number_as_text, source.table.get(name, ()))) for name in columns}


def splits_of(own: Own) -> tuple[tuple[Split, Split], tuple[str, ...]]:
    """A training and a validation split, and the names of the classes, none of a regression."""
    return _cut_splits(own.parts[0], own.kind) if len(own.parts) == 1 else _given_splits(own.parts, own.kind)


def task_of(own: Own, names: tuple[str, ...], rows: int) -> Task:
    """The task of the classes `names` with so many training rows."""
    like = TASKS["sst2"]
    return replace(
        like,
        name=own.name,
        suite="file",
        text_columns=own.columns,
        labels=names,
        metrics=like.metrics if names else ("spearman", "pearson"),
        regimes={regime: min(size, rows) for regime, size in like.regimes.items()},
        source=f"a user's file; rate, epochs and sizes as for sst2 ({like.source})",
    )


def source_of(own: Own, names: tuple[str, ...]) -> str:
    """Where the rows come from, in words."""
    tables = own.tables
    place = tables[0].where if FRAME in tables[0].where else f"file {tables[0].where}"
    done = "".join(f"; {what}" for what in own.told.done)
    held_out = tables[1].where if len(tables) == 2 else f"a fixed {'stratified ' if names else ''}20% cut of it"
    return f"{place}{done}; validation: {held_out}"


def _cut_splits(rows: Rows, kind: str) -> tuple[tuple[Split, Split], tuple[str, ...]]:
    """A training and a validation split of the rows, and the names of the classes."""
    if kind == "values":
        found, held_out = _values(rows)
        return Split(tuple(rows.texts), found).divided(held_out), ()
    remedy = "add rows, or leave such classes out with drop='rare'"
    if all(files.number_of(label) is not None for label in rows.labels):
        remedy += ", or say kind='values'"
    found, names, held_out = classes(rows.labels, rows.keys, rows.where, remedy)
    return Split(tuple(rows.texts), found).divided(held_out), names


def _given_splits(parts: list[Rows], kind: str) -> tuple[tuple[Split, Split], tuple[str, ...]]:
    """The splits of given training and validation rows. Raises BeftError for a class that training lacks."""
    train, validation = parts
    names: tuple[str, ...] = ()
    if kind == "values":
        for part in parts:
            if len(set(part.labels)) < 2:
                raise BeftError(f"{part.where} has too few different labels for a regression: add rows")
        coded = [np.asarray(part.labels, dtype=np.float64) for part in parts]
    else:
        names = files.class_names(train.labels)
        if len(names) < 2:
            raise BeftError(f"all rows of {train.where} have the label {names[0]!r}: a task needs at least two classes")
        code = {name: i for i, name in enumerate(names)}
        faults: dict[str, list[int]] = {}
        for name, number in zip(validation.labels, validation.numbers, strict=True):
            if name not in code:
                faults.setdefault(f"the label {name!r}, which no training row has", []).append(number)
        files.refuse(faults, validation.where, "correct the labels or remove the rows")
        coded = [label_array([code[name] for name in part.labels]) for part in parts]
    first, second = (Split(tuple(part.texts), own) for part, own in zip(parts, coded, strict=True))
    return (first, second), names


def summary_of(made: Dataset, own: Own) -> str:
    """One line: rows, kind of task, classes with their counts, what was done to the rows, and the splits."""
    tables, parts, told = own.tables, own.parts, own.told
    read = sum(len(one.table["label"]) for one in tables)
    rows = [label for part in parts for label in part.labels]
    if made.task.labels:
        counts = Counter(rows)
        shown = [f"{labels.shown(name)} ({counts[name]:,})" for name in made.task.labels[:SHOWN]]
        more = len(made.task.labels) - SHOWN
        kind = f"{len(made.task.labels)} classes: {', '.join(shown)}" + (f" and {more} more" if more > 0 else "")
    else:
        kind = f"values from {min(rows):g} to {max(rows):g}"
    names = " and ".join(one.where for one in tables)
    how = f"as in {tables[1].where}" if len(tables) == 2 else "a fixed fifth"
    splits = f"{len(made.train):,} rows to train on, {len(made.validation):,} to validate ({how})"
    return "; ".join([f"{names}: {read:,} rows, {kind}", *told.done, *told.seen, splits])
