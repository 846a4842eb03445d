"""Biographies with a planted link: the strength is what was asked for, and the best classifier's gap is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from beft.data.counterfactual import axis, swapped
from beft.data.microworld.biographies import (
    AXES,
    FITS,
    HINTS,
    OCCUPATIONS,
    TYPICAL,
    best_classes,
    biographies,
    expected_gap,
    leaning,
)
from beft.debias.bias_metrics import tpr_gap
from beft.errors import BeftError


def test_a_classifier_that_knows_the_links_has_the_expected_gap_among_people_of_even_groups():
    rows = biographies("validation", 6000, 0.0)
    gap = gap_of(rows, "gender", best_classes(rows, 0.8, 0.5))
    assert gap == pytest.approx(expected_gap(0.8, 0.5, even=True), abs=0.05)


@pytest.mark.parametrize("strength", [0.0, 0.5, 0.9])
def test_the_link_is_as_strong_as_planted(strength):
    rows = biographies("train", 4000, strength)
    assert np.mean([b.origin for b in rows]) == pytest.approx(0.5, abs=0.04)
    women = np.array([b.gender for b in rows])
    leaning = np.array([b.label % 2 == 0 for b in rows])
    for kind, sign in ((leaning, 1), (~leaning, -1)):
        share = women[kind].mean()
        assert share == pytest.approx((1 + sign * strength) / 2, abs=4 * 0.5 / math.sqrt(kind.sum()))


def gap_of(rows, name, predicted):
    return tpr_gap([b.label for b in rows], predicted, [getattr(b, name) for b in rows]).rms


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.6, 0.9])
def test_the_best_classifier_has_the_gap_that_is_expected(strength):
    rows = biographies("validation", 6000, strength)
    gap = gap_of(rows, "gender", best_classes(rows, strength))
    assert gap == pytest.approx(expected_gap(strength), abs=0.06)


def test_the_best_classifier_errs_less_than_one_that_knows_no_link():
    rows = biographies("validation", 3000, 0.8, origin=0.5)
    right = [
        np.mean([b.label == c for b, c in zip(rows, best_classes(rows, *known), strict=True)])
        for known in ((0.8, 0.5), (0.8, 0.0), (0.0, 0.0))
    ]
    assert right[0] > right[1] > right[2] > 0.7


def test_two_links_are_independent_and_the_best_classifier_has_the_expected_gap_of_each():
    strength, origin = 0.5, 0.7
    rows = biographies("train", 6000, strength, origin=origin)
    groups = {name: np.array([getattr(b, name) for b in rows]) for name in AXES}
    leans = {name: np.array([leaning(2 * (b.label // 2), name) for b in rows]) for name in AXES}
    assert set(leans["origin"]) == {0, 1} and set(leans["gender"]) == {1}
    first = np.array([b.label % 2 == 0 for b in rows])
    both = np.mean((groups["gender"] == 1)[first] == (groups["origin"] == leans["origin"])[first])
    assert both == pytest.approx(0.75 * 0.85 + 0.25 * 0.15, abs=0.03)
    predicted = best_classes(rows, strength, origin)
    for name, (own, other) in {"gender": (strength, origin), "origin": (origin, strength)}.items():
        assert gap_of(rows, name, predicted) == pytest.approx(expected_gap(own, other), abs=0.05)
    assert expected_gap(0.5) != expected_gap(0.5, 0.7)


def test_the_expected_gap_grows_with_the_link_from_nothing_to_all():
    gaps = [expected_gap(s) for s in np.linspace(0, 1, 21)]
    assert gaps[0] == 0 and gaps[-1] == 1 and all(a <= b for a, b in zip(gaps, gaps[1:]))
    assert expected_gap(-0.4) == expected_gap(0.4)
    assert 0.02 < expected_gap(0.2) < expected_gap(0.5) < expected_gap(0.8) < 0.95


def test_splits_are_disjoint_and_streams_prefixes_of_longer_ones():
    train, test = (biographies(split, 500, 0.5) for split in ("train", "validation"))
    assert not {b.text for b in train} & {b.text for b in test}
    assert biographies("train", 100, 0.5) == train[:100] != biographies("train", 100, 0.5, seed=1)
    assert {b.occupation for b in test} == set(OCCUPATIONS)


def test_a_counterfactual_of_a_biography_is_that_of_the_other_gender_word_for_word():
    gender = axis("gender")
    for b in biographies("train", 200, 0.5):
        other = swapped(b.text, gender)
        assert other != b.text and swapped(other, gender) == b.text


def test_impossible_sizes_and_strengths_are_refused():
    with pytest.raises(BeftError, match="strength 1.5 of the link is not between -1 and 1"):
        biographies("train", 1, 1.5)
    with pytest.raises(BeftError, match="strength -2 of the link"):
        biographies("train", 1, 0.0, origin=-2)
    with pytest.raises(BeftError, match="cannot generate -1 rows"):
        biographies("train", -1, 0.0)


def test_strong_hints_fit_their_occupation_more_often_than_weak_ones():
    rows = biographies("train", 6000, 0.0)
    for i, fit in enumerate(FITS):
        own = other = 0
        for b in rows:
            his = "her" if b.gender else "his"
            own += TYPICAL[OCCUPATIONS[b.label]][i].format(his=his) in b.text
            other += TYPICAL[OCCUPATIONS[b.label ^ 1]][i].format(his=his) in b.text
        assert own / (own + other) == pytest.approx(fit, abs=0.03)
        assert (own + other) / len(rows) == pytest.approx(HINTS / len(FITS), abs=0.06)
