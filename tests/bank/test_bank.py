"""A bank is R independent runs: same gradients as the plain model, same trajectories as each run alone."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from encoders import FAMILIES, SMALL, build
from fitting import fitted
from transformers import AlbertConfig, AutoModelForSequenceClassification

from beft.anatomy import architectures
from beft.anatomy import projections as anatomy
from beft.bank import slots
from beft.bank.bank import BiasBank
from beft.bank.baselines import open_bank
from beft.bank.dropout import example_keys
from beft.bank.export import merge
from beft.bank.optimizer import StackedAdam
from beft.bank.slots import BiasSlot, HeadSlot
from beft.data.batching import encode
from beft.errors import BeftError
from beft.models import loading as models
from beft.study import METHODS, Run, Study
from beft.theory import null_key_bias as tiny_models

ENCODERS = [
    name
    for name, made in tiny_models.ARCHITECTURES.items()
    if not (family := architectures.FAMILIES[getattr(transformers, made.config).model_type]).causal
    and not family.further
]
STUDY = Study(model=models.TINY, task="microworld_sentiment", regime=160, epochs=5, offline=True, validate="last")


def some_inputs(rows=4, length=7):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def trained_values(loaded, data, study, runs, *chosen):
    """For each chosen run the values after training, one tensor per slot it trains, and its result."""
    kept = {which: {} for which in chosen}

    def keep(bank, results):
        for which, values in kept.items():
            values |= {s.parameter: s.values[which].detach().clone() for s in bank.slots if s.trained[which]}

    results = fitted(loaded, data, study, runs, at_end=keep)
    return [(kept[which], results[which]) for which in chosen]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_a_lone_run_has_the_gradients_of_the_models_own_biases(family, method):
    model, inputs = build(family), some_inputs()
    labels = torch.tensor([0, 1, 1, 0])
    bank = BiasBank(model, [method], [0])
    torch.nn.functional.cross_entropy(bank(torch.zeros(4, dtype=torch.long), **inputs), labels).backward()
    seen = [(s, s.values.grad[0].clone()) for s in bank.slots]
    plain = bank.bare_copy()
    bank.detach()
    with torch.no_grad():
        for slot in bank.slots:
            if isinstance(slot, HeadSlot):
                plain.get_parameter(slot.parameter).copy_(slot.values[0])
    plain.requires_grad_(True)
    torch.nn.functional.cross_entropy(plain(**inputs).logits, labels).backward()
    for slot, gradient in seen:
        expected = plain.get_parameter(slot.parameter).grad
        if isinstance(slot, BiasSlot):
            expected = slot.part.take(expected)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_example_sees_only_its_own_run(family):
    model, inputs = build(family), some_inputs()
    with open_bank(model, ["b_v"] * 3, [0, 1, 2]) as bank:
        with torch.no_grad():
            for slot in bank.slots:
                slot.values.normal_(generator=torch.Generator().manual_seed(2))
        rows = torch.tensor([2, 0, 1, 2])
        together = bank(rows, **inputs)
        every = bank.every_run(**inputs)  # (R, B, C)
    for example, run in enumerate(rows.tolist()):
        torch.testing.assert_close(together[example], every[run, example], rtol=1e-5, atol=1e-6)
    assert (every[0] - every[1]).abs().max() > 1e-3


def graph(x):
    """Names of the last operations that made a tensor."""
    first = [f for f, _ in x.grad_fn.next_functions]
    return str([x.grad_fn, *first, *(f.next_functions for f in first if f)])


def test_a_wide_head_has_the_same_gradients_by_a_product_for_each_run(monkeypatch):
    """In bfloat16 a product for each run takes the place of one for each row; in float32 nothing changes."""
    model, inputs, found = build("roberta"), some_inputs(), {}
    for wide in (slots.WIDE, 1):
        monkeypatch.setattr(slots, "WIDE", wide)
        for dtype in ("float32", "bfloat16"):
            with open_bank(model, ["b_v"] * 3, [0, 1, 2], dtype) as bank:
                logits = bank(torch.tensor([2, 0, 2, 0]), None, **inputs)
                logits.square().sum().backward()
                assert ("HeadPerRun" in graph(logits)) is (wide == 1 and dtype == "bfloat16")
                found[wide, dtype] = [logits.detach(), *(s.values.grad.clone() for s in bank.slots)]
    assert all(torch.equal(a, b) for a, b in zip(found[slots.WIDE, "float32"], found[1, "float32"], strict=True))
    for one, other in zip(found[1, "bfloat16"], found[2**16, "bfloat16"], strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


def test_albert_drops_other_units_at_every_depth():
    config = AlbertConfig(**SMALL | {"num_hidden_layers": 3}, embedding_size=8, hidden_dropout_prob=0.5)
    model = AutoModelForSequenceClassification.from_config(config).eval().requires_grad_(False)
    masks = []
    with open_bank(model, ["b_v"], [0]) as bank:
        dropout = model.albert.encoder.albert_layer_groups[0].albert_layers[0].attention.output_dropout
        dropout.register_forward_hook(lambda module, args, output: masks.append(output != 0))
        for _ in range(2):
            bank(torch.zeros(4, dtype=torch.long), example_keys(torch.zeros(4), 0, torch.arange(4)), **some_inputs())
    assert all(0.3 < float(mask.float().mean()) < 0.7 for mask in masks)
    assert not any(torch.equal(masks[i], masks[j]) for i in range(3) for j in range(i))
    assert all(torch.equal(masks[i], masks[i + 3]) for i in range(3))


@pytest.mark.parametrize("name", ENCODERS)
def test_a_run_drops_the_same_units_alone_and_in_a_bank(name):
    """DeBERTa's embeddings of distances, which all rows of a batch share, are dropped in neither."""
    auto = "AutoModelForImageClassification" if name == "ViT" else "AutoModelForSequenceClassification"
    model = tiny_models.build(name, auto=auto).float().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    inputs = {name: x.float() if x.is_floating_point() else x for name, x in tiny_models.inputs(model).items()}
    keys = example_keys(torch.zeros(4), 0, torch.arange(4))

    def of_the_run(methods, run, run_ids, examples):
        """Logits of the run's rows and the gradients of its values."""
        with open_bank(model, methods, [3] * len(methods)) as bank:
            logits = bank(run_ids, keys[examples], **{n: x[examples] for n, x in inputs.items()})[run_ids == run]
            logits.square().sum().backward()
            return logits.detach(), {(s.parameter, s.group): s.values.grad[run] for s in bank.slots if s.trained[run]}

    together, theirs = of_the_run(["b_q", "b_v"], 1, torch.tensor([1, 0, 1, 0]), torch.arange(4))
    alone, own = of_the_run(["b_v"], 0, torch.tensor([0, 0]), torch.tensor([0, 2]))
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)
    assert own.keys() == theirs.keys()
    for place, value in own.items():
        torch.testing.assert_close(value, theirs[place], rtol=1e-3, atol=1e-3 * float(value.abs().max()))
    other = example_keys(torch.ones(4), 0, torch.arange(4))
    with open_bank(model, ["b_v"], [3]) as bank, torch.no_grad():
        rows = torch.zeros(4, dtype=torch.long)
        assert (bank(rows, keys, **inputs) - bank(rows, other, **inputs)).abs().max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_alone_share_one_pass_through_the_encoder_and_say_the_same(family):
    model, inputs = build(family), some_inputs()
    with open_bank(model, ["head"] * 3, [0, 1, 2]) as bank, torch.no_grad():
        for slot in bank.slots:
            slot.values.normal_(generator=torch.Generator().manual_seed(3))
        every = bank.every_run(**inputs)
        for run in range(3):
            alone = bank(torch.full((4,), run), **inputs)
            torch.testing.assert_close(every[run], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", ["late", "mean"])
@pytest.mark.parametrize("methods", [("b_v", "head", "b_v"), ("head",) * 4], ids=["biases", "heads"])
def test_a_head_that_acts_on_every_token_is_that_of_the_row(methods, pooling):
    """EuroBERT, whose sites are named by hand, may average the logits of the tokens."""
    torch.manual_seed(0)
    config = transformers.EuroBertConfig(**SMALL, num_key_value_heads=2, pad_token_id=0, classifier_pooling=pooling)
    model = AutoModelForSequenceClassification.from_config(config).eval().requires_grad_(False)
    inputs, labels = some_inputs(), torch.tensor([0, 1, 1, 0])
    sites = {"v": "model.layers.{layer}.self_attn.v_proj"}
    with open_bank(model, methods, range(len(methods)), sites=sites) as bank:
        with torch.no_grad():
            for slot in bank.slots:
                slot.values[slot.trained] = torch.randn(slot.values[slot.trained].shape)
            every = bank.every_run(**inputs)
        rows = torch.tensor([2, 0, 1, 2])
        together = bank(rows, **inputs)
        torch.nn.functional.cross_entropy(together, labels, reduction="sum").backward()
        plains = [merge(bank, run) for run in range(len(methods))]
        heads = {slot.parameter: slot.values.grad for slot in bank.slots if isinstance(slot, HeadSlot)}
    for run, plain in enumerate(plains):
        plain.requires_grad_(True)
        logits = plain(**inputs).logits
        torch.testing.assert_close(every[run], logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together[rows == run], logits[rows == run], rtol=1e-4, atol=1e-5)
        torch.nn.functional.cross_entropy(logits[rows == run], labels[rows == run], reduction="sum").backward()
        for name, gradient in heads.items():
            torch.testing.assert_close(gradient[run], plain.get_parameter(name).grad, rtol=1e-4, atol=1e-5)


def test_image_classifiers_have_banks_too(small_vit):
    model = small_vit()
    pixels = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with open_bank(model, ["all_biases", "b_v"], [0, 1]) as bank:
        with torch.no_grad():
            for slot in bank.slots:
                slot.values[slot.trained] = 0.1
        every = bank.every_run(pixel_values=pixels)
        mixed = bank(torch.tensor([0, 1, 0, 1]), pixel_values=pixels)
    torch.testing.assert_close(mixed[1], every[1, 1], rtol=1e-5, atol=1e-6)
    assert (every[0] - every[1]).abs().max() > 1e-4


def test_biases_on_position_embeddings_that_a_batch_shares_need_a_bank_of_their_own():
    with pytest.raises(BeftError, match="bank of its own"):
        BiasBank(build("deberta-v2"), ["all_biases"] * 2, [0, 1])
    with pytest.raises(BeftError, match="bank of its own"):
        BiasBank(build("deberta-v2 sharing"), ["b_q"] * 2, [0, 1])


MINE = [Run(method, 3, 1e-3) for method in METHODS]


@pytest.fixture(scope="module")
def one_bank(sentiment):
    """With dropout or without: the runs `MINE` in one bank, behind runs of other seeds and rates."""
    others = [Run(m, seed, 5e-3) for seed, m in enumerate(METHODS)]
    chosen = range(len(others), len(others) + len(MINE))

    @functools.cache
    def banked(dropout):
        loaded = models.load(models.TINY, labels=2)
        for module in loaded.model.modules():
            if isinstance(module, torch.nn.Dropout) and not dropout:
                module.p = 0.0
        return trained_values(loaded, sentiment, STUDY, [*others, *MINE], *chosen)

    return banked


@pytest.mark.parametrize("which", range(len(MINE)), ids=METHODS)
@pytest.mark.parametrize("dropout", [False, True])
def test_a_run_in_a_bank_is_the_run_alone(tiny, still, sentiment, one_bank, which, dropout):
    """50 steps, float32; with dropout too, because masks are keyed by run, step and place."""
    ((alone, one),) = trained_values(tiny if dropout else still, sentiment, STUDY, [MINE[which]], 0)
    banked, two = one_bank(dropout)[which]
    assert len(one.epochs) * math.ceil(160 / STUDY.batch_size) == 50
    assert alone.keys() == banked.keys()
    moved = max(value.abs().max() for name, value in alone.items() if "classifier" not in name)
    assert moved > 1e-3
    for key, value in alone.items():
        torch.testing.assert_close(banked[key], value, rtol=0, atol=1e-5)
    assert one.final == pytest.approx(two.final, abs=0.02)  # one row of 60


def test_a_neighbour_that_explodes_changes_nothing_bit_for_bit(tiny, sentiment):
    study = replace(STUDY, epochs=2, validate="each")
    ((quiet, one),) = trained_values(tiny, sentiment, study, [Run("b_v", 0, 1e-2), Run("b_v", 1, 1e-2)], 0)
    ((loud, two),) = trained_values(tiny, sentiment, study, [Run("b_v", 0, 1e-2), Run("b_v", 1, 1e9)], 0)
    for key, value in quiet.items():
        assert torch.equal(loud[key], value)
    assert one.epochs == two.epochs
    assert one.outcome == two.outcome == "ok"


def test_a_neighbour_of_nan_changes_nothing_bit_for_bit(tiny, sentiment):
    inputs = {k: v[:6] for k, v in encode(tiny.tokenizer, sentiment.train.rows[:6], 64).columns.items()}
    gradients = []
    for poison in (0.0, math.nan):
        with open_bank(tiny.model, ["b_v", "all_biases"], [0, 1]) as bank:
            with torch.no_grad():
                for slot in bank.slots:
                    slot.values[1] += poison
            rows = torch.tensor([0, 1, 0, 1, 0, 1])
            bank(rows, None, **inputs).square().sum().backward()
            norm_free = StackedAdam(bank.slots, torch.tensor([1e-3, 1e-3]))
            norm_free.step()
            gradients.append([s.values[0].detach().clone() for s in bank.slots])
    for calm, poisoned in zip(*gradients):
        assert torch.equal(calm, poisoned)


def test_the_stacked_optimizer_is_torchs_adamw_with_clipping_run_by_run(tiny):
    rates = torch.tensor([1e-2, 3e-4])
    with open_bank(tiny.model, ["all_biases", "b_v"], [0, 1]) as bank:
        optimizer = StackedAdam(bank.slots, rates)
        plain = [[torch.nn.Parameter(s.values[r].detach().clone()) for s in bank.slots if s.trained[r]] for r in (0, 1)]
        reference = [torch.optim.AdamW(p, lr=float(rate), eps=1e-6, weight_decay=0.0) for p, rate in zip(plain, rates)]
        generator = torch.Generator().manual_seed(0)
        for step in range(20):
            for slot in bank.slots:
                slot.values.grad = torch.randn(slot.values.shape, generator=generator) * (0.01 if step % 2 else 1)
            for r in (0, 1):
                own = [s.values.grad[r].clone() for s in bank.slots if s.trained[r]]
                for parameter, gradient in zip(plain[r], own):
                    parameter.grad = gradient
                torch.nn.utils.clip_grad_norm_(plain[r], 1.0)
                reference[r].step()
            optimizer.step()
        for r in (0, 1):
            mine = [s.values[r] for s in bank.slots if s.trained[r]]
            for ours, theirs in zip(mine, plain[r]):
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_rows_of_a_term_a_run_does_not_train_stay_zero(tiny, sentiment):
    def look(bank, results):
        for slot in bank.slots:
            assert torch.all(slot.values[~slot.trained] == 0)
            assert slot.values[slot.trained].abs().sum() > 0

    fitted(tiny, sentiment, replace(STUDY, epochs=1), [Run(m, 0, 1e-2) for m in METHODS], at_end=look)


def test_parameter_counts_split_into_bias_head_and_pooler(tiny):
    with open_bank(tiny.model, METHODS, [0] * 5) as bank:
        counts = [bank.parameter_counts(r) for r in range(5)]
    assert counts[0] == {"bias": 0, "head": 2 * 32 + 2, "pooler": 32}
    assert [c["bias"] for c in counts[1:4]] == [2 * 32] * 3
    modules = anatomy.bias_modules(tiny.model)
    assert counts[4]["bias"] == sum(m.bias.numel() for m in modules.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_comes_back_as_it_was(tiny, dtype):
    inputs = some_inputs()
    before = tiny.model(**inputs).logits
    with open_bank(tiny.model, ["all_biases", "b_q"], [0, 1], dtype) as bank:
        with torch.no_grad():
            bank.slots[0].values += 1
        bank(torch.tensor([0, 1, 0, 1]), **inputs)
    assert torch.equal(tiny.model(**inputs).logits, before)
    assert all(p.dtype == torch.float32 for p in tiny.model.parameters())


def test_bfloat16_banks_train_float32_values_to_nearly_the_same_logits(tiny):
    inputs, logits = some_inputs(), {}
    for dtype in ("float32", "bfloat16"):
        with open_bank(tiny.model, ["b_v"], [0], dtype) as bank:
            assert all(s.values.dtype == torch.float32 for s in bank.slots)
            logits[dtype] = bank(torch.zeros(4, dtype=torch.long), **inputs)
    difference = (logits["float32"] - logits["bfloat16"]).abs().max()
    assert 0 < difference < 0.02


def test_two_banks_on_one_model_are_refused(tiny):
    with open_bank(tiny.model, ["head"], [0]), pytest.raises(BeftError, match="already has a bank"):
        BiasBank(tiny.model, ["head"], [0])


def test_unknown_methods_and_dtypes_are_named(tiny):
    with pytest.raises(BeftError, match="b_v"):
        BiasBank(tiny.model, ["b_w"], [0])
    with pytest.raises(BeftError, match="bfloat16"):
        BiasBank(tiny.model, ["b_v"], [0], "float16")
    with open_bank(tiny.model, ["b_v"], [0]) as bank, pytest.raises(BeftError, match="not in this bank"):
        merge(bank, 1)


def test_runs_of_one_seed_start_with_the_same_head_and_others_do_not(tiny):
    with open_bank(tiny.model, ["head", "b_v", "head"], [4, 4, 5]) as bank:
        weight = next(s.values for s in bank.slots if isinstance(s, HeadSlot))
    assert torch.equal(weight[0], weight[1])
    assert not torch.equal(weight[0], weight[2])
    assert np.isclose(float(weight.detach().std()), 0.02, rtol=0.3)
