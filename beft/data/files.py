"""Tables of text on disk: read as they are written; rows that cannot be used are named in an error."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BeftError, brief, reason_of, rows_named
from .delimited import parse

if TYPE_CHECKING:
    import pandas

_PACKED = ".gz"
_TEXTS = (".csv", ".tsv", ".jsonl", ".json")
USER_SUFFIXES = (*_TEXTS, ".parquet", *(suffix + _PACKED for suffix in _TEXTS))
_BYTE_ORDER_MARKS = {  # the longer ones first: that of UTF-32 begins with that of UTF-16
    b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}  # fmt: skip
_REMEDIES = {
    "save the sheet as .csv (UTF-8)": (".xlsx", ".xls", ".xlsm", ".ods", ".numbers"),
    "unpack it first": (".zip", ".bz2", ".xz", ".zst", ".7z", ".tar", ".tgz", ".rar", ".gz"),
    "write it with pandas' to_parquet": (".feather", ".arrow", ".pkl", ".pickle", ".dta", ".sav", ".h5", ".orc"),
    "write its rows as .csv or .jsonl with the columns text and label": (".txt", ".text", ".dat", ".tab", ".xml"),
}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
Table = dict[str, list[Any]]  # column -> values, one per row


def suffix_of(path: Path) -> str:
    """The one of USER_SUFFIXES in which a file's name ends, in lower case (".csv.gz"), or ""."""
    name = path.name.lower()
    return next((suffix for suffix in USER_SUFFIXES if name.endswith(suffix) and name != suffix), "")


def require_suffix(path: Path, refusal: str) -> None:
    """Raise BeftError, which begins with `refusal`, for a name that does not end in one of USER_SUFFIXES."""
    if suffix_of(path):
        return
    remedy = next((f": {remedy}" for remedy, those in _REMEDIES.items() if path.name.lower().endswith(those)), "")
    kinds = ", ".join((*_TEXTS, ".parquet"))
    raise BeftError(f"{refusal}: a data file must end in {kinds}, all but the last also with {_PACKED}{remedy}")


def read(path: Path, quoted: bool = True) -> Table:
    """The columns of a file of one of USER_SUFFIXES; see `read_told`. Raises BeftError for one that cannot be read."""
    return read_told(path, quoted)[0]


def read_told(path: Path, quoted: bool = True) -> tuple[Table, tuple[str, ...]]:
    """The columns of a file, and what of it was not read in the usual way, in words.

    Values stay as they are written: numbers, dates and missing values are not inferred ("NA" is an ordinary text).
    Text is UTF-8, or UTF-16 or UTF-32 with a byte order mark. Separated text is read as `delimited.parse` says, with
    `quoted` as there. JSON is a list of objects, an object of columns, or an object per line.

    Raises BeftError for a file that cannot be read or has two columns of one name.
    """
    suffix = suffix_of(path)
    try:
        if suffix == ".parquet":
            return _read_parquet(path), ()
        text = _text(path, path.read_bytes())
        if suffix.removesuffix(_PACKED) == ".jsonl":
            return _table(_json_lines(text, path.name)), ()
        if suffix.removesuffix(_PACKED) == ".json":
            return _read_json(text, path.name), ()
        grid = parse(text, "\t" if suffix.removesuffix(_PACKED) == ".tsv" else ",", path.name, quoted)
    except FileNotFoundError:
        raise BeftError(f"there is no file {str(path)!r}: check the path") from None
    except BeftError:
        raise
    except RecursionError:
        raise BeftError(f"{path.name} cannot be read (too many levels of JSON): write one object per row") from None
    except (OSError, ValueError, EOFError, zlib.error) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise BeftError(f"{path.name} cannot be read ({reason_of(error)}): repair it or save it anew") from error
    refuse_repeated(grid.header, path.name)
    columns = zip(*grid.rows, strict=True) if grid.rows else ([] for _ in grid.header)
    return dict(zip(grid.header, map(list, columns), strict=True)), grid.remarks


def _text(path: Path, content: bytes) -> str:
    """The text in the bytes of a file. Raises BeftError for another encoding and for zero bytes."""
    packed = content.startswith(b"\x1f\x8b")
    if packed != path.name.lower().endswith(_PACKED):
        is_it = f"is packed with gzip: let its name end in {_PACKED}" if packed else "is not packed: leave .gz out"
        raise BeftError(f"{path.name} {is_it}")
    content = gzip.decompress(content) if packed else content
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        is_not = "UTF-8" if encoding.startswith("utf-8") else f"the {encoding.upper()} that its first bytes say"
        raise BeftError(f"{path.name} is not {is_not} (byte {error.start}): save it as UTF-8") from None
    if "\0" in text:
        line, count = text.count("\n", 0, text.index("\0")) + 1, text.count("\0")
        likely = "is UTF-16 without a byte order mark" if 4 * count > len(text) else f"has a zero byte in line {line}"
        raise BeftError(f"{path.name} {likely}: save it as UTF-8")
    return text


def refuse_repeated(columns: Iterable[str], where: str) -> None:
    """Raise BeftError if two columns have one name; columns without a name do not matter."""
    names = list(columns)
    repeated = [repr(name) for name in dict.fromkeys(names) if name and names.count(name) > 1]
    if repeated:
        raise BeftError(f"{where} has more than one column {' and '.join(repeated)}: rename or remove all but one")


def _read_parquet(path: Path) -> Table:
    import pandas as pd
    from pyarrow import parquet

    if not path.is_dir():  # a folder holds the parts of one table
        refuse_repeated(parquet.read_schema(path).names, path.name)
    return columns_of(pd.read_parquet(path))


def columns_of(frame: pandas.DataFrame) -> Table:
    """The columns of a data frame as lists of Python values, None for what is missing."""
    return {str(column): values.astype(object).where(values.notna(), None).tolist() for column, values in frame.items()}


def rows_of(table: Table) -> list[dict[str, Any]]:
    """The rows of a table, column -> value."""
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def _table(rows: list[dict[str, Any]]) -> Table:
    columns = dict.fromkeys(column for row in rows for column in row)
    return {column: [row.get(column) for row in rows] for column in columns}


def _json_lines(text: str, where: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if not line.strip():
            continue
        row = _json(line, f"line {number} of {where}")
        if not isinstance(row, dict):
            raise BeftError(f"line {number} of {where} is no JSON object: write it as {{column: value}}")
        rows.append(row)
    return rows


def _read_json(text: str, where: str) -> Table:
    """Rows as a list of objects, columns as an object of lists or of objects, or an object per line."""
    first = list(itertools.islice(filter(None, map(str.strip, io.StringIO(text))), 2))
    if len(first) == 2 and all(line[0] == "{" and line[-1] == "}" for line in first):
        return _table(_json_lines(text, where))
    content = _json(text, where)
    if isinstance(content, dict):
        # pandas writes an object of rows by their number for each column
        numbers = [list(own) for own in content.values() if isinstance(own, dict)]
        columns = [list(own.values()) if isinstance(own, dict) else own for own in content.values()]
        even = columns and all(isinstance(own, list) and len(own) == len(columns[0]) for own in columns)
        if even and all(own == numbers[0] for own in numbers):
            return dict(zip(content, columns, strict=True))
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise BeftError(f"{where} is no list of JSON objects: write it as [{{column: value}}, ...], or as .jsonl")
    return _table(content)


class _Repeated(Exception):
    """A JSON object that has a name twice; carries its names."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise _Repeated([name for name, _ in pairs])
    return content


_JSON = json.JSONDecoder(object_pairs_hook=_object)


def _json(text: str, where: str) -> Any:
    """The content of JSON. Raises BeftError for anything else, and for an object that has a name twice."""
    try:
        content = json.loads(text)
        if isinstance(content, dict) and text.count(":") == len(content):
            return content  # each name has its colon, so that none is there twice
        return _JSON.decode(text)
    except json.JSONDecodeError as error:
        raise BeftError(f"{where} is not JSON ({error.msg}): repair or remove it") from None
    except RecursionError:
        raise BeftError(f"{where} is JSON nested too deep: write it as {{column: value}}") from None
    except _Repeated as error:
        (names,) = error.args
        refuse_repeated(names, where)


def file_of(path: Any) -> Path:
    """The path of a file by its name. Raises BeftError for what is none."""
    try:
        return Path(path).expanduser()
    except (TypeError, ValueError, RuntimeError) as error:  # no text, no such user
        raise BeftError(f"{brief(path)} is no path: give that of a file, as text") from error


def require_columns(table: Table, columns: tuple[str, ...], where: str) -> None:
    """Raise BeftError, which names the file as `where`, if one of the columns is missing."""
    missing = [repr(column) for column in columns if column not in table]
    if missing:
        present = ", ".join(map(repr, itertools.islice(table, 20))) or "none"
        present += f" and {len(table) - 20} more" if len(table) > 20 else ""
        raise BeftError(f"{where} lacks the column {' and '.join(missing)} (it has {present}): rename or add it")


def texts_of(table: Table, columns: tuple[str, ...], label: str, where: str) -> list[tuple[str, ...]]:
    """The texts of a table, one tuple per row.

    Raises BeftError, which names the file as `where`, for a missing column (the label's included), for no rows, and
    for texts that are missing, empty or unusable. Rows are counted from 1, without the line of column names.
    """
    require_rows(table, (*columns, label), where)
    faults: dict[str, list[int]] = {}
    for column in columns:
        for row, fault in text_faults(table[column], column):
            faults.setdefault(fault, []).append(row + 1)
    refuse(faults, where)
    return list(zip(*(table[column] for column in columns), strict=True))


def require_rows(table: Table, columns: tuple[str, ...], where: str) -> None:
    """Raise BeftError, which names the file as `where`, if one of the columns is missing, or there are no rows."""
    if table:
        require_columns(table, columns, where)
    if not table or not table[columns[0]]:
        raise BeftError(f"{where} has no rows: add labelled rows to it")


def text_faults(cells: Sequence[Any], column: str) -> Iterator[tuple[int, str]]:
    """Indices of the cells that are no text to use, with what they are; "an empty ..." can be filled in."""
    for row, text in enumerate(cells):
        if isinstance(text, str) and text.isascii() and not text.isspace() and text:
            continue
        if is_missing(text) or not str(text).strip():
            yield row, f"an empty {column!r}"
        elif not isinstance(text, str):
            yield row, f"a {type(text).__name__} as {column!r}, which must be text"
        elif has_half_a_character(text):
            yield row, f"half a character (a lone surrogate) in {column!r}"


def has_half_a_character(text: str) -> bool:
    """Whether a text has a lone surrogate, which cannot be written as UTF-8."""
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)


def refuse(faults: Mapping[str, list[int]], where: str, remedy: str = "") -> None:
    """Raise BeftError if there are faults, in words with their rows; by default with the remedy to mend the rows."""
    if not faults:
        return
    sentences = [
        f"{rows_named(rows)} of {where} {'has' if len(rows) == 1 else 'have'} {fault}" for fault, rows in faults.items()
    ]
    one = sum(map(len, faults.values())) == 1
    remedy = remedy or f"fill {'it' if one else 'them'} in or remove the row{'' if one else 's'}"
    raise BeftError(f"{', and '.join(sentences)}: {remedy}")


def names_of(column: list[Any], where: str) -> list[str]:
    """A column of labels as names of classes: texts without surrounding spaces, or whole numbers.

    Raises BeftError, with the rows, for an empty label or another number.
    """
    names: list[str] = []
    empty, other = [], []
    for row, value in enumerate(column, 1):
        # Parquet returns whole numbers as floats where a cell of the column is empty.
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        names.append("" if is_missing(value) else str(value).strip())
        if not names[-1]:
            empty.append(row)
        elif not isinstance(value, str | int):
            other.append(row)
    refuse({"an empty label": empty} if empty else {}, where)
    if other:
        fault = f"the label {names[other[0] - 1]}" + (" or another such" if len(other) > 1 else "")
        refuse({fault: other}, where, "labels are names or whole numbers")
    return names


def values_of(column: list[Any], where: str) -> list[float]:
    """A column of labels as finite numbers. Raises BeftError, with the rows, for any other label."""
    values = list(map(number_of, column))
    wrong = [row for row, number in enumerate(values, 1) if number is None]
    empty = [row for row in wrong if is_missing(column[row - 1]) or not str(column[row - 1]).strip()]
    refuse({"an empty label": empty} if empty else {}, where)
    if wrong:
        fault = f"the label {str(column[wrong[0] - 1])!r}" + (" or another name" if len(wrong) > 1 else "")
        remedy = "write numbers alone, or all labels as names"
        refuse({f"{fault} where others are numbers": wrong}, where, remedy)
    return [number for number in values if number is not None]


def number_of(value: Any) -> float | None:
    """The finite number in a label cell, also where it is written as text, or None."""
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing."""
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
