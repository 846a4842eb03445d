"""What is computed without padding is what is computed with it: outputs, gradients, dropout, whatever the encoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from encoders import FAMILIES, build
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification

from beft.bank import unpadded
from beft.bank.bank import BiasBank
from beft.bank.baselines import open_bank
from beft.bank.dropout import example_keys
from beft.data.batching import CHUNKS, ChunkCost, Encoded, chunks, whole
from beft.training import classification
from beft.training.classification import logits

UNPADDED = ("bert", "roberta", "electra", "mpnet")


def batch(lengths):
    """Ids (B, T) of rows of these lengths, padded on the right."""
    ids = torch.randint(5, 60, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": ids * mask + (1 - mask), "attention_mask": mask}


def outcome(model, methods, run_ids, inputs, padded, dtype="float32"):
    """Logits with dropout and without, and the gradients of the former."""
    with open_bank(model, methods, list(range(len(methods))), dtype) as bank:
        if padded:
            bank.padded = 1.0
        keys = example_keys(bank.seeds[run_ids], 3, torch.arange(len(run_ids)))
        logits = bank(run_ids, keys, **inputs)
        (logits * torch.arange(1, 1 + logits.numel()).view_as(logits)).sum().backward()
        with torch.no_grad():
            plain = bank(run_ids, None, **inputs)
        return logits.detach(), plain, {slot.parameter: slot.values.grad for slot in bank.slots}


@pytest.mark.parametrize("family", UNPADDED)
@pytest.mark.parametrize("methods", [["b_v", "b_q", "all_biases", "head"], ["b_v[1]"], ["lora"], ["full"]])
def test_outputs_dropout_and_gradients_are_those_with_padding(family, methods):
    model, inputs = build(family), batch([7, 3, 5, 1])
    run_ids = torch.arange(4) % len(methods)
    without, still, gradients = outcome(model, methods, run_ids, inputs, padded=False)
    with_padding, also_still, same = outcome(model, methods, run_ids, inputs, padded=True)
    torch.testing.assert_close(without, with_padding, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(still, also_still, rtol=1e-4, atol=1e-6)
    assert gradients.keys() == same.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, same[name], rtol=1e-3, atol=1e-4)


def test_which_encoders_are_computed_without_padding():
    for family in FAMILIES:
        with BiasBank(build(family), ["b_v"], [0]) as bank:
            assert (bank.padded < 1) == (family in UNPADDED)
            assert bank.padded == (0.0 if family in UNPADDED else 1.0)
    for method in ("full", "lora"):
        with open_bank(build("mpnet"), [method], [0]) as bank:
            assert bank.padded == 0.0


def test_layers_see_the_real_tokens_alone():
    model, seen = build("bert"), []
    model.bert.encoder.layer[0].intermediate.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    with BiasBank(model, ["b_v"] * 2, [0, 1]) as bank:
        bank(torch.tensor([0, 1, 0]), None, **batch([7, 3, 5]))
        bank(torch.tensor([0, 1]), None, **batch([7, 7]))
        bank(torch.tensor([0]), None, **batch([7]))
    assert seen == [(1, 15, 16), (1, 14, 16), (1, 7, 16)]


def test_padding_on_the_left_is_computed_as_it_was():
    model, inputs = build("bert"), {name: x.flip(1) for name, x in batch([7, 3]).items()}
    assert unpadded.tokens_of(inputs["attention_mask"]) is None
    runs = torch.tensor([0, 1])
    first, second = (outcome(model, ["b_v", "b_q"], runs, inputs, padded)[1] for padded in (False, True))
    assert torch.equal(first, second)


def test_nan_of_a_run_stays_in_its_own_gradient():
    tokens = unpadded.Tokens.of(batch([4, 2, 3])["attention_mask"])
    values = torch.zeros(2, 5, requires_grad=True)
    out = unpadded.OfTokens.apply(values, torch.tensor([0, 1, 0]), tokens)
    weight = torch.ones_like(out)
    weight[4:6] = float("nan")  # the tokens of the second row
    out.backward(weight)
    assert torch.equal(values.grad[0], torch.full((5,), 7.0)) and values.grad[1].isnan().all()


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_tokens_are_packed_and_put_back(lengths):
    tokens = unpadded.Tokens.of(batch(lengths)["attention_mask"])
    x = torch.randn(1, sum(lengths), 4, dtype=torch.float64, requires_grad=True)
    padded = tokens.pad(x)
    assert padded.shape == (len(lengths), max(lengths), 4) and torch.equal(tokens.pack(padded), x)
    assert torch.equal(tokens.firsts(x)[:, 0], padded[:, 0])
    for row, length in enumerate(lengths):
        assert not padded[row, length:].any()
    assert torch.autograd.gradcheck(tokens.pad, x) and torch.autograd.gradcheck(
        tokens.pack, padded.detach().requires_grad_()
    )


def test_chunks_are_fewer_where_padding_costs_little():
    lengths = np.random.default_rng(0).integers(5, 60, 64)
    apart, together = (chunks(lengths, ChunkCost(1024, 32, padded=padded)) for padded in (1.0, 0.2))
    assert len(together) < len(apart)
    assert sorted(np.concatenate(together)) == list(range(64))
    assert max(lengths[part].sum() for part in together) <= 1024


@pytest.mark.parametrize("family", UNPADDED)
@pytest.mark.parametrize("lengths", [[7, 3, 5], [6, 6], [4]])
def test_layers_that_no_run_changes_are_computed_once_for_all_runs(family, lengths):
    model, inputs, seen = build(family), batch(lengths), {0: [], 1: []}
    stack = getattr(model, model.base_model_prefix).encoder.layer
    for n in (0, 1):
        stack[n].register_forward_pre_hook(lambda _, args, n=n: seen[n].append(args[0].shape[:2].numel()))
    with BiasBank(model, ["b_v[1]", "b_q[1]", "head"], [0, 1, 2]) as bank, torch.no_grad():
        for slot in bank.slots:
            slot.values.normal_(generator=torch.Generator().manual_seed(slot.values.shape[-1]))
        every = bank.every_run(**inputs)
        assert bank.lowest == 1 and seen[0][-1] <= len(lengths) * max(lengths)
        B = len(lengths)
        alone = torch.stack([bank(torch.full((B,), run), None, **inputs) for run in range(3)])
        torch.testing.assert_close(every, alone, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(every[0], every[1])
    with BiasBank(model, ["b_v[1]", "b_q"], [0, 1]) as bank:
        assert bank.lowest == 0


@pytest.mark.parametrize("family", UNPADDED)
@pytest.mark.parametrize("methods", ["b_v b_v head", "b_v:lora b_v[1] b_v", "b_v[1] head b_v[1]"])
@pytest.mark.parametrize("lengths", [[7, 3, 5], [6, 6], [4]])
def test_attention_below_the_lowest_changed_values_is_computed_once_for_all_runs(family, methods, lengths):
    """Weights of attention sum to one, so biases of values are added behind it, exactly."""
    model, inputs, B = build(family), batch(lengths), len(lengths)
    with BiasBank(model, methods.split(), [0, 1, 2]) as bank, torch.no_grad():
        lowest = bank.lowest
        value = model.get_submodule(bank.anatomy.of("v")[lowest].module)
        layer = getattr(model, model.base_model_prefix).encoder.layer[lowest]
        seen, there = [], []
        value.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:2].numel()))
        layer.intermediate.register_forward_pre_hook(lambda _, args: there.append(args[0].shape[:2].numel()))
        for slot in bank.slots:
            drawn = torch.randn(slot.values.shape, generator=torch.Generator().manual_seed(1))
            slot.values.copy_(drawn * slot.trained.view(-1, *[1] * (drawn.dim() - 1)))
        every = bank.every_run(**inputs)
        assert lowest == (0 if "b_v" in methods.split() else 1) and seen == [sum(lengths)]
        assert there == [3 * (B if lowest == 1 else sum(lengths))], "the last layer is computed for first tokens alone"
        alone = torch.stack([bank(torch.full((B,), run), None, **inputs) for run in range(3)])
        torch.testing.assert_close(every, alone, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(every[0], every[1])
        for slot in bank.slots:
            slot.values[1] = float("nan")
        broken = bank.every_run(**inputs)
        assert broken[1].isnan().all()
        torch.testing.assert_close(broken[::2], alone[::2], rtol=1e-4, atol=1e-5)


def test_a_hook_on_the_output_of_attention_is_part_of_every_run():
    """What a run adds behind it must have passed it, and such a layer is not its weight alone."""
    model, inputs = build("bert"), batch([7, 3, 5])
    with BiasBank(model, ["b_v"] * 2, [0, 1]) as bank, torch.no_grad():
        bank.slots[0].values.normal_()
        dense = model.bert.encoder.layer[0].attention.output.dense
        handle = dense.register_forward_hook(lambda _, args, output: 3 * output)
        every = bank.every_run(**inputs)
        alone = torch.stack([bank(torch.full((3,), run), None, **inputs) for run in range(2)])
        torch.testing.assert_close(every, alone, rtol=1e-4, atol=1e-5)
        handle.remove()
        assert not torch.allclose(bank.every_run(**inputs), every)


def test_runs_that_share_rows_take_any_inputs_and_layers_that_are_computed_again():
    model, inputs, runs = build("bert"), batch([7, 3, 5]), torch.tensor([0, 0, 0, 1, 1, 1])
    twice = {name: x.repeat(2, 1) for name, x in inputs.items()}
    embedded = model.bert.embeddings.word_embeddings(inputs["input_ids"])
    with BiasBank(model, ["b_v"] * 2, [0, 1]) as bank:
        expected = bank(runs, None, **twice).unflatten(0, (2, 3))
        expected.square().sum().backward()
        gradient = bank.slots[0].values.grad.clone()
        of_embeddings = bank.every_run(inputs_embeds=embedded, attention_mask=inputs["attention_mask"])
        torch.testing.assert_close(of_embeddings, expected, rtol=1e-4, atol=1e-5)
        bank.slots[0].values.grad = None
        with bank.recomputing():
            bank.every_run(**inputs).square().sum().backward()
        torch.testing.assert_close(bank.slots[0].values.grad, gradient, rtol=1e-4, atol=1e-5)


def test_an_encoder_that_no_run_changes_computes_no_padding():
    model, seen = build("bert"), []
    model.bert.encoder.layer[0].intermediate.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    with BiasBank(model, ["head"] * 2, [0, 1]) as bank, torch.no_grad():
        assert bank.every_run(**batch([7, 3, 5])).shape == (2, 3, 2)
    assert seen == [(1, 15, 16)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("methods", ["b_v b_v", "head head"])
@pytest.mark.parametrize("layers", [1, 2])
def test_every_run_is_each_run_whatever_its_precision_and_depth(dtype, methods, layers):
    config = FAMILIES["bert"].__class__(**FAMILIES["bert"].to_dict() | {"num_hidden_layers": layers})
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval().requires_grad_(False)
    inputs = batch([7, 3, 5])
    with BiasBank(model, methods.split(), [0, 1], dtype) as bank, torch.no_grad():
        for slot in bank.slots:
            slot.values.normal_(generator=torch.Generator().manual_seed(slot.values.shape[-1]))
        every = bank.every_run(**inputs)
        alone = torch.stack([bank(torch.full((3,), run), None, **inputs) for run in range(2)])
        exact = {"rtol": 0.05, "atol": 0.05} if dtype == "bfloat16" else {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(every, alone, **exact)


def test_a_bank_in_bfloat16_needs_no_mask():
    model, inputs = build("bert"), batch([6, 6])
    with BiasBank(model, ["b_v"], [0], "bfloat16") as bank, torch.no_grad():
        runs = torch.zeros(2, dtype=torch.long)
        without = bank(runs, None, input_ids=inputs["input_ids"])
        torch.testing.assert_close(without, bank(runs, None, **inputs), rtol=0.05, atol=0.05)


def test_rows_with_holes_are_computed_as_they_were():
    """A token's place in its row is not its place among the row's tokens then, and distances are of the former."""
    mask = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1]])
    assert unpadded.tokens_of(mask, full=True) is None
    assert unpadded.tokens_of(torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])) is not None


@pytest.mark.parametrize(("R", "shares"), [(12, True), (14, False)])  # 240 and 280 tokens of a row and all runs, of 256
def test_rows_that_runs_share_become_no_more_than_a_few_chunks(R, shares, monkeypatch):
    model, inputs, seen = build("bert"), batch([20] * 8), []
    encoded, cost = Encoded(inputs, np.full(8, 20)), ChunkCost(64, 32)
    with BiasBank(model, ["b_v"] * R, list(range(R))) as bank:
        every_run = bank.every_run
        monkeypatch.setattr(bank, "every_run", lambda **x: seen.append(x["input_ids"].numel()) or every_run(**x))
        logits(bank, encoded, [np.arange(8)] * R, cost)
    most = classification.PARTED * classification.UNTRAINED * cost.tokens
    assert bool(seen) == shares and all(R * tokens <= most for tokens in seen)


def test_runs_that_change_more_than_values_part_in_front_of_the_layer():
    for names, shares in (("b_v b_q", False), ("b_v b_v", True), ("b_v", False), ("b_v[1] b_q[1]", True)):
        methods = names.split()
        with BiasBank(build("bert"), methods, list(range(len(methods)))) as bank:
            assert bank.shares == shares and (bank.state.parting is not None) == (names == "b_v b_v")


def test_gradients_of_few_digits_are_summed_in_many():
    tokens = unpadded.Tokens.of(batch([400, 300])["attention_mask"])
    values = torch.zeros(2, 3, requires_grad=True)
    out = unpadded.OfTokens.apply(values, torch.tensor([1, 0]), tokens, 0, torch.bfloat16)
    assert out.dtype == torch.bfloat16
    out.backward(torch.ones_like(out))
    assert values.grad[:, 0].tolist() == [300, 400], "in bfloat16 a sum of ones ends at 256"


def test_validation_of_runs_in_high_layers_shares_the_low_ones(monkeypatch):
    model, inputs, calls = build("bert"), batch([7, 3, 5, 2, 6]), []
    encoded = Encoded(inputs, inputs["attention_mask"].sum(1).numpy())
    with BiasBank(model, ["b_v[1]", "b_q[1]"], [0, 1]) as bank:
        every_run = bank.every_run
        monkeypatch.setattr(bank, "every_run", lambda **given: calls.append(1) or every_run(**given))
        rows = np.arange(5)
        shared = logits(bank, encoded, [rows, rows], CHUNKS["cpu"])
        assert calls, "the same rows"
        apart = logits(bank, encoded, [rows, rows[:4]], CHUNKS["cpu"])
        assert len(calls) == 1 and apart[1].shape == (4, 2), "other rows for each run"
    torch.testing.assert_close(shared[0], apart[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(shared[1][:4], apart[1], rtol=1e-4, atol=1e-6)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=12))
def test_tokens_are_filled_up_behind_the_rows(lengths):
    inputs = batch(lengths)
    filled = unpadded.filled_up(inputs)
    count, B = sum(lengths), len(lengths)
    assert int(filled["attention_mask"].sum()) == whole(count) >= count
    assert filled["input_ids"].shape == filled["attention_mask"].shape
    assert all(torch.equal(filled[name][:B], x) for name, x in inputs.items())
    assert bool(filled["attention_mask"][:, 0].all()), "tokens stand at the beginning of a row"


def test_few_sizes_of_chunks_and_little_that_fills_them_up():
    sizes = [whole(n) for n in range(100, 1025)]
    assert len(set(sizes)) < 35 and sizes == sorted(sizes)
    assert all(own % 16 == 0 and n <= own < n + max(16, n / 8) for n, own in zip(range(100, 1025), sizes))


@pytest.mark.parametrize("family", UNPADDED)
def test_what_fills_a_chunk_up_changes_no_run(family):
    """Logits and gradients but for rounding, and only of rows that were asked for; in float32, which shows more."""
    model, inputs, run_ids = build(family), batch([7, 3, 5, 1]), torch.tensor([0, 1, 2, 1])
    found = []
    for fills in (True, False):
        with BiasBank(model, ["b_v", "b_q", "all_biases"], [0, 1, 2]) as bank:
            bank.fills = fills
            keys = example_keys(bank.seeds[run_ids], 3, torch.arange(4))
            logits = bank(run_ids, keys, **inputs)
            logits.square().sum().backward()
            found.append((logits.detach(), *(slot.values.grad for slot in bank.slots)))
            seen = [bank.every_run(**inputs)]
            assert seen[0].shape == (3, 4, logits.shape[1])
    for own, other in zip(*found, strict=True):
        assert own.shape == other.shape
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-5)
    with BiasBank(model, ["b_v"], [0], "bfloat16") as bank:
        assert bank.fills


@pytest.mark.parametrize("family", UNPADDED)
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float64])
def test_a_model_in_another_precision_stays_in_it(family, precision):
    """What stands for a layer's parts computes in float32, and a layer behind it would not take that."""
    model, inputs, run_ids = build(family).to(precision), batch([7, 3, 5, 1]), torch.tensor([0, 1, 1, 0])
    found = []
    for padded in (False, True):
        logits, still, gradients = outcome(model, ["b_v", "b_q"], run_ids, inputs, padded)
        found.append((logits, still, *gradients.values()))
    exact = {torch.float64: {"rtol": 1e-5, "atol": 1e-6}, torch.bfloat16: {"rtol": 0.1, "atol": 0.1}}[precision]
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, **exact)


def test_a_run_that_is_no_number_fills_up_no_other():
    model, inputs, run_ids = build("bert"), batch([7, 3, 5, 1]), torch.tensor([1, 0, 1, 0])
    found = []
    for broken in (False, True):
        with BiasBank(model, ["b_v"] * 2, [0, 1], "bfloat16") as bank:
            for slot in bank.slots if broken else ():
                slot.values.data[1] = float("nan")
            logits = bank(run_ids, None, **inputs)
            logits[torch.tensor([1, 3])].sum().backward()
            found.append((logits[run_ids == 0].detach(), *(slot.values.grad[0] for slot in bank.slots)))
    for own, other in zip(*found, strict=True):
        assert torch.equal(own, other)


def test_query_key_and_value_are_one_product_until_the_bank_is_gone():
    model, inputs = build("bert"), batch([7, 3, 5])
    before, first = {n: p.clone() for n, p in model.named_parameters()}, model.bert.encoder.layer[0].attention.self
    with BiasBank(model, ["b_k", "b_q"], [0, 1]) as bank:
        assert len({p.weight.untyped_storage().data_ptr() for p in (first.query, first.key, first.value)}) == 1
        bank(torch.tensor([0, 1, 0]), None, **inputs)
        x = torch.randn(1, 15, 16)
        for own in (first.key, first.key, first.value, first.query):  # in any order, and again
            torch.testing.assert_close(own.forward(x), torch.nn.functional.linear(x, own.weight, own.bias))
    assert len({p.weight.untyped_storage().data_ptr() for p in (first.query, first.key, first.value)}) == 3
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert "forward" not in vars(first.query)
