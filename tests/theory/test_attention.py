"""Identities of THEORY sections 1 to 4 on random heads in float64."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from beft.theory.attention import (
    attend,
    dropped_row_sums,
    jacobian_by_autograd,
    jacobian_q,
    jacobian_v,
    merge_into_output_bias,
    outside_hull,
    random_head,
    reached,
    sensitivity_bounds,
    tilt,
)

heads = st.builds(
    random_head,
    seed=st.integers(0, 10_000),
    tokens=st.integers(1, 8),
    width=st.integers(1, 6),
    size=st.integers(1, 5),
    value_size=st.integers(1, 5),
)
seeds = st.integers(0, 10_000)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def test_attention_of_two_keys_by_hand():
    # logits (ln 3, 0) for a head of size 1: weights 3/4 and 1/4
    q, k, v = torch.tensor([[1.0]]), torch.tensor([[np.log(3.0)], [0.0]]), torch.tensor([[4.0], [8.0]])
    output, weights = attend(q.double(), k.double(), v.double())
    close(weights, torch.tensor([[0.75, 0.25]], dtype=torch.float64))
    close(output, torch.tensor([[5.0]], dtype=torch.float64))


@given(heads, seeds, st.booleans())
def test_key_bias_changes_nothing(pair, seed, causal):
    head, x = pair
    mask = torch.ones(len(x), len(x)).tril().bool() if causal else None
    shifted = head.shifted("k", normal(seed, len(head.b_k)))
    close(shifted(x, mask)[0], head(x, mask)[0])


@given(heads)
def test_gradient_of_the_key_bias_is_zero(pair):
    head, x = pair
    jacobian = jacobian_by_autograd(head, x, "k")
    close(jacobian, torch.zeros_like(jacobian))


@given(heads)
def test_jacobian_of_the_query_bias_is_the_covariance(pair):
    head, x = pair
    _, weights = head(x)
    measured = jacobian_by_autograd(head, x, "q")
    close(jacobian_q(weights, head.values(x), head.keys(x)), measured)


@given(heads)
def test_jacobian_of_the_value_bias_is_the_identity(pair):
    head, x = pair
    _, weights = head(x)
    measured = jacobian_by_autograd(head, x, "v")
    close(jacobian_v(weights, len(head.b_v)), measured)
    close(measured, torch.eye(len(head.b_v), dtype=torch.float64).expand_as(measured))


@given(heads, seeds)
def test_loss_gradients_follow_from_the_jacobians(pair, seed):
    head, x = pair
    outputs, weights = head(x)
    g = normal(seed, *outputs.shape)  # the loss gradient at each output
    for term, expected in (
        ("v", g.sum(0)),
        ("q", torch.einsum("nve,nv->e", jacobian_q(weights, head.values(x), head.keys(x)), g)),
    ):
        shift = torch.zeros_like(getattr(head, f"b_{term}"), requires_grad=True)
        (head.shifted(term, shift)(x)[0] * g).sum().backward()
        close(shift.grad, expected)


@given(heads, seeds)
def test_query_bias_tilts_all_queries_alike(pair, seed):
    head, x = pair
    _, weights = head(x)
    shift = normal(seed, len(head.b_q))
    close(tilt(weights, head.keys(x), shift), head.shifted("q", shift)(x)[1])


@given(heads, seeds)
def test_one_query_under_many_shifts(pair, seed):
    head, x = pair
    _, weights = head(x)
    shifts = normal(seed, 3, 2, len(head.b_q))
    many = tilt(weights[0], head.keys(x), shifts) @ head.values(x)
    for i in range(3):
        for j in range(2):
            close(many[i, j], head.shifted("q", shifts[i, j])(x)[0][0])


@given(heads, seeds, st.floats(0.1, 100))
def test_query_bias_stays_in_the_hull_of_the_values(pair, seed, size):
    head, x = pair
    shifted = head.shifted("q", size * normal(seed, len(head.b_q)))
    assert outside_hull(shifted(x)[0], head.values(x)).max() < 1e-9


def test_a_point_outside_the_hull_has_a_residual():
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    points = torch.tensor([[0.25, 0.25], [0.5, 0.5], [0.6, 0.6], [-0.1, 0.0]], dtype=torch.float64)
    inside = outside_hull(points, corners) < 1e-9
    assert inside.tolist() == [True, True, False, False]


def test_one_query_reaches_any_weights_when_its_keys_are_affinely_independent():
    head, x = random_head(seed=1, tokens=3, size=2)
    _, weights = head(x)
    wanted = torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64)
    # log ratio of the weights = shift . k_j / sqrt(d) + constant: 3 equations, 2 + 1 unknowns
    system = torch.cat([head.keys(x) / 2**0.5, torch.ones(3, 1, dtype=torch.float64)], dim=1)
    shift = torch.linalg.solve(system, torch.log(wanted / weights[0]))[:2]
    close(head.shifted("q", shift)(x)[1][0], wanted)


@given(heads, seeds)
def test_value_bias_moves_every_output_by_itself(pair, seed):
    head, x = pair
    shift = normal(seed, len(head.b_v))
    close(head.shifted("v", shift)(x)[0] - head(x)[0], shift.expand(len(x), -1))


@given(heads)
def test_bounds_of_the_sensitivity_to_the_query_bias(pair):
    head, x = pair
    _, weights = head(x)
    norm, by_spread, by_diameter = sensitivity_bounds(weights, head.values(x), head.keys(x))
    # eigenvalues near zero lose half of the digits in the square root
    assert (norm <= by_spread + 1e-6).all()
    assert (by_spread <= by_diameter + 1e-6).all()


def test_bounds_are_tight_for_two_equal_weights():
    weights = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    norm, by_spread, by_diameter = sensitivity_bounds(weights, normal(0, 2, 3), normal(1, 2, 4))
    close(norm, by_spread)
    close(norm, by_diameter)


def test_peaked_attention_is_insensitive_to_the_query_bias():
    values, keys = normal(0, 5, 2), normal(1, 5, 2)
    flat = torch.full((1, 5), 0.2, dtype=torch.float64)
    peaked = torch.tensor([[1 - 4e-6, 1e-6, 1e-6, 1e-6, 1e-6]], dtype=torch.float64)
    assert jacobian_q(peaked, values, keys).norm() < 1e-4 * jacobian_q(flat, values, keys).norm()


@given(heads, seeds)
def test_value_bias_merges_into_the_output_bias(pair, seed):
    head, x = pair
    W_o, b_o = normal(seed, 7, len(head.b_v)), normal(seed + 1, 7)
    without = head.shifted("v", -head.b_v)
    merged = without(x)[0] @ W_o.T + merge_into_output_bias(b_o, W_o, head.b_v)
    close(merged, head(x)[0] @ W_o.T + b_o)


@given(heads, st.floats(-2, 2))
def test_with_a_sink_the_value_bias_is_weakened_by_its_share(pair, sink):
    head, x = pair
    logits = head.queries(x) @ head.keys(x).T / len(head.b_k) ** 0.5
    share = np.exp(sink) / (np.exp(sink) + logits.exp().sum(-1))
    _, weights = head(x, sink=sink)
    close(weights.sum(-1), 1 - share)
    measured = torch.autograd.functional.jacobian(
        lambda b: head.shifted("v", b)(x, sink=sink)[0], torch.zeros_like(head.b_v)
    )
    close(jacobian_v(weights, len(head.b_v)), measured)


@given(heads, seeds)
def test_with_a_sink_the_key_bias_only_rescales_the_output(pair, seed):
    head, x = pair
    shifted = head.shifted("k", normal(seed, len(head.b_k)))
    before, after = head(x, sink=0.5), shifted(x, sink=0.5)
    scale = after[1].sum(-1, keepdim=True) / before[1].sum(-1, keepdim=True)
    close(after[0], scale * before[0])


def test_with_a_sink_the_key_bias_is_not_null():
    head, x = random_head()
    shifted = head.shifted("k", torch.ones(2, dtype=torch.float64))
    assert (shifted(x, sink=0.5)[0] - head(x, sink=0.5)[0]).norm() > 1e-2


def test_row_sums_under_attention_dropout_have_the_stated_mean_and_variance():
    head, x = random_head(tokens=5)
    _, weights = head(x)
    sums = dropped_row_sums(weights, p=0.3, draws=40_000)
    predicted = 0.3 / 0.7 * weights.square().sum(-1)
    # five standard errors of 40,000 draws
    assert (sums.mean(0) - 1).abs().max() < 5 * (predicted.max() / 40_000) ** 0.5
    torch.testing.assert_close(sums.var(0), predicted, rtol=0.05, atol=0)


def test_reached_points_stay_inside_the_hull_leave_it_or_do_not_move():
    head, x = random_head(seed=0)
    points = reached(head, x, rays=8)
    assert points["v"].shape == points["q"].shape == (8, 200, 2) and points["k"].shape == (8, 1, 2)
    assert points["values"].shape == (6, 2) and np.allclose(points["output"], head(x)[0][0])
    starts = np.concatenate([points["v"][:, 0], points["q"][:, 0], points["k"][:, 0]])
    assert np.allclose(starts, points["output"])
    flat = {term: torch.from_numpy(points[term].reshape(-1, 2)) for term in "vq"}
    assert outside_hull(flat["q"], head.values(x)).max() < 1e-6
    assert outside_hull(flat["v"], head.values(x)).max() > 0.1
