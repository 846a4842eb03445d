"""Tables of text on disk: read as they are written; rows that cannot be used are named in an error."""

from __future__ import annotations

import csv
import json
import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BeftError, reason_of

if TYPE_CHECKING:
    import pandas

USER_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
Table = dict[str, list[Any]]  # column -> values, one per row


def read(path: Path, quoted: bool = True) -> Table:
    """The columns of a .csv, .tsv, .jsonl or .parquet file.

    Values stay as they are written: numbers, dates and missing values are not inferred ("NA" is an ordinary text).
    With `quoted`, quotation marks delimit the fields of a text file, else they are text. Raises BeftError for a file
    that cannot be read.
    """
    import pandas as pd

    try:
        if path.suffix.lower() == ".jsonl":
            return _read_jsonl(path)
        if path.suffix.lower() == ".parquet":
            return columns_of(pd.read_parquet(path))
        with warnings.catch_warnings():
            # pandas cuts rows that are longer than the header and only warns: refuse them
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path,
                sep="\t" if path.suffix.lower() == ".tsv" else ",",
                dtype=str,
                keep_default_na=False,
                index_col=False,
                quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
                encoding="utf-8-sig",
            )
        return columns_of(frame)
    except FileNotFoundError:
        raise BeftError(f"there is no file {str(path)!r}: check the path") from None
    except UnicodeDecodeError as error:
        raise BeftError(f"{path.name} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except pd.errors.EmptyDataError:
        raise BeftError(
            f"{path.name} is empty: it needs a line with the column names and one line for each row"
        ) from None
    except BeftError:
        raise
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        # pandas' ParserError and pyarrow's ArrowInvalid are ValueErrors
        raise BeftError(f"{path.name} cannot be read ({reason_of(error)}): repair it or save it anew") from error


def columns_of(frame: pandas.DataFrame) -> Table:
    """The columns of a data frame as lists of Python values, None for what is missing."""
    return {str(column): values.astype(object).where(values.notna(), None).tolist() for column, values in frame.items()}


def rows_of(table: Table) -> list[dict[str, Any]]:
    """The rows of a table, column -> value."""
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def _read_jsonl(path: Path) -> Table:
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise BeftError(
                    f"line {number} of {path.name} is not JSON ({error.msg}): repair or remove it"
                ) from None
            if not isinstance(row, dict):
                raise BeftError(f"line {number} of {path.name} is no JSON object: write it as {{column: value}}")
            rows.append(row)
    columns = dict.fromkeys(column for row in rows for column in row)
    return {column: [row.get(column) for row in rows] for column in columns}


def require_columns(table: Table, columns: tuple[str, ...], where: str) -> None:
    """Raise BeftError, which names the file as `where`, if one of the columns is missing."""
    missing = [repr(column) for column in columns if column not in table]
    if missing:
        present = ", ".join(map(repr, table)) or "none"
        raise BeftError(f"{where} lacks the column {' and '.join(missing)} (it has {present}): rename or add it")


def texts_of(table: Table, columns: tuple[str, ...], label: str, where: str) -> list[tuple[str, ...]]:
    """The texts of a table, one tuple per row.

    Raises BeftError, which names the file as `where`, for a missing column (the label's included), for no rows, and
    for a text that is missing or empty. Rows are counted from 1, without the line of column names.
    """
    if table:
        require_columns(table, (*columns, label), where)
    if not table or not table[label]:
        raise BeftError(f"{where} has no rows: add labelled rows to it")
    for column in columns:
        for row, text in enumerate(table[column], 1):
            here = f"row {row} of {where}"
            if _is_missing(text) or not str(text).strip():
                raise BeftError(f"{here} has an empty {column!r}: fill it in or remove the row")
            if not isinstance(text, str):
                raise BeftError(f"{here} has a {type(text).__name__} as {column!r}: write it as text")
            if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise BeftError(f"{here} has half a character (a lone surrogate) in {column!r}: repair it")
    return list(zip(*(table[column] for column in columns), strict=True))


def names_of(column: list[Any], where: str) -> list[str]:
    """A column of labels as names of classes: texts without surrounding spaces, or whole numbers.

    Raises BeftError, with the row, for an empty label or another number.
    """
    names = []
    for row, value in enumerate(column, 1):
        # Parquet returns whole numbers as floats where a cell of the column is empty.
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        name = "" if _is_missing(value) else str(value).strip()
        if not name:
            raise BeftError(f"row {row} of {where} has an empty label: fill it in or remove the row")
        if not isinstance(value, str | int):
            raise BeftError(f"row {row} of {where} has the label {name}: labels are names or whole numbers")
        names.append(name)
    return names


def are_values(column: list[Any]) -> bool:
    """Whether a column of labels is that of a regression: it has a finite number that is not whole."""
    return any(number is not None and not number.is_integer() for number in map(_number, column))


def values_of(column: list[Any], where: str) -> list[float]:
    """A column of labels as finite numbers. Raises BeftError, with the row, for any other label."""
    values = []
    for row, value in enumerate(column, 1):
        number = _number(value)
        if number is None:
            if _is_missing(value) or not str(value).strip():
                raise BeftError(f"row {row} of {where} has an empty label: fill it in or remove the row")
            raise BeftError(
                f"row {row} of {where} has the label {str(value)!r} where others are numbers: write it as a number, or "
                "all labels as names"
            )
        values.append(number)
    return values


def _number(value: Any) -> float | None:
    """The finite number in a label cell, also where it is written as text, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def class_names(names: Iterable[str]) -> tuple[str, ...]:
    """The different names in the order of their codes: numeric where all are whole numbers, else alphabetical."""
    different = sorted(set(names))
    return tuple(sorted(different, key=int) if all(map(is_whole, different)) else different)


def is_whole(name: str) -> bool:
    """Whether a name is a whole number."""
    return name.removeprefix("-").isdecimal()


def code_of(name: str, count: int) -> int | None:
    """The code 0..count - 1 that a label is, or None."""
    return int(name) if is_whole(name) and 0 <= int(name) < count else None
