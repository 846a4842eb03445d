"""Texts to predict, as users hand them in: one text or many, in whatever holds them, as rows of one or two texts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import BeftError
from .files import has_half_a_character
from .labels import number_as_text

PAIR = ("text_a", "text_b")


class Rows(NamedTuple):
    """Rows (N, columns) of texts. `single`: one text or one tuple of them was given, not a collection of one."""

    texts: list[tuple[str, ...]]
    single: bool


def rows_of(given: Any, columns: Sequence[str] | None = None, named: bool = False) -> Rows:
    """Rows of texts from one text, one pair, or a collection of either.

    A `str` is one text. A list, tuple, array, Series, generator or data set column has one text per item, and a pair is
    a tuple `(text_a, text_b)` in it. A DataFrame or data set has the texts in columns.

    Args:
        given: the texts.
        columns: the columns that the model was tuned on: one or two, of a prompt any number. Then its texts must be
            single or pairs as those were; of a model of pairs, a tuple of two texts is one pair, and a list of two
            texts in a collection is one too. None: not known, all rows must be alike, and a tuple of two texts is two
            texts.
        named: whether they are put into a prompt, which names its columns: a table must have these very ones, not
            `text`, or `text_a` and `text_b`, in their place, and numbers are texts, as in tuning.

    Raises BeftError: no texts, or an item that cannot be used, with its position counted from 1.
    """
    size = None if columns is None else len(columns)
    if getattr(given, "ndim", None) == 0 and hasattr(given, "item"):  # one text in an array
        given = given.item()
    if isinstance(given, str):
        return Rows([row_of(given, size, "the text", named)], True)
    if size not in (None, 1) and isinstance(given, tuple) and len(given) == size and not _nested(given):
        return Rows([row_of(given, size, "the pair" if size == 2 else "the tuple", named)], True)
    items = items_of(given, columns, named)
    if isinstance(given, tuple) and any(isinstance(item, list) for item in items):
        raise BeftError("a tuple of lists may be columns or rows: give a list with a text, or a pair of texts, per row")
    rows = [row_of(item, size, f"text {i} of {len(items)}", named) for i, item in enumerate(items, 1)]
    for i, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            kind = ("a single text", "a pair")[len(row) - 1]
            raise BeftError(
                f"text {i} of {len(rows)} is {kind} and text 1 is not: give single texts or pairs, not both"
            )
    return Rows(rows, False)


def _nested(given: tuple[Any, ...]) -> bool:
    return any(isinstance(item, tuple | list) for item in given)


def items_of(given: Any, columns: Sequence[str] | None = None, named: bool = False) -> list[Any]:
    """The items of a collection of texts, not looked at. Raises BeftError for what is no collection, or empty."""
    if not (items := _listed(given, columns, named)):
        raise BeftError("there are no texts to predict: give at least one")
    return items


def _listed(given: Any, columns: Sequence[str] | None, named: bool) -> list[Any]:
    if isinstance(given, Mapping | set | frozenset | bytes | bytearray) or not isinstance(given, Iterable):
        raise BeftError(
            f"cannot predict {_named(given)}: give a text or a list of texts, for a model of pairs a list of pairs "
            "(text_a, text_b)"
        )
    if (names := _column_names(given)) is not None:
        wanted = _wanted(names, columns, named)
        table = [list(given[name]) for name in wanted]  # type: ignore[index]
        return table[0] if len(table) == 1 else list(zip(*table, strict=True))
    if hasattr(given, "tolist") and hasattr(given, "ndim"):  # NumPy and pandas: rows of an array are no nested lists
        return [tuple(v) if given.ndim > 1 else v for v in given.tolist()]
    return list(given)


def _column_names(given: Any) -> list[Any] | None:
    """The names of the columns of a DataFrame (`columns`) or a data set (`column_names`); None for anything else."""
    for attribute in ("column_names", "columns"):
        if (names := getattr(given, attribute, None)) is not None and hasattr(given, "__getitem__"):
            return list(names)
    return None


def _wanted(names: list[Any], columns: Sequence[str] | None, named: bool) -> Sequence[str]:
    """The columns of a table that hold the texts: those that the model was tuned on, or `text`, `text_a`, `text_b`."""
    if columns is not None and set(columns) <= set(names):
        return columns
    pairs = bool(set(PAIR) & set(names)) if columns is None else len(columns) == 2
    usual: Sequence[str] = PAIR if pairs else ("text",)
    if named and columns is not None:
        usual = columns
    if missing := [name for name in usual if name not in names]:
        has = ", ".join(map(repr, names)) or "none"
        lacks = " and ".join(map(repr, missing))
        raise BeftError(f"the table lacks the column {lacks} (it has {has}): rename or add it, or give a list of texts")
    return usual


def row_of(item: Any, size: int | None, where: str, named: bool = False) -> tuple[str, ...]:
    """A row of `size` texts; of one or two where it is None. Raises BeftError for another.

    `named`: of a prompt, where a number is the text that it was in tuning.
    """
    if isinstance(item, list) and not (size not in (None, 1) and len(item) == size):
        raise BeftError(f"{where} is {_named(item)}: give texts in one flat list, a pair as a tuple (text_a, text_b)")
    parts = tuple(item) if isinstance(item, tuple | list) else (item,)
    parts = tuple(map(number_as_text, parts)) if named else parts
    if size is not None and size > 2 and len(parts) != size:
        raise BeftError(f"{where} has {len(parts)} of the prompt's {size} texts: give a tuple of them, or a table")
    if len(parts) not in (1, 2, size):
        raise BeftError(f"{where} has {len(parts)} parts: give a text, or a pair (text_a, text_b)")
    for part in parts:
        _check(part, where if len(parts) == 1 else f"a part of {where}")
    if size is not None and len(parts) != size:
        needs = "pairs: give (text_a, text_b)" if size == 2 else "single texts: give one text for each answer"
        raise BeftError(f"{where} is {'a pair' if len(parts) == 2 else 'a single text'}, and the model reads {needs}")
    return tuple(map(str, parts))


def _check(text: Any, where: str) -> None:
    """Raise BeftError for what is no text, or one without a letter."""
    if not isinstance(text, str):
        raise BeftError(f"{where} is {_named(text)}: give it as text or leave it out")
    if not text.strip():
        raise BeftError(f"{where} is empty: fill it in or leave it out")
    if has_half_a_character(text):
        raise BeftError(f"{where} has half a character (a lone surrogate): repair it")


def _named(value: Any) -> str:
    """What a value is, in words: "missing (nan)", "a list of 3", "a float (3.5)"."""
    if value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value):
        return f"missing ({value})"
    kind = type(value).__name__
    article = "an" if kind[0].lower() in "aeiou" else "a"
    if isinstance(value, list | tuple | set | frozenset | Mapping):
        return f"{article} {kind} of {len(value)}"
    if isinstance(value, bytes | bytearray):
        return f"{kind}, not decoded"
    return f"{article} {kind} ({value})" if isinstance(value, int | float) else f"{article} {kind}"
