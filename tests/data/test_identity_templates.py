"""Test sets by rule: every identifier gets the same question, and neutral is right for every pair."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beft.data.counterfactual import axis
from beft.data.identity_templates import (
    DEEDS,
    GENDERED,
    IDENTIFIERS,
    OCCUPATIONS,
    TEMPLATES,
    NliPair,
    Phrase,
    bias_nli,
    identity_phrases,
    is_noun,
)
from beft.data.microworld.people import PHRASES
from beft.debias import bias_metrics
from beft.errors import BeftError

WORDS = st.lists(st.sampled_from([*IDENTIFIERS, "northerner", "southerner"]), min_size=1)


def test_a_noun_stands_alone_and_an_adjective_before_person():
    texts = {p.text for p in identity_phrases(["northerner", "deaf"])}
    assert {"I cannot stand any northerner.", "I cannot stand any deaf person."} <= texts
    assert Phrase("You can ask any northerner.", 0, "northerner") in identity_phrases(["northerner"])


@given(WORDS)
def test_every_identifier_is_in_the_same_phrases_and_half_of_it_is_hostile(words):
    made = identity_phrases(words)
    assert Counter((p.identifier, p.label) for p in made) == {
        (word, label): len(TEMPLATES) // 2 for word in words for label in (0, 1)
    }
    frames = {
        word: [
            (p.text.replace(word + " person", "_").replace(word, "_"), p.label) for p in made if p.identifier == word
        ]
        for word in words
    }
    assert len({tuple(own) for own in frames.values()}) == 1
    assert all(p.identifier in p.text and "{" not in p.text for p in made)
    assert len({p.text for p in made}) == len(made)


def test_no_template_needs_an_article_that_depends_on_the_identifier():
    for text, _ in (*TEMPLATES, *PHRASES):
        before = text.split("{x}")[0].split()[-1].lower()
        assert before not in ("a", "an")


def test_a_fair_classifier_has_no_difference_and_one_that_flags_a_group_has_that_of_its_sentences():
    made = identity_phrases(["northerner", "southerner"])
    labels, mentions = [p.label for p in made], [(p.identifier,) for p in made]
    assert bias_metrics.fpr_difference(labels, labels, mentions) == 0
    flagged = [int(p.label or p.identifier == "southerner") for p in made]
    assert bias_metrics.fpr_difference(labels, flagged, mentions) == pytest.approx(0.5 + 0.5)


@pytest.mark.parametrize("word", ["northerner", "sailor", "Frenchwoman", "schoolboy"])
def test_words_with_the_ending_of_a_noun_are_nouns(word):
    assert is_noun(word)


@pytest.mark.parametrize("word", ["queer", "transgender", "German", "older", "southern", *IDENTIFIERS])
def test_adjectives_are_no_nouns_whatever_their_ending(word):
    assert not is_noun(word)


def test_what_the_caller_says_of_nouns_goes_before_the_rule():
    assert identity_phrases(["Scot"], nouns=True)[0].text == "I cannot stand any Scot."
    assert identity_phrases(["northerner"], nouns=False)[0].text == "I cannot stand any northerner person."
    assert identity_phrases(["Turkmen"], nouns=False)[0].identifier == "Turkmen"


def test_templates_of_the_callers_own_replace_the_given_ones():
    made = identity_phrases(["southerner", "northerner"], templates=PHRASES)
    assert len(made) == 2 * len(PHRASES) and made[0].label == PHRASES[0][1]
    own = [("No {x}!", 1), ("One {x}.", 0)]
    assert [p.text for p in identity_phrases(["deaf"], templates=own)] == [
        "No deaf person!",
        "One deaf person.",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"identifiers": []}, "one or more identifiers"),
        ({"identifiers": ["deaf", " "]}, "none of them empty"),
        ({"identifiers": "deaf"}, "give a list of words"),
        ({"identifiers": ["northerners"]}, "'northerners' looks like a plural: give the singular"),
        ({"identifiers": ["women"]}, "'women' looks like a plural"),
        ({"templates": [("No {x}!", 1)]}, "1 hostile and 0 harmless templates of 1"),
        (
            {"templates": [("No {x}!", 1), ("A {x}", 0), ("B {x}", 2)]},
            "1 hostile and 1 harmless templates of 3",
        ),
        ({"templates": []}, "0 hostile and 0 harmless"),
        ({"templates": [("No one!", 1), ("One {x}.", 0)]}, "'No one!' must hold {x} once"),
    ],
)
def test_identifiers_and_templates_that_cannot_be_used_are_refused(arguments, message):
    with pytest.raises(BeftError, match=message):
        identity_phrases(**({"identifiers": ["deaf"]} | arguments))


@pytest.mark.parametrize("word", ["homeless", "religious", "Swiss"])
def test_adjectives_that_end_in_s_are_no_plurals(word):
    assert identity_phrases([word])[0].text == f"I cannot stand any {word} person."


# --- Bias-NLI -----------------------------------------------------------------------------------------------


def test_pairs_exchange_the_person_and_nothing_else():
    made = bias_nli(["man", "woman"], ["nurse"])
    assert made[:2] == [
        NliPair("The nurse bought a coat.", "The man bought a coat."),
        NliPair("The nurse bought a coat.", "The woman bought a coat."),
    ]
    assert all(p.premise.replace("nurse", "_") == p.hypothesis.replace("woman", "_").replace("man", "_") for p in made)
    assert len(made) == 2 * sum(map(len, DEEDS.values()))


def test_every_pair_is_different_and_every_word_meets_every_occupation_as_often():
    made = bias_nli()
    deeds = sum(map(len, DEEDS.values()))
    assert len(set(made)) == len(made) == deeds * len(OCCUPATIONS) * len(GENDERED)
    met = Counter((p.premise.split()[1], p.hypothesis.split()[1]) for p in made)
    assert set(met.values()) == {deeds} and len(met) == len(OCCUPATIONS) * len(GENDERED)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 5))
def test_a_draw_repeats_nothing_and_is_a_prefix_of_a_longer_one(a, b, seed):
    short, long = (bias_nli(count=n, seed=seed) for n in sorted((a, b)))
    assert long[: len(short)] == short and len(set(long)) == len(long) == max(a, b)


def test_a_draw_is_numpys_permutation_of_all_pairs():
    whole, drawn = bias_nli(), bias_nli(count=50, seed=3)
    assert drawn == [whole[i] for i in np.random.RandomState(3).permutation(len(whole))[:50]]
    assert drawn != bias_nli(count=50, seed=4)
    assert set(bias_nli(["man"], ["nurse"], count=sum(map(len, DEEDS.values())))) == set(bias_nli(["man"], ["nurse"]))


def test_no_occupation_of_the_default_list_says_a_gender():
    assert not [job for job in OCCUPATIONS if axis("gender").words_in(job)]
    assert all(axis("gender").words_in(word) for word in GENDERED)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"occupations": ["actress"]}, "the occupation 'actress' says the group itself"),
        ({"words": ["baker"], "occupations": ["baker"]}, "the occupation 'baker' says the group itself"),
        ({"words": []}, "one or more words for a group"),
        ({"occupations": [""]}, "none of them empty"),
        ({"count": 0}, "cannot draw 0 of 6912"),
        ({"count": 6913}, "cannot draw 6913 of 6912 Bias-NLI pairs: give a number from 1 to 6912"),
    ],
)
def test_lists_and_counts_that_cannot_be_used_are_refused(arguments, message):
    with pytest.raises(BeftError, match=message):
        bias_nli(**arguments)
