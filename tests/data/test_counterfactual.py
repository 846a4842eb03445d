"""Counterfactual text: the other group's words, in the same case, and pronouns by the stated rule."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beft.data.counterfactual import augment, axis, swapped
from beft.errors import BeftError

GENDER = axis("gender")
RELIGION = axis("religion")


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("He is an actor.", "She is an actress."),
        ("THE WAITRESS left; she was tired", "THE WAITER left; he was tired"),
        ("The actor's brothers met the king.", "The actress's sisters met the queen."),
        ("She read her book.", "He read his book."),
        ("They saw her.", "They saw him."),
        ("I told her that it rained.", "I told him that it rained."),
        ("Nora saw him and his dog.", "Nora saw her and her dog."),
        ("It was his.", "It was hers."),
        ("The prize is hers", "The prize is his"),
        ("Her doctor and her.", "His doctor and him."),
        ("The manager of the kingdom", "The manager of the kingdom"),
        ("a man-made lake", "a man-made lake"),
        ("Mr Smith's wife", "Ms Smith's husband"),
    ],
)
def test_words_of_gender_are_exchanged_and_nothing_else(text, other):
    assert swapped(text, GENDER) == other


@given(st.lists(st.sampled_from([w for s in GENDER.sets for w in s] + ["the", "old", "ran", ",", "42"]), min_size=1))
def test_exchanging_twice_gives_the_text_back_without_pronouns(words):
    text = " ".join(words)
    assert swapped(swapped(text, GENDER), GENDER) == text


def test_names_are_exchanged_on_request_only():
    assert swapped("Peter met Clara.", GENDER) == "Peter met Clara."
    assert swapped("Peter met Clara.", axis("gender", names=True)) == "Margaret met Victor."


def test_an_axis_of_three_groups_has_a_text_for_each():
    augmented = augment(["A Muslim went to the mosque.", "It rained."], RELIGION)
    assert augmented.texts == (
        "A Muslim went to the mosque.",
        "A Jewish went to the synagogue.",
        "A Christian went to the church.",
    )
    assert augmented.origin == (0, 0, 0) and augmented.changed == 1
    with pytest.raises(BeftError, match="3 groups: say which"):
        swapped("a mosque", RELIGION)


def test_both_sides_are_kept_and_texts_of_no_group_left_out():
    augmented = augment(["It rained.", "His mother sang.", "She slept."], GENDER)
    assert augmented.texts == ("His mother sang.", "Her father sang.", "She slept.", "He slept.")
    assert augmented.origin == (1, 1, 2, 2)


def test_a_corpus_that_speaks_of_no_group_is_refused():
    with pytest.raises(BeftError, match="none of 2 texts has a word of the axis gender .such as he, she."):
        augment(["It rained.", "The sun came."], GENDER)


def own(tmp_path, words, groups=("a", "b")):
    path = tmp_path / "lists.json"
    path.write_text(json.dumps({"axes": {"mine": {"groups": groups, "words": words}}}))
    return path


def test_a_list_of_ones_own_is_read_and_checked(tmp_path):
    mine = axis("mine", path=own(tmp_path, [["cat", "dog"], ["cats", "dogs"]]))
    assert swapped("Cats and a dog. She saw her.", mine) == "Dogs and a cat. She saw her."
    with pytest.raises(BeftError, match="'dog' is a word of b and of a in .*lists.json"):
        axis("mine", path=own(tmp_path, [["cat", "dog"], ["dog", "wolf"]]))
    with pytest.raises(BeftError, match="'cat' of axis mine in .* has 1 words for 2 groups"):
        axis("mine", path=own(tmp_path, [["cat"]]))
    with pytest.raises(BeftError, match="unknown bias axis 'gendr': did you mean gender"):
        axis("gendr")
    (tmp_path / "lists.json").write_text("[]")
    with pytest.raises(BeftError, match="is no list of words by axis"):
        axis("mine", path=tmp_path / "lists.json")


def test_every_list_that_comes_along_has_a_word_for_each_group_and_none_on_two_sides():
    for name in ("gender", "race", "religion"):
        one = axis(name, names=True)
        assert len(one.sets) > 8 and all(len(words) == len(one.groups) for words in one.sets)
