"""Text with separators: which separator, and what quotation marks and backslashes mean, by the evidence of the file."""

import csv
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from ..errors import BeftError, rows_named

NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_MARKS = range(0xE000, 0xF8FF)  # Unicode's private use area: characters that stand in for others while fields are cut


@dataclass(frozen=True)
class Grid:
    """Fields as text.

    Attributes:
        header: the names of the columns.
        rows: as many fields per row as there are columns.
        remarks: what was not read in the usual way, in words.
    """

    header: list[str]
    rows: list[list[str]]
    remarks: tuple[str, ...] = ()


class _BadQuotes(Exception):
    """A quotation mark that is neither text nor a delimiter; carries the line in which its row begins."""


def parse(text: str, separator: str, where: str, quoted: bool = True) -> Grid:
    """The fields of a text whose first line names the columns.

    Another separator is used where the first line lacks the usual one and has exactly one other. Quotation marks
    delimit fields, and are doubled inside, where that explains every row; or a backslash before them makes them text,
    where that does; else they are text. Where all lines of a tab-separated text are rows by themselves, no field goes
    over several of them. Without `quoted` they are always text.

    Raises BeftError, which names the text as `where`, for no column names, rows with more fields than there are
    columns, and quotation marks that no rule explains.
    """
    if "\n" not in text:
        text = text.replace("\r", "\n")
    head = re.search(r"^.*\S.*$", text, re.MULTILINE)
    if head is None:
        raise BeftError(f"{where} is empty: it needs a line with the column names and one line for each row")
    others = [other for other in NAMES if other in head[0]]
    remarks: tuple[str, ...] = ()
    if quoted and separator not in head[0] and len(others) == 1:
        (separator,) = others
        remarks = (f"a {NAMES[separator]} separates the columns",)
    rows, how = _cut(text, separator, where) if quoted else (_fields(text, separator, quoted=False), ())
    header, rows = [name.strip() for name in rows[0]], rows[1:]
    return Grid(header, _filled(header, rows, separator, where), remarks + how)


def _cut(text: str, separator: str, where: str) -> tuple[list[list[str]], tuple[str, ...]]:
    """The rows, that of the column names first, and what is remarkable about quotation marks."""
    delimited: list[list[str]] = []
    wrong = ""
    try:
        delimited = _fields(text, separator)
    except _BadQuotes as error:
        wrong = str(error)
    fits = bool(delimited) and _regular(delimited)
    if re.search(rf'\\["\\{separator}]', text) and not (fits and _are_doubled(delimited, text, separator)):
        try:
            escaped = _fields(text, separator, escaped=True)
            if _regular(escaped):
                return escaped, ("backslashes before quotation marks are taken out",)
        except _BadQuotes:
            pass
    if fits:
        if separator == "\t" and any("\n" in field for row in delimited for field in row):
            literal = _fields(text, separator, quoted=False)
            if _regular(literal) and not _encloses(literal):
                return literal, ("quotation marks are text",)
        return delimited, ()
    literal = _fields(text, separator, quoted=False)
    if '"' in text and _regular(literal) and not _encloses(literal):
        return literal, ("quotation marks are text",)
    if not delimited:
        raise BeftError(
            f"{where} cannot be read: a quotation mark in the row that begins in line {wrong} neither ends a field nor "
            "is doubled: write it twice inside quoted fields, or save the rows as .jsonl"
        )
    return delimited, ()


def _fields(text: str, separator: str, quoted: bool = True, escaped: bool = False) -> list[list[str]]:
    """The fields of all rows but blank lines. Raises _BadQuotes where quotation marks do not delimit whole fields."""
    stands_for: dict[str, str] = {}

    def hide(found: re.Match[str]) -> str:
        """A character that has no meaning, in place of one that is text here but would have some."""
        character = found[0][-1]
        if character not in stands_for.values():
            stands_for[next(c for c in map(chr, _MARKS) if c not in text and c not in stands_for)] = character
        return next(mark for mark, meant in stands_for.items() if meant == character)

    text = re.sub(r"\r(?!\n)", hide, text)
    if escaped:
        text = re.sub(rf'\\["\\\n{separator}]', hide, text)
    lines = io.StringIO(text, newline="")
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(lines, delimiter=separator, quoting=quoting, strict=True)
    rows, line = [], 1
    with _any_length():
        try:
            for row in reader:
                if row and (len(row) > 1 or not row[0] or row[0].strip()):
                    rows.append(row)
                line = reader.line_num + 1
        except csv.Error:
            raise _BadQuotes(str(line)) from None
    if stands_for:
        back = str.maketrans(stands_for)
        rows = [[field.translate(back) for field in row] for row in rows]
    return rows


@contextmanager
def _any_length() -> Iterator[None]:
    """Fields of more than 131,072 characters, the default limit of `csv`."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _regular(rows: list[list[str]]) -> bool:
    """Whether every row has a field for each column."""
    return all(len(row) == len(rows[0]) for row in rows)


def _are_doubled(rows: list[list[str]], text: str, separator: str) -> bool:
    """Whether each quotation mark after a backslash ends a field or is doubled, so that the backslash is text."""
    if re.search(rf'\\"[^"\r\n{separator}]', text):
        return False
    return sum(field.count('\\"') for row in rows for field in row) <= text.count('\\""')


def _encloses(rows: list[list[str]]) -> bool:
    """Whether quotation marks, read as text, look like delimiters after all: around most of a column, or doubled."""
    for name, *column in zip(*rows, strict=True):
        enclosed = [field for field in column if len(field) > 1 and field[0] == field[-1] == '"']
        if name.startswith('"') or 2 * len(enclosed) > len(column) or any('""' in field[1:-1] for field in enclosed):
            return True
    return False


def _filled(header: list[str], rows: list[list[str]], separator: str, where: str) -> list[list[str]]:
    """Rows with as many fields as columns: empty ones are added to short rows, and empty ones too many taken off."""
    width = len(header)
    long = [number for number, row in enumerate(rows, 1) if any(row[width:])]
    if long:
        raise BeftError(
            f"{where} cannot be read: {rows_named(long)} {'has' if len(long) == 1 else 'have'} more than {width} "
            f"fields, as many as there are column names: put texts with a {NAMES[separator]} into quotation marks"
        )
    return [row if len(row) == width else row[:width] + [""] * (width - len(row)) for row in rows]
