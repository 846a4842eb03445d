"""Which columns of a table hold the texts to predict."""

from __future__ import annotations

import pandas as pd
import pytest

from beft.data.texts import rows_of
from beft.errors import BeftError

TABLE = pd.DataFrame({"text": ["a"], "text_a": ["b"], "text_b": ["c"], "premise": ["d"], "hypothesis": ["e"]})


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        (None, ("b", "c")),
        (("text",), ("a",)),
        (("premise", "hypothesis"), ("d", "e")),
        (("hypothesis", "premise"), ("e", "d")),
        (("sentence",), ("a",)),
        (("word+sentence1", "word+sentence2"), ("b", "c")),
    ],
)
def test_the_columns_of_the_task_go_before_those_of_a_file(columns, row):
    assert rows_of(TABLE, columns) == ([row], False)


def test_a_prompt_of_three_columns_reads_tables_tuples_and_lists_of_them():
    columns = ("premise", "text", "hypothesis")
    assert rows_of(TABLE, columns, named=True) == ([("d", "a", "e")], False)
    assert rows_of(("d", "a", "e"), columns) == ([("d", "a", "e")], True)
    assert rows_of([("d", "a", "e"), ["f", "g", "h"]], columns).texts == [("d", "a", "e"), ("f", "g", "h")]
    with pytest.raises(BeftError, match="text 1 of 1 has 2 of the prompt's 3 texts: give a tuple of them, or a table"):
        rows_of([("d", "a")], columns)
    with pytest.raises(BeftError, match="the text has 1 of the prompt's 3 texts"):
        rows_of("d", columns)


def test_the_columns_of_a_prompt_are_not_replaced_by_others():
    with pytest.raises(BeftError, match="lacks the column 'title' and 'body'"):
        rows_of(TABLE, ("title", "body"), named=True)


def test_numpys_texts_become_plain_ones():
    rows, _ = rows_of(pd.Series(["a"]).to_numpy(dtype="U1"))
    assert type(rows[0][0]) is str
