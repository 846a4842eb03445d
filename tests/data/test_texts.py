"""Which columns of a table hold the texts to predict."""

from __future__ import annotations

import pandas as pd
import pytest

from beft.data.texts import rows_of

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


def test_numpys_texts_become_plain_ones():
    rows, _ = rows_of(pd.Series(["a"]).to_numpy(dtype="U1"))
    assert type(rows[0][0]) is str
