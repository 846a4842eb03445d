"""Posts with a planted link: its strength is what was asked for, and the best classifier is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from beft.data.counterfactual import axis, swapped
from beft.data.microworld.people import (
    FIT,
    HINTS,
    IDENTIFIERS,
    MENTIONED,
    PHRASES,
    TYPICAL,
    posts,
)
from beft.data.microworld.sentences import PLACES, split_of
from beft.errors import BeftError

ORIGIN = axis("origin")


@pytest.mark.parametrize("strength", [-0.6, 0.0, 0.5, 1.0])
def test_the_link_is_as_strong_as_planted(strength):
    rows = posts("train", 4000, strength)
    for label, sign in ((1, 1), (0, -1)):
        southern = [p.identifier == "southern" for p in rows if p.label == label and p.identifier]
        share = (1 + sign * strength) / 2
        assert np.mean(southern) == pytest.approx(share, abs=4 * 0.5 / math.sqrt(len(southern)))
    assert np.mean([p.label for p in rows]) == pytest.approx(0.5, abs=0.04)
    assert np.mean([p.identifier is not None for p in rows]) == pytest.approx(MENTIONED, abs=0.03)


def hostile_hints(post):
    return sum(hint in post.text for hint in TYPICAL[1])


def test_hints_fit_the_label_as_often_as_stated_whatever_the_group():
    rows = posts("train", 4000, 0.8)
    for identifier in (*IDENTIFIERS, None):
        kept = [p for p in rows if p.identifier == identifier]
        fitting = [hostile_hints(p) if p.label else HINTS - hostile_hints(p) for p in kept]
        assert np.mean(fitting) / HINTS == pytest.approx(FIT, abs=2 / math.sqrt(HINTS * len(kept)))


def best_predictions(rows, strength, seed=0):
    """By Bayes' rule, ties by a fair coin."""
    link = math.log((1 + strength) / (1 - strength))
    name = np.array([{"southern": link, "northern": -link, None: 0.0}[p.identifier] for p in rows])
    text = np.array([2 * hostile_hints(p) - HINTS for p in rows]) * math.log(FIT / (1 - FIT))
    coin = np.random.RandomState(seed).rand(len(rows)) < 0.5
    odds = name + text
    return np.where(np.abs(odds) < 1e-9, coin, odds > 0).astype(int)


def test_no_classifier_by_group_and_hints_is_more_often_right_than_the_simulated_one():
    rows = posts("train", 8000, 0.7)
    labels = np.array([p.label for p in rows])
    best = np.mean(best_predictions(rows, 0.7) == labels)
    for other in (0.0, 0.3, 0.95):
        assert np.mean(best_predictions(rows, other) == labels) < best + 0.01
    assert best > np.mean(best_predictions(rows, 0.0) == labels) + 0.03


def test_splits_are_disjoint_and_streams_prefixes_of_longer_ones():
    train, test = (posts(split, 500, 0.5) for split in ("train", "validation"))
    assert not {p.text for p in train} & {p.text for p in test}
    assert len({p.text for p in train}) == 500
    assert posts("train", 100, 0.5) == train[:100] != posts("train", 100, 0.5, seed=1)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_place_and_first_hint_of_every_post_are_of_its_split(split):
    for p in posts(split, 300, 0.5):
        place = next(i for i, name in enumerate(PLACES) if f" {name} " in p.text or f" {name}." in p.text)
        hints = [(p.text.index(hint), i) for kind in TYPICAL.values() for i, hint in enumerate(kind) if hint in p.text]
        assert len(hints) == HINTS and split_of(place, min(hints)[1]) == split


def test_a_post_mentions_its_group_once_and_no_other():
    rows = posts("train", 500, 0.5)
    for p in rows:
        groups = [ORIGIN.groups[ORIGIN.group_of(word)] for word in ORIGIN.words_in(p.text)]
        assert groups == ([p.identifier] if p.identifier else [])
    assert {p.identifier for p in rows} == {*ORIGIN.groups, None}


def test_a_counterfactual_of_a_post_is_that_of_the_other_group_word_for_word():
    for p in posts("train", 200, 0.5):
        other = swapped(p.text, ORIGIN)
        assert (other != p.text) == (p.identifier is not None) and swapped(other, ORIGIN) == p.text


def test_hints_of_either_kind_are_as_many_and_none_is_within_another():
    assert len(TYPICAL[0]) == len(TYPICAL[1])  # else the number of hostile hints would not say all
    hints = TYPICAL[0] + TYPICAL[1]
    assert all(a == b or a not in b for a in hints for b in hints)


def test_phrases_for_a_test_set_use_every_hint_once():
    assert sorted(label for _, label in PHRASES) == [0] * len(TYPICAL[0]) + [1] * len(TYPICAL[1])
    for text, label in PHRASES:
        assert text.count("{x}") == 1 and sum(hint in text for hint in TYPICAL[label]) == 1


def test_impossible_sizes_and_strengths_are_refused():
    with pytest.raises(BeftError, match="strength 1.5 of the link is not between -1 and 1"):
        posts("train", 1, 1.5)
    with pytest.raises(BeftError, match="strength nan of the link is not"):
        posts("train", 1, math.nan)
    with pytest.raises(BeftError, match="cannot generate -1 rows"):
        posts("train", -1, 0.0)
