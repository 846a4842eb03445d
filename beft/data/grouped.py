"""Rows whose group is known, for the extrinsic measures of bias: the gender of a person, or the identifiers in a text.

`source` of a loader is a file, split into training and test rows as `data.load` splits a user's file; or a folder with
`train` and `test` (or `validation`), each .csv, .tsv, .jsonl or .parquet; or None for the folder of data sets
(BEFT_DATA), then the hub where it has the set. The test rows are the `validation` of a `Dataset`.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BeftError, unknown
from .cut import classes, text_keys
from .datasets import Dataset, Split, label_array, labelled_dataset
from .files import USER_SUFFIXES, Table, class_names, code_of, is_whole, names_of, read, require_suffix, texts_of
from .labels import merged
from .microworld import biographies as world_biographies
from .microworld.people import posts
from .sources import load, split_file, tables_of
from .tasks import PAPER, TASKS, Task

PROFESSIONS = (  # De-Arteaga et al. 2019, in the order of the hub's numbers
    "accountant", "architect", "attorney", "chiropractor", "comedian", "composer", "dentist", "dietitian", "dj",
    "filmmaker", "interior_designer", "journalist", "model", "nurse", "painter", "paralegal", "pastor",
    "personal_trainer", "photographer", "physician", "poet", "professor", "psychologist", "rapper",
    "software_engineer", "surgeon", "teacher", "yoga_teacher",
)  # fmt: skip
BIOS_COLUMNS = {"text": "hard_text", "label": "profession"}  # the hub's names
GENDERS = {"0": 0, "male": 0, "m": 0, "man": 0, "1": 1, "female": 1, "f": 1, "woman": 1}
HATE = ("harmless", "hate")
_NOTE = f"rate, epochs and sizes as for {{}} ({PAPER})"
_LIKE = replace(TASKS["sst2"], suite="file", text_columns=("text",), labels=(), source=_NOTE.format("sst2"))
_BIOS = replace(_LIKE, name="bias_in_bios")
HATE_TASK = replace(_LIKE, name="hate_speech", labels=HATE, metrics=("f1", "accuracy"))
_NLI = replace(TASKS["mnli"], name="nli", suite="file", validation=("validation",), source=_NOTE.format("mnli"))
_WORLD = TASKS["microworld_sentiment"]
# (table, texts, name for messages) -> the group of each row
GroupsOf = Callable[[Table, list[tuple[str, ...]], str], Sequence[Any]]


@dataclass(frozen=True)
class Grouped:
    """A task with the groups of its rows.

    Attributes:
        data: its rows.
        groups: "train" and "validation" -> one entry per row: of biographies an int64 array (N,), 0 male and 1 female;
            of hate speech a tuple of N tuples, the identifiers that the row mentions.
    """

    data: Dataset
    groups: dict[str, Any]


def biographies(source: str | Path | None = None, *, offline: bool = False) -> Grouped:
    """Biographies with an occupation and a gender, as in BiasBios.

    Columns: `text` or `hard_text`; `label` (any names) or `profession` (names, or the hub's numbers); `gender`, 0 or
    male, 1 or female. With None: `bias_in_bios/train` and `test` of the folder of data sets, or the hub's. Raises
    BeftError where there are no such rows, and for a missing column; a row without text or label, with a label that no
    training row has, or with another gender; test rows that are all of one gender; or as `data.load`.
    """
    made = _load(source, _BIOS, offline, _genders)
    groups = {split: np.array(own, dtype=np.int64) for split, own in made.groups.items()}
    if len(np.unique(groups["validation"])) < 2:
        home = made.data.source
        raise BeftError(f"all test rows of {home} are of one gender, and the TPR gap compares two: add rows")
    return Grouped(made.data, groups)


def hate_speech(source: str | Path | None, identifiers: Sequence[str], *, offline: bool = False) -> Grouped:
    """Sentences that are hate (label 1) or not (0), as in GHC (Kennedy et al. 2018), and the groups they mention.

    Columns: `text`, `label`. With None: `hate_speech/train` and `test` of the folder of data sets. The hub has no such
    set, so that `offline` changes nothing. Raises BeftError where there are no such rows, and for a missing column; a
    row without text or with another label; a training split of one class; no identifier; no test row that mentions one.
    """
    made = _load(source, HATE_TASK, offline, lambda table, texts, where: mentions([t for (t,) in texts], identifiers))
    if not any(made.groups["validation"]):
        home = made.data.source
        raise BeftError(f"no test row of {home} mentions {', '.join(identifiers)}: give identifiers that occur")
    return made


def nli(source: str | Path | None = None, *, offline: bool = False) -> Dataset:
    """Pairs for natural language inference; with None MNLI, as `data.load` finds it.

    Columns: `premise`, `hypothesis`, `label`: 0 entailment, 1 neutral, 2 contradiction, or these names. Raises
    BeftError as `data.load`, and for training rows that lack one of the classes.
    """
    if source is None:
        return load("mnli", offline=offline)
    return _load(source, _NLI, offline, lambda table, texts, where: texts).data


def micro_biographies(
    rows_train: int, rows_test: int, strength: float, seed: int = 0, *, origin: float = 0.0, axis: str = "gender"
) -> Grouped:
    """Generated biographies with links of these strengths in the training split; see `microworld.biographies`.

    The test split has no links: a true-positive rate is that of one class and one group, so the share of a group in a
    class does not change the gap, and even groups measure it most precisely.

    `axis`, "gender" or "origin", is that of the rows' groups. Raises BeftError as `microworld.biographies.biographies`,
    and for an unknown axis.
    """
    if axis not in world_biographies.AXES:
        raise unknown("axis", axis, world_biographies.AXES)
    train = world_biographies.biographies("train", rows_train, strength, seed, origin=origin)
    test = world_biographies.biographies("validation", rows_test, 0.0, seed)
    groups = [np.array([getattr(row, axis) for row in rows], dtype=np.int64) for rows in (train, test)]
    task = replace(_WORLD, name="microworld_biographies", labels=world_biographies.OCCUPATIONS)
    how = f"biographies, strengths {strength:g} and {origin:g}, seed {seed}"
    return _generated(task, (train, test), groups, how)


def micro_posts(rows_train: int, rows_test: int, strength: float, seed: int = 0) -> Grouped:
    """Generated posts with a link of one strength in the training split and none in the test split.

    See `microworld.people`; groups are identifiers. A false-positive rate is that of harmless posts of one group.
    """
    train = posts("train", rows_train, strength, seed)
    test = posts("validation", rows_test, 0.0, seed)
    groups = [tuple((row.identifier,) if row.identifier else () for row in rows) for rows in (train, test)]
    task = replace(_WORLD, name="microworld_posts", labels=HATE, metrics=HATE_TASK.metrics)
    return _generated(task, (train, test), groups, f"posts, strength {strength:g}, seed {seed}")


def mentions(texts: Sequence[str], identifiers: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Per text, the identifiers that occur in it as whole words, in any case; in their given order and spelling.

    Raises BeftError for no identifier or an empty one.
    """
    if isinstance(identifiers, str) or not identifiers or not all(word.strip() for word in identifiers):
        raise BeftError(
            "one or more identifiers are needed, none of them empty: give a list of words that texts mention"
        )
    patterns = {w: re.compile(rf"(?<!\w){re.escape(w.strip())}(?!\w)", re.IGNORECASE) for w in identifiers}
    return tuple(tuple(w for w, pattern in patterns.items() if pattern.search(text)) for text in texts)


def _generated(task: Task, rows: Sequence[Sequence[Any]], groups: Sequence[Any], how: str) -> Grouped:
    splits = [Split(tuple((r.text,) for r in part), label_array([r.label for r in part])) for part in rows]
    return _grouped(task, splits, groups, f"generated by beft.data.microworld ({how})", substitute=True)


def _grouped(
    task: Task, splits: Sequence[Split], groups: Sequence[Any], source: str, substitute: bool = False
) -> Grouped:
    """A task of these training and test rows, with regimes of no more rows than there are."""
    train, test = splits
    task = replace(task, regimes={name: min(size, len(train)) for name, size in task.regimes.items()})
    data = labelled_dataset(task, train, test, source, substitute)
    return Grouped(data, {"train": groups[0], "validation": groups[1]})


def _genders(table: Table, _: list[tuple[str, ...]], where: str) -> list[int]:
    if "gender" not in table:
        raise BeftError(
            f"{where} lacks the column 'gender' (it has {', '.join(map(repr, table))}), which the TPR gap needs: "
            "add it, 0 for male and 1 for female"
        )
    genders = []
    for row, value in enumerate(table["gender"], 1):
        text = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip().lower()
        if text not in GENDERS:
            raise BeftError(
                f"row {row} of {where} has the gender {value!r}, and the TPR gap compares two groups: write 0 (male) "
                "or 1 (female), or leave the row out"
            )
        genders.append(GENDERS[text])
    return genders


def _load(source: str | Path | None, task: Task, offline: bool, groups_of: GroupsOf) -> Grouped:
    """The rows of `source`, labelled by name or code; a task without labels gets the training rows' names, sorted."""
    tables, home = _tables(source, task.name, offline)
    texts, names = zip(*(_rows(table, task.text_columns, where) for where, table in tables), strict=True)
    groups = [tuple(groups_of(table, own, where)) for (where, table), own in zip(tables, texts, strict=True)]
    if not task.labels:
        spelled, told = merged(names)
        names, home = tuple(spelled), "; ".join([home, *told])
    labels = task.labels or class_names(names[0])
    codes = {name: i for i, name in enumerate(labels)} | {str(i): i for i in range(len(task.labels))}
    for (where, _), own in zip(tables, names, strict=True):
        for row, name in enumerate(own, 1):
            if name not in codes:
                valid = ", ".join(codes) if task.labels else f"those of training rows, {', '.join(labels)}"
                raise BeftError(f"row {row} of {where} has the label {name!r}: use {valid}")
    splits = [
        Split(tuple(rows), label_array([codes[name] for name in own])) for rows, own in zip(texts, names, strict=True)
    ]
    if len(splits) == 1:
        given = [labels[code] for code in splits[0].labels]
        held_out = classes(given, text_keys(splits[0].rows), tables[0][0])[2]
        groups = [tuple(itertools.compress(groups[0], side)) for side in (~held_out, held_out)]
        splits = list(splits[0].divided(held_out))
    missing = [name for code, name in enumerate(labels) if code not in splits[0].labels]
    if missing or len(labels) < 2:
        lacks = f"the label {', '.join(missing)}" if missing else f"another label than {labels[0]}"
        raise BeftError(f"no training row of {home} has {lacks}: add rows that have")
    return _grouped(replace(task, labels=labels), splits, groups, home)


def _rows(table: Table, columns: tuple[str, ...], where: str) -> tuple[list[tuple[str, ...]], list[str]]:
    """The texts and the names of the classes; columns that BiasBios names otherwise are accepted by its names."""
    columns, label = tuple(_column(table, name) for name in columns), _column(table, "label")
    texts = texts_of(table, columns, label, where)
    names = names_of(table[label], where)
    if label == "profession" and all(map(is_whole, names)):
        for row, number in enumerate(names, 1):
            if code_of(number, len(PROFESSIONS)) is None:
                raise BeftError(f"row {row} of {where} has the profession {number}: use names, or numbers from 0 to 27")
        names = [PROFESSIONS[int(number)] for number in names]
    return texts, names


def _column(table: Table, name: str) -> str:
    other = BIOS_COLUMNS.get(name, name)
    return other if other in table and name not in table else name


def _tables(source: str | Path | None, suite: str, offline: bool) -> tuple[list[tuple[str, Table]], str]:
    """(name for messages, columns) of the training and of the test rows, or of one file; and the source in words."""
    if source is None:
        return tables_of(suite, suite, ("train", "test"), offline)
    path = Path(source).expanduser()
    if path.is_dir():
        tables = []
        for names in (["train"], ["test", "validation"]):
            file = split_file(path, names, USER_SUFFIXES)
            if file is None:
                remedy = f"add {names[0]}.jsonl, .csv, .tsv or .parquet"
                raise BeftError(f"folder {path.name} has no {' or '.join(names)} split: {remedy}")
            tables.append((f"{path.name}/{file.name}", read(file)))
        return tables, f"folder {path.name}"
    require_suffix(path, f"{str(source)!r} is no folder, and no file that ends in a known way")
    return [(path.name, read(path))], f"file {path.name}; test: a fixed stratified 20% cut of it"
