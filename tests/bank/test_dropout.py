"""Keyed dropout: right rate, no visible structure, and a mask that depends on nothing but the example's key."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from beft.bank.attention import drop_weights_of, keyed_attention
from beft.bank.dropout import (
    ForwardState,
    dropout,
    example_keys,
    keep_bits,
    keep_mask,
    mix,
    with_bits,
)

int32s = st.integers(-(2**31), 2**31 - 1)


def some_keys(n, seed=0, step=0):
    return example_keys(torch.full((n,), seed), step, torch.arange(n))


def correlation(a, b):
    a, b = a.double().flatten() - a.double().mean(), b.double().flatten() - b.double().mean()
    return float((a * b).mean() / (a.square().mean() * b.square().mean()).sqrt())


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_units_are_dropped_at_the_asked_rate(p):
    keep = keep_mask(some_keys(64), (50, 63), p).double()
    sigma = (p * (1 - p)) ** 0.5
    assert abs(float(keep.mean()) - (1 - p)) < 4 * sigma / keep.numel() ** 0.5
    for axes in ((1, 2), (0, 2), (0, 1)):  # by example, by position, by feature
        means = keep.mean(axes)
        n = keep.numel() / len(means)
        assert (means - (1 - p)).abs().max() < 5 * sigma / n**0.5
        assert 0.5 < float(means.std()) / (sigma / n**0.5) < 1.6  # as spread as independent units would be


def test_masks_of_examples_features_positions_places_and_steps_are_uncorrelated():
    keep = keep_mask(some_keys(64), (40, 64), 0.3)
    state, ones = ForwardState(1), torch.ones(64, 40, 64)
    state.keys = some_keys(64)
    pairs = {
        "examples": (keep[:-1], keep[1:]),
        "positions": (keep[:, :-1], keep[:, 1:]),
        "features": (keep[..., :-1], keep[..., 1:]),
        "two units of one hash": (keep[..., 0::2], keep[..., 1::2]),
        "far features": (keep[..., :32], keep[..., 32:]),
        "steps": (keep, keep_mask(some_keys(64, step=1), (40, 64), 0.3)),
        "seeds": (keep, keep_mask(some_keys(64, seed=1), (40, 64), 0.3)),
        "places": (state.dropout(ones, 1, 0.3) > 0, state.dropout(ones, 2, 0.3) > 0),
    }
    for name, (a, b) in pairs.items():
        assert abs(correlation(a, b)) < 5 / a.numel() ** 0.5, name


@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(int32s, min_size=1, max_size=4),
    small=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    extra=st.lists(st.integers(0, 5), min_size=3, max_size=3),
    p=st.floats(0, 0.99),
)
def test_a_mask_has_its_shape_and_is_the_corner_of_any_larger_one(keys, small, extra, p):
    """Padding makes T larger and odd widths cut a hash in two; neither may change what is dropped."""
    k = torch.tensor(keys, dtype=torch.int32)
    mask = keep_mask(k, small, p)
    assert mask.shape == (len(keys), *small) and mask.dtype == torch.bool
    larger = keep_mask(k, [n + e for n, e in zip(small, extra)], p)
    assert torch.equal(larger[(slice(None), *(slice(n) for n in small))], mask)


@settings(max_examples=100, deadline=None)
@given(keys=st.lists(int32s, min_size=1, max_size=5), last=st.integers(1, 9), p=st.floats(0, 0.9999))
def test_units_are_decided_by_the_two_halves_of_a_hash(keys, last, p):
    """As the kernels of a GPU decide, and banks always did: a signed half is at least the border."""
    k = torch.tensor(keys, dtype=torch.int32)
    mixed = mix_wide(torch.tensor(keys)[:, None] ^ mix_wide(torch.arange(1, last + 1) * 0x9E3779B9), last=True)
    halves = torch.stack([mixed & 0xFFFF, mixed >> 16], -1).flatten(1)[:, :last]
    signed = torch.where(halves >= 2**15, halves - 2**16, halves)
    bits = keep_bits(k, last, p)
    assert torch.equal(bits != 0, signed >= round(p * 65536) - 32768)
    assert set(bits.unique().tolist()) <= {0, -1}


def mix_wide(x, last=False):
    """The finaliser in 64 bits; without its first and last step for a key that is mixed already."""
    x = x & 0xFFFFFFFF
    x = x if last else x ^ x >> 16
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x = (x ^ x >> 15) * 0x846CA68B & 0xFFFFFFFF
    return x if last else x ^ x >> 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_unit_is_its_own_bits_or_zero(dtype):
    x = torch.tensor([[1.5, -2.0, float("nan"), 3.0], [float("inf"), 0.0, -7.25, float("nan")]], dtype=dtype)
    bits = torch.tensor([[-1, 0, 0, -1], [0, -1, -1, 0]], dtype=torch.int16)
    assert torch.equal(with_bits(x, bits), torch.tensor([[1.5, 0, 0, 3], [0, 0, -7.25, 0]], dtype=dtype))
    assert torch.equal(with_bits(x.T, bits.T), with_bits(x, bits).T), "whatever the strides"


@settings(max_examples=40, deadline=None)
@given(keys=st.lists(int32s, min_size=1, max_size=6), order=st.randoms(use_true_random=False))
def test_a_mask_does_not_depend_on_the_other_examples_of_the_chunk(keys, order):
    k = torch.tensor(keys, dtype=torch.int32)
    shuffled = torch.tensor(order.sample(range(len(keys)), len(keys)))
    mask = keep_mask(k, (3, 5), 0.5)
    assert torch.equal(keep_mask(k[shuffled], (3, 5), 0.5), mask[shuffled])
    assert torch.equal(keep_mask(k[:1], (3, 5), 0.5), mask[:1])


def test_the_hash_is_a_bijection_on_a_sample_and_keys_are_distinct():
    assert len(torch.unique(mix(torch.arange(-50_000, 50_000, dtype=torch.int32)))) == 100_000
    keys = torch.cat([some_keys(16, seed, step) for seed in range(8) for step in range(50)])
    assert len(torch.unique(keys)) == len(keys)


def test_nothing_is_dropped_at_probability_zero():
    assert keep_mask(some_keys(8), (9, 31), 0.0).all()


def test_dropout_scales_what_it_keeps_so_that_the_mean_stays():
    x = torch.full((64, 20, 33), 2.0)
    out = dropout(x, some_keys(64), 0.2)
    assert set(out.unique().tolist()) == {0.0, 2.5}
    assert float(out.mean()) == pytest.approx(2.0, abs=0.02)
    assert dropout(x.bfloat16(), some_keys(64), 0.2).dtype == torch.bfloat16


def test_dropout_that_is_off_or_of_rate_zero_hands_the_input_on():
    state, x = ForwardState(1), torch.randn(2, 3, 4)
    assert state.dropout(x, 1, 0.5) is x
    state.keys = some_keys(2)
    assert state.dropout(x, 1, 0.0) is x
    assert not torch.equal(state.dropout(x, 1, 0.5), x)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("way", ["no bank", "dropout off", "rate 0", "written out"])
def test_keyed_attention_without_dropout_is_softmax_attention(way, masked):
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 2, 5, 4, generator=g) for _ in range(3))
    mask = torch.zeros(3, 1, 1, 5)
    if masked:
        mask[0, ..., 3:] = torch.finfo(torch.float32).min
    module, state = nn.Module(), ForwardState(1)
    module.is_causal = False
    if way != "no bank":
        state.keys = None if way == "dropout off" else some_keys(3)
        # a probability below the resolution of the hash drops nothing, but takes the branch that can
        module.dropout = {"dropout off": 0.5, "rate 0": 0.0, "written out": 1e-7}[way]
        drop_weights_of(module, state, 7)
    got, _ = keyed_attention(module, q, k, v, mask if masked else None, scaling=0.3)
    weights = torch.softmax(torch.einsum("bhid,bhjd->bhij", q, k) * 0.3 + mask, dim=-1)
    torch.testing.assert_close(got, torch.einsum("bhij,bhjd->bihd", weights, v), rtol=1e-5, atol=1e-6)


def test_attention_dropout_drops_the_same_weights_alone_and_beside_longer_texts():
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, 6, 4, generator=g) for _ in range(3))
    state, module = ForwardState(1), nn.Module()
    module.dropout = 0.4
    drop_weights_of(module, state, 7)
    mask = torch.zeros(2, 1, 1, 6)
    mask[0, ..., 4:] = torch.finfo(torch.float32).min
    keys = state.keys = some_keys(2)
    padded, _ = keyed_attention(module, q, k, v, mask)
    state.keys = keys[:1]
    alone, _ = keyed_attention(module, q[:1, :, :4], k[:1, :, :4], v[:1, :, :4], None)
    torch.testing.assert_close(padded[:1, :4], alone, rtol=1e-5, atol=1e-6)
    drop_weights_of(module, state, 8)
    other, _ = keyed_attention(module, q[:1, :, :4], k[:1, :, :4], v[:1, :, :4], None)
    assert not torch.allclose(other, alone)
