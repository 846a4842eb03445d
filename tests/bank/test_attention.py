"""Attention of packed rows in groups of like length is attention row by row: outputs, gradients, dropout, few sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from beft.bank import attention
from beft.bank.attention import GROUP, LONG, Groups, attend, cut, drop_weights_of, whole_length, whole_rows
from beft.bank.dropout import ForwardState, example_keys, keep_mask, mix
from beft.bank.unpadded import Tokens

PLACE, P, D = 5, 0.3, 4
rows_of_lengths = st.lists(st.integers(1, 40), min_size=2, max_size=9)


def packed(lengths, heads, p, first):
    """Random query, key and value (1, H, M, d), a module whose bank packs rows of these lengths, and its state."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    state, module = ForwardState(1), nn.Module()
    state.tokens, state.attentions, module.dropout = Tokens.of(mask.long()), (PLACE - 1, PLACE), p
    state.keys = example_keys(torch.zeros(len(lengths), dtype=torch.long), 3, torch.arange(len(lengths)))
    state.reads_first = module if first else None
    drop_weights_of(module, state, PLACE)
    g = torch.Generator().manual_seed(sum(lengths))
    return [torch.randn(1, heads, sum(lengths), D, generator=g).requires_grad_() for _ in range(3)], module, state


def row_by_row(q, k, v, state, p, bias):
    """(1, M, H, d), written out for one row after another."""
    out, at = [], 0
    for key, length in zip(state.keys, state.tokens.lengths.tolist(), strict=True):
        a, b, c = (x[0, :, at : at + length] for x in (q, k, v))
        scores = a @ b.transpose(1, 2) * 0.7 + (0 if bias is None else bias[:, :length, :length])
        keep = keep_mask(mix(key[None] + np.int32(state.salt(PLACE))), (len(a), length, length), p)[0]
        out.append((torch.softmax(scores, -1) * keep / (1 - p) @ c).transpose(0, 1))
        at += length
    return torch.cat(out)[None]


@settings(max_examples=40, deadline=None)
@given(
    lengths=rows_of_lengths,
    heads=st.integers(1, 3),
    p=st.sampled_from([0.0, P]),
    first=st.booleans(),
    biased=st.booleans(),
)
def test_outputs_and_gradients_are_those_of_rows_alone(lengths, heads, p, first, biased):
    (q, k, v), module, state = packed(lengths, heads, p, first)
    bias = torch.randn(heads, max(lengths), max(lengths)).requires_grad_() if biased else None
    expected = row_by_row(q, k, v, state, p, bias)
    if first:  # the others are not computed
        read = torch.zeros(sum(lengths)).index_fill(0, state.tokens.first, 1.0)
        expected = expected * read[None, :, None, None]
    got = attend(module, q, k, v, 0.7, bias)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    given_back = torch.randn(got.shape)
    needed = (q, k, v) if bias is None else (q, k, v, bias)
    for own, other in zip(*(torch.autograd.grad(x, needed, given_back) for x in (got, expected)), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 2)])
def test_a_gradient_alone_is_the_one_among_all(needed):
    (q, k, v), module, _ = packed([5, 17, 2], 2, P, False)
    every = torch.autograd.grad(attend(module, q, k, v, 0.7).square().sum(), (q, k, v))
    alone = [x.detach().requires_grad_(i in needed) for i, x in enumerate((q, k, v))]
    some = torch.autograd.grad(attend(module, *alone, 0.7).square().sum(), [alone[i] for i in needed])
    for i, own in zip(needed, some, strict=True):
        assert torch.equal(own, every[i])


@pytest.mark.parametrize("biased", [False, True])
def test_long_rows_without_gradients_keep_no_scores_and_say_the_same(biased, monkeypatch):
    (q, k, v), module, _ = packed([LONG + 40, 3, LONG + 9], 2, 0.0, False)
    bias, calls = torch.randn(2, LONG + 40, LONG + 40) if biased else None, []
    without = attention._without_scores
    monkeypatch.setattr(attention, "_without_scores", lambda *given: calls.append(1) or without(*given))
    own = attend(module, *(x.detach() for x in (q, k, v)), 0.7, bias)
    assert calls
    torch.testing.assert_close(own, attend(module, q, k, v, 0.7, bias), rtol=1e-4, atol=1e-5)


def test_a_row_without_numbers_is_alone_with_that():
    """Places behind the end of a row read its own last token, and no other row's."""
    lengths = [9, 4, 4, 1]
    (q, k, v), module, state = packed(lengths, 2, P, False)
    broken = [x.detach().clone() for x in (q, k, v)]
    of_row = torch.arange(9, 13)
    for x in broken:
        x[:, :, of_row] = float("nan")
        x.requires_grad_()
    whole, part = attend(module, q, k, v, 0.7), attend(module, *broken, 0.7)
    others = [i for i in range(sum(lengths)) if i not in of_row]
    assert torch.equal(part[:, others], whole[:, others]) and part[:, of_row].isnan().all()
    gradients = [torch.autograd.grad(out.sum(), x) for out, x in ((whole, (q, k, v)), (part, broken))]
    for own, other in zip(*gradients, strict=True):
        assert torch.equal(own[:, :, others], other[:, :, others])


def test_heads_that_share_a_key_and_a_value_are_those_with_copies():
    (q, k, v), module, _ = packed([5, 3], 4, P, False)
    shared = [x[:, :2].detach() for x in (k, v)]
    copies = [x.repeat_interleave(2, dim=1) for x in shared]
    assert torch.equal(attend(module, q, *shared, 0.7), attend(module, q, *copies, 0.7))


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=7))
def test_no_cut_into_groups_costs_less(lengths):
    ordered = np.sort(lengths)[::-1]

    def cost(groups):
        sizes = [(b - a, whole_length(int(ordered[a]))) for a, b in groups]
        return sum(GROUP + whole_rows(n, longest) * longest**2 for n, longest in sizes)

    own = cut(ordered)
    assert [a for a, _ in own] == [0, *(b for _, b in own[:-1])] and own[-1][1] == len(lengths)
    places = [i for i in range(1, len(lengths)) if ordered[i] != ordered[i - 1]]  # where another length begins
    for chosen in range(2 ** len(places)):
        ends = [place for i, place in enumerate(places) if chosen >> i & 1]
        assert cost(own) <= cost(list(zip([0, *ends], [*ends, len(lengths)], strict=True)))


def test_there_are_few_sizes_of_matrices():
    """A CPU prepares products in bfloat16 for each, which takes longer than they do."""
    rng, sizes = np.random.default_rng(0), set()
    for _ in range(300):
        lengths = torch.from_numpy(rng.geometric(1 / 12, size=rng.integers(8, 60)).clip(1, 60))
        mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        sizes |= set(Groups(Tokens.of(mask), 12, None).sizes)
    assert len(sizes) < 70
    assert [whole_length(n) for n in (1, 16, 17, 25, 64)] == [16, 16, 24, 32, 64]
    assert [whole_rows(n, 32) for n in (1, 4, 31, 33, 65)] == [4, 4, 32, 40, 80]
    assert [whole_rows(n, 512) for n in (1, 2, 9)] == [1, 2, 10], "a row of 512 tokens costs more than a new size"
