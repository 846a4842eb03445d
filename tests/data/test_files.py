"""What pandas wrote comes back as it was."""

import csv
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_files import write_text

from beft.data import files
from beft.errors import BeftError, rows_named

# No lone surrogates, which UTF-8 cannot hold, and no zero bytes; marks that mean something to a reader are frequent.
CHARACTERS = st.one_of(st.sampled_from("\"\\,;\t\n\r'| ax"), st.characters(exclude_categories=("Cs",), min_codepoint=1))
TEXTS = st.text(CHARACTERS, min_size=1, max_size=8)
TABLES = st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from(["yes", "no", "a, b", 'so "so"'])), min_size=1, max_size=5)
SEPARATED = {".csv": ",", ".tsv": "\t", ".csv.gz": ",", ".tsv.gz": "\t", "semicolons.csv": ";"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


def _frame(table):
    return pd.DataFrame(table, columns=["text_a", "text_b", "label"])


def _columns(table):
    return dict(zip(("text_a", "text_b", "label"), map(list, zip(*table, strict=True)), strict=True))


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("name", SEPARATED)
@settings(max_examples=40)
@given(table=TABLES)
@example(table=[('"', "\\", "yes"), ('\\"', '"",', "no")])
def test_separated_text_of_pandas_comes_back(folder, name, quoting, table):
    if SEPARATED[name] == "\t":  # else each line of a text may be a row: a choice is to be made
        table = [(*(text.replace("\n", " ") for text in row[:2]), row[2]) for row in table]
    path = folder / f"a{name}"
    write_text(path, _frame(table).to_csv(index=False, sep=SEPARATED[name], quoting=quoting))
    assert files.read(path) == _columns(table)


@pytest.mark.parametrize("name", [".jsonl", ".json", "columns.json", ".jsonl.gz", ".json.gz", ".parquet"])
@settings(max_examples=30)
@given(table=TABLES)
def test_json_and_parquet_of_pandas_come_back(folder, name, table):
    path, frame = folder / f"a{name}", _frame(table)
    if name == ".parquet":
        frame.to_parquet(path)
    elif name == "columns.json":
        frame.to_json(path)
    else:
        frame.to_json(path, orient="records", lines=".jsonl" in name, compression="infer")
    assert files.read(path) == _columns(table)


@settings(max_examples=40)
@given(table=TABLES)
def test_fields_that_pandas_escapes_with_backslashes_come_back(folder, table):
    # Without a quotation mark in the file, two backslashes may be two.
    table = [tuple(text.replace("\\", "/") for text in row) for row in table]
    path = folder / "escaped.csv"
    _frame(table).to_csv(path, index=False, escapechar="\\", doublequote=False)
    assert files.read(path) == _columns(table)


def test_long_texts_and_many_columns_are_read(tmp_path):
    frame = pd.DataFrame({"text": ["x, " * 100_000, "y"], "label": ["a", "b"], **{f"c{i}": [1, 2] for i in range(50)}})
    frame.to_csv(tmp_path / "a.csv")
    assert files.read(tmp_path / "a.csv")["text"] == frame["text"].tolist()
    assert csv.field_size_limit() < 200_000  # the process's limit is as it was


def test_rows_that_are_too_short_are_filled_and_blank_lines_left_out(tmp_path):
    write_text(tmp_path / "a.csv", "\n text , label,notes\n\na,x\n   \nb,y,,\n")
    assert files.read(tmp_path / "a.csv") == {"text": ["a", "b"], "label": ["x", "y"], "notes": ["", ""]}


def test_rows_that_are_too_long_are_all_named(tmp_path):
    write_text(tmp_path / "a.csv", "text,label\na,x\nb, c,y\nd,x\ne, f,g,y\n")
    with pytest.raises(BeftError, match="rows 2 and 4 have more than 2 fields.* put texts with a comma into quotation"):
        files.read(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ('"a\tb"\tgood\n"c"\tbad\n', [("a\tb", "good"), ("c", "bad")]),  # delimiters: else there are three fields
        ('"a\nb"\tgood\n', [("a\nb", "good")]),  # delimiters: else a line has one field
        ('"a\tgood\nb"\tbad\n', [('"a', "good"), ('b"', "bad")]),  # text: each line is a row
        ('"a"\tgood\n"b\tbad\n"c" d\tbad\n', [('"a"', "good"), ('"b', "bad"), ('"c" d', "bad")]),
    ],
)
def test_quotation_marks_of_a_tsv_are_what_explains_its_rows(tmp_path, body, rows):
    table, remarks = files.read_told(Path(write_text(tmp_path / "a.tsv", "text\tlabel\n" + body)))
    assert list(zip(table["text"], table["label"], strict=True)) == rows
    assert remarks == (("quotation marks are text",) if any('"' in text for text, _ in rows) else ())


def test_marks_around_nearly_all_of_a_column_are_not_taken_for_text(tmp_path):
    body = "".join(f'"text {i}",good\n' for i in range(9))
    with pytest.raises(BeftError, match="the row that begins in line 11 neither ends a field nor is doubled"):
        files.read(Path(write_text(tmp_path / "a.csv", f'text,label\n{body}"te"xt",bad\n')))


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([4], "row 4"),
        ([4, 7], "rows 4 and 7"),
        (range(1, 11), "rows 1, 2, 3, 4, 5, 6, 7, 8, 9 and 10"),
        (range(1, 13), "rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more (12 in all)"),
    ],
)
def test_rows_are_named_up_to_ten(numbers, words):
    assert rows_named(numbers) == words
