"""Counterfactual text: word lists, what is exchanged among them, and how often it errs on real sentences."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
from collections import Counter

import pytest
import swap_errors
from hypothesis import given
from hypothesis import strategies as st

from beft.data.counterfactual import augment, axis, replacements, swapped
from beft.data.microworld.people import SPOKEN_OF, documents, stereotype_pairs
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


OFTEN = Counter(word for pair in GENDER.sets for word in pair)
PAIRS = [pair for pair in GENDER.sets if max(OFTEN[w] for w in pair) == 1 and not {*pair} & GENDER.in_context]
OTHERS = ["the", "old", "ran", ",", "42", "Élan", "‘well’", "(so)"]


@st.composite
def phrases(draw):
    """A word that has one counterpart, in some case, with its article and a suffix, perhaps; or another word."""
    word = draw(st.sampled_from([w for pair in PAIRS for w in pair] + OTHERS))
    case = draw(st.sampled_from([str.lower, str.capitalize, str.upper]))
    if word in OTHERS:
        return word
    article = draw(st.sampled_from(["", "an " if word[0] in "aeiou" else "a "]))
    return article + case(word) + draw(st.sampled_from(["", "'s", "’s", ".", "-in-law"]))


@given(st.lists(phrases(), min_size=1))
def test_exchanging_twice_gives_the_text_back_where_words_have_one_counterpart(words):
    text = " ".join(words)
    assert swapped(swapped(text, GENDER), GENDER) == text


TEXTS = st.lists(
    st.sampled_from([*"her his him hers mrs miss Lord King host mark black Christian an a".split()])
    | st.sampled_from([*"([{\"'`“”’/-–.,3$", " ", "ſon", "K\u0131ng", "\ud800", "\u0301"])
    | st.text(max_size=4)
)


@given(TEXTS)
def test_any_text_is_swapped_and_only_at_the_replacements(parts):
    for joint in ("", " "):
        text = joint.join(parts)
        for words in (axis("gender", names=True), axis("race"), RELIGION):
            group = None if len(words.groups) == 2 else 1
            kept, at = [], 0
            for change in replacements(text, words, group):
                assert at <= change.start < change.end
                kept.append(text[at : change.start])
                at = change.end
            other = swapped(text, words, group)
            assert all(part in other for part in kept)


def test_replacements_are_in_order_and_make_the_swapped_text():
    text = "A man and his aunt met an actor."
    changes = replacements(text, GENDER)
    assert [(c.start, c.new) for c in changes] == [(2, "woman"), (10, "her"), (14, "uncle"), (26, "actress")]
    assert all(text[c.start : c.end] for c in changes)


def test_the_counterfactuals_of_generated_text_are_the_same_byte_for_byte():
    digest = hashlib.sha256()
    for name in ("gender", "origin"):
        texts = itertools.islice(documents(1, "train", SPOKEN_OF), 600)
        digest.update("\n".join(augment(list(texts), axis(name)).texts).encode())
        digest.update("\n".join(pair.less for pair in stereotype_pairs(name, 100)).encode())
    assert digest.hexdigest() == "6a1013b83887e39d720a6ca2e4855fcf819c91ee73cb13f0bd4481ba7205c707"


def test_names_are_exchanged_on_request_only():
    assert swapped("Peter met Clara.", GENDER) == "Peter met Clara."
    assert swapped("Peter met Clara.", axis("gender", names=True)) == "Margaret met Victor."


def test_an_axis_of_three_groups_has_a_text_for_each():
    augmented = augment(["A Muslim went to the mosque.", "It rained."], RELIGION)
    assert augmented.texts == (
        "A Muslim went to the mosque.",
        "A Jew went to the synagogue.",
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


def own(tmp_path, words, groups=("a", "b"), name="mine"):
    path = tmp_path / "lists.json"
    path.write_text(json.dumps({"axes": {name: {"groups": groups, "words": words}}}))
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
    for words in ([["cat", ""]], ["cat"], [["cat", "dog"], None], {"cat": "dog"}, [[]]):
        with pytest.raises(BeftError, match="has no groups and sets of words, all text"):
            axis("mine", path=own(tmp_path, words))
    for words, groups in (([], ["a", "b"]), ([["cat"]], ["a"])):
        with pytest.raises(BeftError, match="needs two groups or more|has no groups and sets of words"):
            axis("mine", path=own(tmp_path, words, groups))
    (tmp_path / "lists.json").write_text("[]")
    with pytest.raises(BeftError, match="is no list of words by axis"):
        axis("mine", path=tmp_path / "lists.json")


def test_rules_of_english_pronouns_hold_for_a_list_of_ones_own_with_he_and_she_alone(tmp_path):
    turned = axis("gender", path=own(tmp_path, [["she", "he"], ["woman", "man"]], ["female", "male"], "gender"))
    assert swapped("She saw him and lost her bag.", turned) == "He saw her and lost his bag."
    assert swapped("He lost his bag.", turned, group=1) == "He lost his bag.", "the words of its own group stay"
    assert swapped("He lost his bag.", turned, group=0) == "She lost her bag."
    german = axis("gender", path=own(tmp_path, [["Frau", "Mann"]], ["weiblich", "männlich"], "gender"))
    assert swapped("Komm her, sagte die Frau.", german) == "Komm her, sagte die Mann."
    sets = [["he", "she", "they"], ["his", "her", "their"], ["him", "her", "them"]]
    three = axis("gender", path=own(tmp_path, sets, ["male", "female", "neutral"], "gender"))
    texts = ("He lost his bag.", "She lost her bag.", "They lost their bag.")
    assert augment(texts[:1], three).texts == texts


def test_every_list_that_comes_along_has_a_word_for_each_group_and_none_on_two_sides():
    for name in ("gender", "race", "religion"):
        one = axis(name, names=True)
        assert len(one.sets) > 8 and all(len(words) == len(one.groups) for words in one.sets)


def test_labels_are_addresses_and_words_of_the_lists_and_never_sentences():
    with swap_errors.LABELS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["part"] for row in rows) == {"seen": 200, "unseen": 200, "blind": 100}
    assert len({row["sha256"] for row in rows}) == 500
    record = json.loads(swap_errors.RECORD.read_text(encoding="utf-8"))
    for row in rows:
        words = axis(row["axis"], names=row["names"] == "1")
        known = {w.lower() for words in words.sets for w in words} | {"his", "him", "her", "hers", "dame", "an"}
        assert {pair.split("=")[1].replace("_", " ").lower() for pair in row["swaps"].split()} <= known
    assert {part: rates["sentences"]["of"] for part, rates in record.items()} == {
        "seen": 200,
        "unseen": 200,
        "blind": 100,
    }


def test_swaps_err_as_often_on_real_sentences_as_the_record_says(real_data):
    record = json.loads(swap_errors.RECORD.read_text(encoding="utf-8"))
    measured = swap_errors.measure(real_data)
    assert record == measured
    assert measured["unseen"]["all words"]["percent"] < 3
