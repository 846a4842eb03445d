"""Labels of one's own rows: what stands for a missing one, classes or values, and which spellings mean the same."""

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from ..errors import BeftError, rows_named
from .files import has_half_a_character, is_missing, number_of

KINDS = ("classes", "values")
# The spellings that pandas reads as a missing value. "none" is not one of them: it is a class in many data sets.
MISSING = frozenset(
    "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null".split("|")
)
STANDS_FOR_NONE = "which stands for a missing one"
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
_EITHER = "say kind='values' or kind='classes'"


class Column(NamedTuple):
    """Plain labels, and the row of each, counted from 1, of a file or data frame `where`."""

    labels: Sequence[Any]
    rows: Sequence[int]
    where: str


def plain(value: Any) -> Any:
    """A cell as a value of Python: texts without surrounding spaces, whole numbers as int, None for nothing."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return None if is_missing(value) else value


def number_as_text(cell: Any) -> Any:
    """A number as it is written, whole ones without a point; any other cell as it is."""
    own = plain(cell) if not isinstance(cell, str) else cell
    return str(own) if isinstance(own, int | float) and not isinstance(own, bool) else cell


def faults(labels: Sequence[Any], markers: bool) -> list[tuple[int, str]]:
    """Indices of the plain labels that cannot be used, with what they are.

    With `markers`, the texts in MISSING stand for a missing label.
    """
    return [(row, fault) for row, label in enumerate(labels) if (fault := _fault(label, markers))]


def _fault(label: Any, markers: bool) -> str:
    if label is None:
        return "an empty label"
    if isinstance(label, str):
        if markers and label in MISSING:
            return f"the label {label!r}, {STANDS_FOR_NONE}"
        half = not label.isascii() and has_half_a_character(label)
        return "half a character (a lone surrogate) in the label" if half else ""
    if not isinstance(label, int | float):
        return f"a {type(label).__name__} as label"
    return f"the label {label}" if isinstance(label, float) and number_of(label) is None else ""


def kind_of(columns: Sequence[Column], kind: str | None) -> str:
    """The kind "classes" or "values", whichever labels that have no fault are; `kind` decides where it is given.

    Names or whole numbers are classes; numbers of which more than one, and more than a tenth, are not whole are values.
    Raises BeftError, with the rows, for fewer such numbers; decimal commas where all labels may be numbers; names
    beside numbers that are not whole; and with the kind "values", labels that are no numbers, or may have a comma for
    thousands.
    """
    if kind == "classes":
        return kind
    rows = Counter((type(label), label) for column in columns for label in column.labels)  # True is no 1
    forms = {one: _form(one[1]) for one in rows}
    counts: Counter[str] = Counter()
    for one, count in rows.items():
        counts[forms[one]] += count

    def refused(form: str, what: str, remedy: str) -> BeftError:
        faulty = [(label, row, where) for labels, rows, where in columns for label, row in zip(labels, rows)]
        return _refused([one for one in faulty if forms[type(one[0]), one[0]] == form], what, remedy)

    if counts["name"] and (counts["broken"] or kind == "values"):
        raise refused("name", "where others are numbers", "write numbers alone, or say kind='classes'")
    if kind == "values":
        commas = [label for (_, label), form in forms.items() if form == "comma"]
        if commas and (counts["broken"] or all(map(_THOUSANDS.fullmatch, commas))):
            raise refused("comma", "whose comma may stand for thousands", "write numbers with a point for decimals")
        return kind
    if counts["comma"] and not counts["name"]:
        raise refused("comma", "with a decimal comma", f"write a point, or {_EITHER}")
    if not counts["broken"]:
        return "classes"
    if counts["broken"] == 1 or 10 * counts["broken"] <= counts.total():
        raise refused("broken", "where nearly all are whole numbers", f"correct that, or {_EITHER}")
    return "values"


def _form(label: Any) -> str:
    """A label as a "whole" number, a "broken" one, one with a "comma", or a "name"."""
    number = number_of(label)
    if number is not None:
        return "whole" if number.is_integer() else "broken"
    return "comma" if isinstance(label, str) and _DECIMAL_COMMA.fullmatch(label) else "name"


def value_of(label: Any) -> float:
    """A label of the kind "values" as a number."""
    return float(label.replace(",", ".") if isinstance(label, str) else label)


def spellings(counts: Counter[str]) -> dict[str, str]:
    """For each name in counts of them the most frequent one that means the same, the first of them where several are.

    Names mean the same that differ in case alone, and numbers of one value ("1", "1.0").
    """
    alike: dict[Hashable, list[str]] = {}
    for name in counts:
        alike.setdefault(meaning(name), []).append(name)
    return {name: max(same, key=counts.__getitem__) for same in alike.values() for name in same}


def merged(columns: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[str]]:
    """Columns of names, each name spelled as is most frequent in all of them; and what was merged, in words."""
    counts = Counter(itertools.chain(*columns))
    names = spellings(counts)
    told = []
    for common in dict.fromkeys(name for spelled, name in names.items() if spelled != name):
        others = [f"{shown(name)} ({counts[name]:,})" for name in names if names[name] == common != name]
        told.append(f"{' and '.join(others)} counted as {shown(common)}")
    return [[names[name] for name in column] for column in columns], told


def shown(name: str) -> str:
    """A name for a line of text: as it is where it is printable and has no comma or bracket, else quoted."""
    return name if name.isprintable() and not set(name) & set(",;()") else repr(name)


def meaning(name: str) -> Hashable:
    """What names that mean the same have in common, see `spellings`."""
    if number_of(name) is None or len(name) > 40:  # longer numbers mean the same only where they are written so
        return unicodedata.normalize("NFC", name).casefold()
    return Decimal(name)


def _refused(faulty: Sequence[tuple[Any, int, str]], what: str, remedy: str) -> BeftError:
    """The error for (label, row, where) of some rows."""
    rows: dict[str, list[int]] = {}
    for _, row, where in faulty:
        rows.setdefault(where, []).append(row)
    places = " and ".join(f"{rows_named(own)} of {where}" for where, own in rows.items())
    shown = list(dict.fromkeys(repr(str(label)) for label, _, _ in faulty))
    values = ", ".join(shown[:3]) + (" and others" if len(shown) > 3 else "")
    return BeftError(f"{places} {'has' if len(faulty) == 1 else 'have'} the label {values} {what}: {remedy}")
