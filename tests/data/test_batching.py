"""Chunks waste little and lose nothing; encoding keeps pairs and lengths."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from beft.data.batching import CHUNKS, ChunkCost, Encoded, chunks, encode, encode_each
from beft.errors import BeftError

lengths_of = st.lists(st.integers(1, 128), min_size=1, max_size=60)
costs = st.builds(ChunkCost, st.integers(1, 600), st.integers(0, 200), st.integers(1, 5))


def price(lengths, cut, cost):
    return sum(len(p) * int(lengths[p].max()) + cost.call for p in cut)


@settings(max_examples=150, deadline=None)
@given(lengths=lengths_of, cost=costs)
def test_chunks_are_a_partition_within_the_budget_longest_first(lengths, cost):
    lengths = np.array(lengths)
    cut = chunks(lengths, cost)
    assert sorted(np.concatenate(cut).tolist()) == list(range(len(lengths)))
    for chunk in cut:
        assert len(chunk) <= cost.rows or len(chunk) * lengths[chunk].max() <= cost.tokens
    assert all(len(chunk) % cost.rows == 0 for chunk in cut[:-1])
    together = lengths[np.concatenate(cut)]
    assert (np.diff(together) <= 0).all()


@settings(max_examples=150, deadline=None)
@given(lengths=lengths_of, cost=costs, steps=st.integers(1, 20))
def test_chunks_cost_no_more_than_pieces_of_a_fixed_size(lengths, cost, steps):
    lengths = np.array(lengths)
    order = np.argsort(-lengths, kind="stable")
    size = steps * cost.rows
    pieces = [order[i : i + size] for i in range(0, len(order), size)]
    allowed = []
    for piece in pieces:  # a piece over the budget is cut down to what fits
        fits = max(1, cost.tokens // int(lengths[piece].max()) // cost.rows) * cost.rows
        allowed += [piece[i : i + fits] for i in range(0, len(piece), fits)]
    assert price(lengths, chunks(lengths, cost), cost) <= price(lengths, allowed, cost)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=9), cost=costs)
def test_chunks_cost_as_little_as_the_best_of_all_cuts(lengths, cost):
    lengths = np.array(lengths)
    order, n = np.argsort(-lengths, kind="stable"), len(lengths)
    prices = []
    places = range(cost.rows, n, cost.rows)
    for count in range(len(places) + 1):
        for cuts in combinations(places, count):
            cut = np.split(order, cuts)
            if all(len(p) <= cost.rows or len(p) * lengths[p].max() <= cost.tokens for p in cut):
                prices.append(price(lengths, cut, cost))
    assert price(lengths, chunks(lengths, cost), cost) == min(prices)


def test_equal_lengths_keep_their_order_and_the_cut_is_repeatable():
    lengths = np.array([5, 9, 5, 9, 5, 5])
    cut = chunks(lengths, ChunkCost(18, 1, 1))
    assert np.concatenate(cut).tolist() == [1, 3, 0, 2, 4, 5]
    again = chunks(lengths.copy(), ChunkCost(18, 1, 1))
    assert [p.tolist() for p in again] == [p.tolist() for p in cut]


@pytest.mark.parametrize("seed", range(5))
def test_a_stacked_step_of_short_sentences_computes_little_padding(seed):
    """320 rows, as 20 runs of batch 16, with lengths spread like SST-2's phrases: median 10, longest some 65."""
    generator = np.random.default_rng(seed)
    lengths = np.clip(np.round(generator.lognormal(np.log(10), 0.6, 320)), 3, 66).astype(np.int64)
    encoded = Encoded({"input_ids": torch.zeros(320, 66, dtype=torch.long)}, lengths)
    for chunk in chunks(lengths, CHUNKS["cpu"]):
        assert encoded.rows(chunk, torch.device("cpu"))["input_ids"].shape == (
            len(chunk),
            lengths[chunk].max(),
        )
    assert encoded.padding.real == lengths.sum()
    assert encoded.padding.efficiency >= 0.9
    assert lengths.sum() / (240 * lengths.max()) < 0.5  # which one padded batch would have had


def test_texts_are_encoded_with_their_lengths_and_cut_to_the_longest_allowed(tiny):
    encoded = encode(tiny.tokenizer, [("film",), ("film film film film",), ("film film",)], 5)
    assert encoded.lengths.tolist() == [3, 5, 4]  # with [CLS] and [SEP]
    assert {tuple(c.shape) for c in encoded.columns.values()} == {(3, 5)}
    picked = encoded.rows(np.array([2, 0]), torch.device("cpu"))
    assert picked["input_ids"].shape == (2, 4)
    assert torch.equal(picked["input_ids"], encoded.columns["input_ids"][[2, 0], :4])
    assert picked["attention_mask"].sum(1).tolist() == [4, 3]


@pytest.mark.parametrize("columns", [1, 2])
def test_texts_are_padded_as_the_tokenizer_pads_them(tiny, columns):
    texts = [("a bad film",) * columns, ("good",) * columns, ("a film that is good and bad and good again",) * columns]
    encoded = encode(tiny.tokenizer, texts, 9)
    settings = {"truncation": True, "max_length": 9, "padding": "longest", "padding_side": "right"}
    own = tiny.tokenizer(*(list(c) for c in zip(*texts, strict=True)), **settings, return_tensors="pt")
    assert list(encoded.columns) == list(own) and len(own) > 1
    for name, column in own.items():
        assert torch.equal(encoded.columns[name], column) and encoded.columns[name].dtype == column.dtype


def test_pairs_are_encoded_as_two_texts_in_order(tiny):
    tiny.tokenizer.model_input_names = [
        "input_ids",
        "token_type_ids",
        "attention_mask",
    ]  # as BERT's own has it
    start, separator, first = (tiny.tokenizer.cls_token_id, tiny.tokenizer.sep_token_id, 10)
    words = tiny.tokenizer.convert_ids_to_tokens([first, first + 1])
    one, two = first, first + 1
    encoded = encode(tiny.tokenizer, [(words[0], f"{words[1]} {words[0]}")], 16)
    assert encoded.columns["input_ids"].tolist() == [[start, one, separator, two, one, separator]]
    assert encoded.columns["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1]]
    assert encoded.lengths.tolist() == [6]


def test_padding_efficiency_before_the_first_chunk_is_not_a_number(tiny):
    assert np.isnan(encode(tiny.tokenizer, [("film",)], 8).padding.efficiency)


def test_a_length_without_room_for_text_is_refused(tiny):
    assert encode(tiny.tokenizer, [("good",)], 3).lengths.tolist() == [3]
    with pytest.raises(BeftError, match="max_length 2 leaves no token for text beside 2 special tokens: give 3"):
        encode(tiny.tokenizer, [("good",)], 2)
    with pytest.raises(BeftError, match="beside 3 special tokens"):
        encode(tiny.tokenizer, [("good", "bad")], 3)


def test_singles_and_pairs_of_several_lengths_are_encoded_each_as_by_itself(tiny):
    long = "the film was good and the plot was bad " * 4
    texts = [("film",), (long, "a plot"), (long,), ("good", "bad"), (long,)]
    lengths = [128, 20, 7, 20, 128]
    encoded = encode_each(tiny.tokenizer, texts, lengths)
    for i, (row, length) in enumerate(zip(texts, lengths)):
        alone = encode(tiny.tokenizer, [row], length)
        assert encoded.lengths[i] == alone.lengths[0]
        for name, column in alone.columns.items():
            assert torch.equal(encoded.columns[name][i, : column.shape[1]], column[0])
            rest = encoded.columns[name][i, column.shape[1] :]
            assert (rest == (tiny.tokenizer.pad_token_id if name == "input_ids" else 0)).all()
