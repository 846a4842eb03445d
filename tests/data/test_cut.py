"""The cut of one's own rows is fixed, and no text is on both sides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_files import write

from beft.data.cut import classes, cut, text_keys
from beft.data.sources import load
from beft.errors import BeftError


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 1))
def test_different_texts_are_cut_by_the_permutation_of_each_class(codes, least):
    codes = np.array(codes)
    expected = np.zeros(len(codes), dtype=bool)
    for code in np.unique(codes):
        rows = np.random.RandomState(0).permutation(np.flatnonzero(codes == code))
        expected[rows[: max(least, round(0.2 * len(rows)))]] = True
    np.testing.assert_array_equal(cut(codes, list(range(len(codes))), least), expected)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), min_size=1, max_size=60))
def test_a_text_is_on_one_side_and_each_class_on_both_or_the_rows_are_refused(rows):
    names, keys = zip(*rows, strict=True)
    try:
        codes, found, held_out = classes(names, keys, "a.csv")
    except BeftError as error:
        assert "a single row" in str(error) or "at least two classes" in str(error)
        return
    sides = {key: {side for other, side in zip(keys, held_out, strict=True) if other == key} for key in keys}
    assert all(len(side) == 1 for side in sides.values())
    for code in range(len(found)):
        assert set(held_out[codes == code].tolist()) == {True, False}


def test_a_text_that_is_repeated_often_does_not_fill_the_validation_split():
    keys = [0] * 60 + list(range(1, 41))
    held_out = cut(np.zeros(100), keys, least=1)
    assert held_out.sum() == 20 and not held_out[:60].any()
    assert cut(np.zeros(10), [0] * 7 + [1] * 3, least=1).tolist() == [False] * 7 + [True] * 3


def test_texts_that_differ_in_spaces_alone_are_the_same():
    assert text_keys([("a  b ",), ("a b",), ("A b",)]) == ["a b", "a b", "A b"]
    assert len(set(text_keys([("a", "b c"), ("a ", "b  c"), ("a b", "c")]))) == 2


@pytest.mark.parametrize(
    ("name", "rows", "fingerprint"),
    [
        ("a.csv", [{"text": f'row {i}, "{i * 7 % 5}"', "label": ["no", "yes", "maybe"][i * i % 3]} for i in range(50)],
         "000aec660fa08891"),
        ("b.tsv", [{"text_a": f"a {i}", "text_b": f"b {i}", "label": i / 4} for i in range(50)], "2643fc48ca92bd67"),
    ],
)  # fmt: skip
def test_rows_that_have_records_keep_their_fingerprint(tmp_path, name, rows, fingerprint):
    assert load(write(tmp_path / name, rows)).fingerprint == fingerprint
