"""Measures of bias on predictions made by hand, whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beft.debias import bias_metrics as m
from beft.errors import BeftError


def test_the_gap_is_the_root_mean_square_over_classes():
    # class 0: group 0 right in 2 of 2, group 1 in 1 of 2; class 1: 1 of 2 and 2 of 2
    labels, groups = [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0, 1, 1]
    found = m.tpr_gap(labels, [0, 0, 0, 1, 1, 0, 1, 1], groups)
    assert found.by_class == {0: -0.5, 1: 0.5} and found.rms == pytest.approx(0.5)
    assert m.tpr_gap(labels, labels, groups).rms == 0
    assert m.tpr_gap(labels, [1, 1, 0, 0, 0, 0, 1, 1], groups).rms == 1


def test_a_class_that_a_group_lacks_is_undefined_and_left_out_of_the_mean():
    found = m.tpr_gap([0, 0, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1])
    assert np.isnan(found.by_class[1]) and found.by_class[0] == -1.0 and found.rms == 1.0
    assert np.isnan(m.tpr_gap([0, 1], [0, 1], [0, 0]).rms)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 1)), min_size=1))
def test_exchanging_the_groups_turns_every_gap_round(rows):
    labels, predictions, groups = map(np.array, zip(*rows, strict=True))
    one, other = (m.tpr_gap(labels, predictions, g) for g in (groups, 1 - groups))
    for c, gap in one.by_class.items():
        assert np.isnan(gap) and np.isnan(other.by_class[c]) or gap == -other.by_class[c]
    assert np.isnan(one.rms) or 0 <= one.rms <= 1


def test_the_false_positive_difference_sums_over_identifiers():
    # negatives: 4, one of them flagged: 0.25. "jews" 1 of 1, "women" 0 of 2; "arabs" only in a positive sentence
    labels, predictions = [0, 0, 0, 0, 1], [1, 0, 0, 0, 1]
    mentions = [["jews"], ["women"], ["women"], [], ["arabs"]]
    assert m.fpr_difference(labels, predictions, mentions) == pytest.approx(0.75 + 0.25)
    assert np.isnan(m.fpr_difference(labels, predictions, [[], [], [], [], ["arabs"]]))
    assert m.fpr_difference([0, 0], [0, 0], [["jews"], []]) == 0


def test_only_neutral_is_unbiased_in_bias_nli():
    found = m.fraction_neutral([1, 1, 0, 2], neutral=1)
    assert found.percent == 50 and found.n == 4 and 0 < found.low < 50 < found.high < 100


def test_stereoset_scores_are_those_of_the_paper_for_an_ideal_a_biased_and_a_random_model():
    ideal = np.array([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0]])
    assert m.stereoset(ideal) == m.Stereo(100, 50, 100)
    assert m.stereoset(ideal[:1]) == m.Stereo(100, 100, 0)
    mixed = m.stereoset(np.array([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0]]))
    assert mixed == m.Stereo(50, 50, 50)
    with pytest.raises(BeftError, match=r"scores \(N, 3\)"):
        m.stereoset([[1.0, 2.0]])


def test_nothing_measured_is_undefined_and_not_zero():
    assert np.isnan(m.share([]).percent) and np.isnan(m.stereoset(np.zeros((0, 3))).icat)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(BeftError, match="have 2, 1, 2 rows"):
        m.tpr_gap([0, 1], [0], [0, 1])
    with pytest.raises(BeftError, match=r"groups must be 0 and 1 for a gap, not \[0, 2\]"):
        m.tpr_gap([0, 1], [0, 1], [0, 2])
