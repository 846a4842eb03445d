"""Ranking scores on vectors worked by hand, and the properties THEORY section 6 states."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from beft.errors import BeftError
from beft.theory.scores import agreement, fisher, fisher_batch, mag_angle, magnitude, rank

entries = st.floats(-1e3, 1e3, allow_nan=False, allow_subnormal=False)
vectors = st.integers(1, 8).flatmap(
    lambda d: st.tuples(arrays(float, d, elements=entries), arrays(float, d, elements=entries))
)


def test_magnitude_is_the_mean_absolute_change():
    assert magnitude([1.0, -2.0, 0.0, 4.0], [2.0, 0.0, 0.0, 3.0]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("before", "after", "score"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),  # unchanged
        ([3.0, 4.0], [6.0, 8.0], 0.5),  # twice as long: 1 - 5/10
        ([3.0, 4.0], [1.5, 2.0], 0.5),  # half as long, the same
        ([1.0, 0.0], [0.0, 1.0], 1.0),  # a right angle
        ([1.0, 0.0], [1.0, 1.0], 0.5),  # 45 degrees, length sqrt 2: 1 - (1/sqrt 2)(1/sqrt 2)
        ([3.0, 4.0], [-3.0, -4.0], 2.0),  # reversed
        ([3.0, 4.0], [-6.0, -8.0], 1.5),  # reversed and twice as long: towards 1
        ([0.0, 0.0], [3.0, 4.0], 1.0),  # from zero: the limit
        ([3.0, 4.0], [0.0, 0.0], 1.0),  # to zero
    ],
)
def test_mag_angle_on_vectors_worked_by_hand(before, after, score):
    assert mag_angle(before, after) == pytest.approx(score, abs=1e-15)


def test_mag_angle_of_two_zero_vectors_is_undefined():
    assert math.isnan(mag_angle([0.0, 0.0], [0.0, 0.0]))


def test_mag_angle_of_a_diverged_bias_is_nan():
    assert math.isnan(mag_angle([1.0, 2.0], [math.inf, 0.0]))
    assert math.isnan(mag_angle([1.0, 2.0], [math.nan, 0.0]))


def test_mag_angle_survives_biases_whose_squares_underflow():
    assert mag_angle([3e-200, 4e-200], [6e-200, 8e-200]) == pytest.approx(0.5)


def test_the_same_move_scores_higher_on_a_smaller_bias():
    move = np.full(4, 0.004)
    assert mag_angle(np.full(4, 3.0), np.full(4, 3.0) + move) < 0.002
    assert mag_angle(np.full(4, 0.004), np.full(4, 0.004) - 2 * move) > 1.9


def test_a_rotation_counts_to_second_order_and_a_change_of_length_to_first():
    turn = lambda angle: mag_angle([1.0, 0.0], [math.cos(angle), math.sin(angle)])  # noqa: E731
    assert turn(2e-3) / turn(1e-3) == pytest.approx(4, rel=1e-3)
    grow = lambda step: mag_angle([1.0, 0.0], [1.0 + step, 0.0])  # noqa: E731
    assert grow(2e-3) / grow(1e-3) == pytest.approx(2, rel=1e-2)


@given(vectors)
def test_mag_angle_is_symmetric_and_between_0_and_2(pair):
    before, after = pair
    assume(before.any() or after.any())
    score = mag_angle(before, after)
    assert 0 <= score <= 2
    assert mag_angle(after, before) == score


@given(vectors, st.floats(1e-6, 1e6))
def test_mag_angle_does_not_depend_on_the_scale(pair, scale):
    before, after = pair
    assume(np.abs(np.concatenate(pair)).max() > 1e-3)
    assert mag_angle(scale * before, scale * after) == pytest.approx(mag_angle(before, after), abs=1e-9)


@given(vectors)
def test_mag_angle_is_the_papers_formula_where_that_has_a_value(pair):
    before, after = pair
    lengths = np.linalg.norm(before), np.linalg.norm(after)
    assume(min(lengths) > 1e-3)
    cosine = before @ after / (lengths[0] * lengths[1])
    assert mag_angle(before, after) == pytest.approx(1 - cosine * min(lengths) / max(lengths), abs=1e-9)


def test_fisher_squares_the_gradient_of_each_example():
    assert fisher([[1.0, -1.0], [3.0, 1.0]]) == pytest.approx((1 + 1 + 9 + 1) / 4)


def test_opposite_examples_cancel_in_the_batch_form_only():
    gradients = np.array([[1.0, 2.0], [-1.0, -2.0]])
    assert fisher(gradients) == pytest.approx(2.5)
    assert fisher_batch(gradients.mean(0, keepdims=True), [0.0]) == 0


def test_fisher_batch_clips_by_the_norm_of_the_whole_gradient():
    # the first batch is within the clip, the second is scaled by 1/4
    assert fisher_batch([[0.5, 0.5], [2.0, 0.0]], [0.8, 4.0]) == pytest.approx((0.25 + 0.25 + 0.25) / 4, rel=1e-5)


def test_fisher_batch_clips_as_torch_does():
    parameters = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2))]
    for parameter, gradient in zip(parameters, (torch.tensor([3.0, 0.0, 4.0]), torch.tensor([0.0, 12.0])), strict=True):
        parameter.grad = gradient.clone()
    mine = fisher_batch([[3.0, 0.0, 4.0]], [13.0])
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    assert mine == pytest.approx(float(parameters[0].grad.square().mean()), rel=1e-5)


def test_rank_excludes_a_null_term_and_puts_nan_last():
    scores = {"q": 0.1, "k": 0.9, "v": 0.5}
    assert rank(scores) == ["k", "v", "q"]
    assert rank(scores, exclude={"k"}) == ["v", "q"]
    assert rank({"q": math.nan, "k": 0.0, "v": 0.5}) == ["v", "k", "q"]


def test_agreement_is_kendalls_tau():
    scores = {"q": 0.2, "k": 0.1, "v": 0.3}
    assert agreement(scores, {"q": 0.7, "k": 0.6, "v": 0.8}) == pytest.approx(1)
    assert agreement(scores, {"q": 0.7, "k": 0.8, "v": 0.6}) == pytest.approx(-1)
    assert agreement(scores, {"q": 0.8, "k": 0.6, "v": 0.7}) == pytest.approx(1 / 3)  # 2 pairs right, 1 wrong


def test_agreement_counts_only_terms_that_have_both():
    assert agreement({"q": 1.0, "v": 2.0, "k": 9.0}, {"q": 0.5, "v": 0.6}) == pytest.approx(1)


def test_agreement_of_all_ties_is_nan():
    assert math.isnan(agreement({"q": 1.0, "v": 1.0}, {"q": 0.5, "v": 0.6}))


def test_agreement_of_one_term_is_refused():
    with pytest.raises(BeftError, match="at least two terms"):
        agreement({"q": 1.0}, {"q": 0.5})


@pytest.mark.parametrize("pair", [([1.0], [1.0, 2.0]), ([], []), ([[1.0]], [[1.0]])])
def test_biases_of_different_sizes_are_refused(pair):
    with pytest.raises(BeftError, match="vectors of one size"):
        magnitude(*pair)


def test_gradients_without_an_example_axis_are_refused():
    with pytest.raises(BeftError, match="examples, entries"):
        fisher([1.0, 2.0])
    with pytest.raises(BeftError, match="as many norms"):
        fisher_batch([[1.0, 2.0]], [1.0, 1.0])
