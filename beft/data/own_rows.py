"""Which rows of one's own are used, and with which labels; whatever is done to them is told."""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import BeftError, rows_named
from . import files, labels
from .cut import text_keys, units
from .files import Table

SHOWN = 10  # classes in one line


@dataclass(frozen=True)
class Rows:
    """N rows of a file or data frame `where`.

    Attributes:
        texts: N tuples of one or two texts.
        labels: plain cells at first, then names of classes or values.
        numbers: of the rows, counted from 1.
        keys: texts that differ in spaces alone have the same one.
    """

    where: str
    texts: Sequence[tuple[str, ...]]
    labels: Sequence[Any]
    numbers: Sequence[int]
    keys: Sequence[Hashable]

    def __len__(self) -> int:
        return len(self.texts)

    def kept(self, mask: Sequence[bool]) -> Rows:
        """The rows of a mask (N,)."""
        columns = (self.texts, self.labels, self.numbers, self.keys)
        return Rows(self.where, *(list(itertools.compress(column, mask)) for column in columns))


@dataclass
class Told:
    """What the summary says beside the counts: what was done to the rows, and what was only seen."""

    done: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)


def usable(
    table: Table, where: str, columns: tuple[str, ...], kind: str | None, drop: Collection[str], told: Told
) -> Rows:
    """The rows without faults; those with an empty cell are left out if `drop` says so. Raises BeftError for others."""
    blank = "blank" in drop
    files.require_rows(table, (*columns, "label"), where)
    own = [labels.plain(cell) for cell in table["label"]]
    found = [(row, fault) for column in columns for row, fault in files.text_faults(table[column], column)]
    found += labels.faults(own, markers=kind != "classes" or blank)
    empty = {row for row, fault in found if blank and _is_blank(fault)}
    faults: dict[str, list[int]] = {}
    for row, fault in found:
        if row not in empty:
            faults.setdefault(fault, []).append(row + 1)
    remedy = "correct them or remove the rows"
    if all(map(_is_blank, faults)):
        remedy = "fill in or remove, or leave such rows out with drop='blank'"
        if any(fault.endswith(labels.STANDS_FOR_NONE) for fault in faults):
            remedy += ", or take the label as a class with kind='classes'"
    files.refuse(faults, where, remedy)
    if len(empty) == len(own):
        raise BeftError(f"{where} has no rows with a text and a label: add some")
    if empty:
        left_out = rows_named(sorted(row + 1 for row in empty))
        told.done.append(f"{count(len(empty), 'blank row')} left out ({left_out} of {where})")
    texts = list(zip(*(table[column] for column in columns), strict=True))
    mask = [row not in empty for row in range(len(own))]
    texts, own = list(itertools.compress(texts, mask)), list(itertools.compress(own, mask))
    return Rows(where, texts, own, list(itertools.compress(itertools.count(1), mask)), text_keys(texts))


def _is_blank(fault: str) -> bool:
    return fault.startswith("an empty") or fault.endswith(labels.STANDS_FOR_NONE)


def named(parts: Sequence[Rows], told: Told) -> list[Rows]:
    """The rows with names of classes as labels, spelled as is most frequent."""
    given, merged = labels.merged([list(map(str, part.labels)) for part in parts])
    told.done += merged
    return [replace(part, labels=own) for part, own in zip(parts, given, strict=True)]


def valued(parts: Sequence[Rows]) -> list[Rows]:
    """The rows with numbers as labels."""
    return [replace(part, labels=list(map(labels.value_of, part.labels))) for part in parts]


def without_repeats(parts: list[Rows], drop: bool, told: Told) -> list[Rows]:
    """The rows without, if `drop`, those that repeat a text with its label; of given splits, none is in both.

    What repeats, and which texts have several labels, is told.
    """
    if drop:
        read = sum(map(len, parts))
        parts = [_first_of_each(part) for part in parts]
        repeated = read - sum(map(len, parts))
        if repeated:
            told.done.append(f"{count(repeated, 'duplicate row')} left out")
    if len(parts) == 2:
        held_out = set(parts[1].keys)
        mask = [key not in held_out for key in parts[0].keys]
        if not any(mask):
            raise BeftError(f"every training row is among the validation rows of {parts[1].where}: give other rows")
        if not all(mask):
            both = f"{count(mask.count(False), 'training row')} that the validation rows have too left out of training"
            told.done.append(both)
            warnings.warn(f"{parts[0].where} and {parts[1].where} overlap: {both}", stacklevel=2)
            parts = [parts[0].kept(mask), parts[1]]
    keys = list(itertools.chain(*(part.keys for part in parts)))
    repeated = len(keys) - len(set(keys))
    if repeated:
        told.seen.append(f"{count(repeated, 'row')} with the text of another, on the same side as that")
        _tell_of_contradictions(parts, told)
    return parts


def _tell_of_contradictions(parts: Sequence[Rows], told: Told) -> None:
    """Tell of texts with several labels."""
    given: dict[Hashable, set[Any]] = {}
    for part in parts:
        for key, label in zip(part.keys, part.labels, strict=True):
            given.setdefault(key, set()).add(label)
    several = {key for key, own in given.items() if len(own) > 1}
    if several:
        places = [
            f"{rows_named(numbers)} of {part.where}"
            for part in parts
            if (numbers := [n for key, n in zip(part.keys, part.numbers, strict=True) if key in several])
        ]
        told.seen.append(f"{count(len(several), 'text')} with different labels ({' and '.join(places)})")


def _first_of_each(rows: Rows) -> Rows:
    """The rows whose texts and label no earlier row has."""
    first: dict[tuple[Hashable, Any], int] = {}
    for row, pair in enumerate(zip(rows.keys, rows.labels, strict=True)):
        first.setdefault(pair, row)
    kept = set(first.values())
    return rows.kept([row in kept for row in range(len(rows))])


def without_rare(parts: list[Rows], told: Told) -> list[Rows]:
    """The rows without classes of one training row, or of one text where the rows are to be cut.

    Raises BeftError where none are left.
    """
    counts = _own_texts(parts[0]) if len(parts) == 1 else Counter(parts[0].labels)
    rare = [name for name in dict.fromkeys(parts[0].labels) if counts[name] < 2]
    if rare:
        shown = ", ".join(map(labels.shown, rare[:SHOWN])) + (" and others" if len(rare) > SHOWN else "")
        masks = [[label not in rare for label in part.labels] for part in parts]
        rows = count(sum(mask.count(False) for mask in masks), "row")
        told.done.append(f"{count(len(rare), 'class', 'classes')} of one text left out ({shown}; {rows})")
        parts = [part.kept(mask) for part, mask in zip(parts, masks, strict=True)]
    if not all(map(len, parts)):
        raise BeftError("no class has two rows: add rows, or say kind='values' where labels are numbers")
    return parts


def _own_texts(rows: Rows) -> Counter[Any]:
    """How many texts are a class's own: one that has several labels counts for the rarest of them."""
    codes = {name: code for code, name in enumerate(dict.fromkeys(rows.labels))}
    _, unit_codes = units(np.array([codes[name] for name in rows.labels]), rows.keys)
    names = list(codes)
    return Counter(names[code] for code in unit_codes)


def count(number: int, one: str, several: str = "") -> str:
    """A number with what it counts: "1 row", "1,200 rows"."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
