"""Predicting one text or many: one text has one answer, a collection has as many answers as texts, in their order, and
whatever is neither is refused in one sentence that says which item is at fault.
"""

from __future__ import annotations

import math
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest

import beft
from beft.models.files import TINY

TEXTS = ["the clock was slow and loud", "nobody liked it", "a good film"]
PAIRS = [("the door was shut", "it was open"), ("a cup", "a glass"), ("a", "b")]


def tuned_on(folder: Path, header: str, start: str) -> beft.Tuned:
    lines = [f"{start} {i},{['bad', 'good', 'mixed'][i % 3]}" for i in range(24)]
    path = folder / "rows.csv"
    path.write_text(f"{header},label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return beft.tune(path, model=TINY, epochs=1, rate=1e-2, offline=True, progress=False)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> beft.Tuned:
    return tuned_on(tmp_path_factory.mktemp("single"), "text", "the film was good or bad")


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> beft.Tuned:
    return tuned_on(tmp_path_factory.mktemp("pairs"), "text_a,text_b", "the door was shut,it was open")


def test_one_text_has_one_answer(single: beft.Tuned) -> None:
    answer = single.predict(TEXTS[0])
    assert isinstance(answer, str) and [answer] == single.predict(TEXTS[:1])
    every = beft.predict(single.model, single.tokenizer, TEXTS)
    for text, row in zip(TEXTS, every):
        assert beft.predict(single.model, single.tokenizer, text) == pytest.approx(row, abs=1e-6)
        assert single.probabilities(text) == pytest.approx(row, abs=1e-6)


def test_one_pair_has_one_answer(paired: beft.Tuned) -> None:
    answer = paired.predict(PAIRS[0])
    assert isinstance(answer, str) and [answer] == paired.predict(PAIRS[:1])


MANY = {
    "list": TEXTS,
    "tuple": tuple(TEXTS),
    "array": np.array(TEXTS),
    "array of objects": np.array(TEXTS, dtype=object),
    "series": pd.Series(TEXTS, index=[7, 3, 5]),
    "text series": pd.Series(TEXTS, dtype="string"),
    "frame": pd.DataFrame({"label": ["x", "y", "z"], "text": TEXTS}),
    "column": datasets.Dataset.from_dict({"text": TEXTS})["text"],
    "data set": datasets.Dataset.from_dict({"text": TEXTS, "number": [1, 2, 3]}),
    "rows": [(text,) for text in TEXTS],
}


@pytest.mark.parametrize("texts", MANY.values(), ids=MANY)
def test_a_collection_has_as_many_answers_in_order(single: beft.Tuned, texts: object) -> None:
    expected = np.stack([single.probabilities(text) for text in TEXTS])
    assert single.predict(texts) == [single.predict(text) for text in TEXTS]
    assert single.probabilities(texts) == pytest.approx(expected, abs=1e-6)
    assert beft.predict(single.model, single.tokenizer, texts) == pytest.approx(expected, abs=1e-6)


def test_a_generator_has_as_many_answers(single: beft.Tuned, paired: beft.Tuned) -> None:
    assert single.predict(text for text in TEXTS) == single.predict(TEXTS)
    assert paired.predict(zip(*zip(*PAIRS))) == paired.predict(PAIRS)


def test_two_texts_in_a_tuple_are_one_pair_for_a_model_of_pairs_and_else_two_texts(
    single: beft.Tuned, paired: beft.Tuned
) -> None:
    two = (TEXTS[0], TEXTS[1])
    assert single.predict(two) == single.predict(list(two))
    assert isinstance(paired.predict(two), str)
    assert len(beft.predict(single.model, single.tokenizer, two)) == 2, "without the task it is a collection"


PAIRED = {
    "lists": [list(pair) for pair in PAIRS],
    "array": np.array(PAIRS),
    "series": pd.Series(PAIRS),
    "frame": pd.DataFrame(PAIRS, columns=["text_a", "text_b"]),
    "frame in another order": pd.DataFrame([pair[::-1] for pair in PAIRS], columns=["text_b", "text_a"]),
}


@pytest.mark.parametrize("pairs", PAIRED.values(), ids=PAIRED)
def test_a_collection_of_pairs_has_as_many_answers_in_order(paired: beft.Tuned, pairs: object) -> None:
    assert paired.probabilities(pairs) == pytest.approx(paired.probabilities(PAIRS), abs=1e-6)


REFUSED = {
    "no texts": ([], "no texts"),
    "an empty frame": (pd.DataFrame({"text": []}), "no texts"),
    "none": (None, r"cannot predict missing \(None\)"),
    "nan": (math.nan, r"cannot predict missing \(nan\)"),
    "a number": (3, r"cannot predict an int \(3\)"),
    "bytes": (b"text", "cannot predict bytes"),
    "a dict": ({"text": TEXTS}, "cannot predict a dict"),
    "a set": (set(TEXTS), "cannot predict a set"),
    "an empty text": ("", "the text is empty"),
    "an empty text in a list": (["a", " "], "text 2 of 2 is empty"),
    "none in a list": (["a", None, "b"], r"text 2 of 3 is missing \(None\)"),
    "nan in a series": (pd.Series(["a", "b", math.nan]), "text 3 of 3 is missing"),
    "NA in a series": (pd.Series(["a", None], dtype="string"), "text 2 of 2 is missing"),
    "numbers": (np.arange(3), r"text 1 of 3 is an int \(0\)"),
    "a number among texts": (["a", 3.5], r"text 2 of 2 is a float \(3.5\)"),
    "bytes in a list": (["a", b"b"], "text 2 of 2 is bytes"),
    "a dict in a list": ([{"text": "a"}], "text 1 of 1 is a dict"),
    "nested lists": ([["a"], ["b"]], "text 1 of 2 is a list of 1"),
    "batches": ([["a", "b"], ["c", "d"]], "text 1 of 2 is a list of 2"),
    "mixed rows": (["a", ("b", "c")], "text 2 of 2 is a pair"),
    "a triple": ([("a", "b", "c")], "text 1 of 1 has 3 parts"),
    "half a character": (["a", "\ud83d"], "text 2 of 2 has half a character"),
    "a frame without texts": (pd.DataFrame({"words": TEXTS}), "lacks the column 'text' .it has 'words'"),
}


@pytest.mark.parametrize(("texts", "says"), REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused_with_its_position(single: beft.Tuned, texts: object, says: str) -> None:
    for answer in (single.predict, lambda given: beft.predict(single.model, single.tokenizer, given)):
        with pytest.raises(beft.BeftError, match=says) as caught:
            answer(texts)
        assert "\n" not in str(caught.value)


REFUSED_PAIRS = {
    "a text": ("a", "the text is a single text, and the model reads pairs"),
    "texts": (["a", "b"], "text 1 of 2 is a single text, and the model reads pairs"),
    "columns of lists": ((["a", "b"], ["c", "d"]), "a tuple of lists may be columns or rows"),
    "half a pair": (("a", None), r"a part of the pair is missing \(None\)"),
    "half a pair in a list": ([("a", "b"), ("a", "")], "a part of text 2 of 2 is empty"),
    "a frame of texts": (pd.DataFrame({"text": TEXTS}), "lacks the column 'text_a' and 'text_b'"),
}


@pytest.mark.parametrize(("texts", "says"), REFUSED_PAIRS.values(), ids=REFUSED_PAIRS)
def test_a_model_of_pairs_takes_pairs_only(paired: beft.Tuned, texts: object, says: str) -> None:
    with pytest.raises(beft.BeftError, match=says):
        paired.predict(texts)


def test_a_model_of_single_texts_takes_no_pairs(single: beft.Tuned) -> None:
    with pytest.raises(beft.BeftError, match="text 1 of 3 is a pair, and the model reads single texts"):
        single.predict(PAIRS)


def test_a_table_is_read_by_the_names_that_its_columns_had_in_tuning(tmp_path: Path) -> None:
    rows = pd.DataFrame({"review": [f"{'fine' if i % 2 else 'dull'} {i}" for i in range(20)], "stars": [1, 5] * 10})
    named = {"text": "review", "label": "stars"}
    tuned = beft.tune(rows, columns=named, model=TINY, epochs=1, max_length=16, offline=True, progress=False)
    assert tuned.predict(rows) == tuned.predict(rows["review"])
    assert tuned.predict(rows.rename(columns={"review": "text"})) == tuned.predict(rows)
    tuned.save(tmp_path)
    assert beft.Tuned.load(tmp_path).predict(rows) == tuned.predict(rows)
