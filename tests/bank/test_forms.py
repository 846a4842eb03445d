"""Other forms of a bias: what they add, what they train, and that a bank holds them like any other run."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fitting import fitted
from hypothesis import given
from hypothesis import strategies as st

from beft.bank import peft_adapter as adapters
from beft.bank.baselines import open_bank
from beft.bank.export import merge
from beft.bank.forms import FORMS, RANK, draws, factors
from beft.bank.slots import BiasSlot
from beft.data.batching import encode
from beft.errors import BeftError
from beft.models import loading as models
from beft.study import FORM_METHODS, Run, Study, parse_method

VALUE = [method for method in FORM_METHODS if method.startswith("b_v")]
STUDY = Study(model=models.TINY, task="microworld_sentiment", regime=48, epochs=3, offline=True)


@given(st.integers(1, 5000))
def test_factors_are_the_nearest_pair_of_whole_numbers(d):
    m, n = factors(d)
    assert m * n == d and m <= n
    assert not any(d % k == 0 for k in range(m + 1, math.isqrt(d) + 1))


def test_factors_of_the_papers_encoder_and_of_a_prime():
    assert factors(768) == (24, 32) and factors(7) == (1, 7)


@pytest.mark.parametrize("d", [7, 12, 768])
@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_added_at_the_start(form, d):
    f, before = FORMS[form], torch.randn(d, generator=torch.Generator().manual_seed(1))
    start = f.start(d, draws(0, "layer", 0), before)[None]
    added = f.delta(start, f.fixed(d, draws(0, "layer", 0))[None], before)
    assert added.shape == (1, d)
    torch.testing.assert_close(added, torch.zeros(1, d), rtol=0, atol=1e-6)


def test_forms_are_the_papers_formulas_on_six_numbers():
    """d = 6 = 2 x 3 at rank 8, written out with NumPy."""
    rng, before = np.random.default_rng(0), np.arange(1.0, 7.0)
    A, B = rng.normal(size=(RANK, 3)), rng.normal(size=(2, RANK))
    s, b, g = rng.normal(size=RANK), rng.normal(size=2), 2.5

    def delta(form, trained, fixed=()):
        tensors = [
            torch.tensor(np.concatenate([np.ravel(x) for x in xs]) if xs else [])[None] for xs in (trained, fixed)
        ]
        return FORMS[form].delta(*tensors, torch.tensor(before))[0].numpy()

    np.testing.assert_allclose(delta("lora", [A, B]), (A.T @ B.T).ravel() / RANK)
    scaled = np.diag(b) @ B @ np.diag(s) @ A
    np.testing.assert_allclose(delta("vera", [s, b], [A, B]), scaled.T.ravel())
    np.testing.assert_allclose(delta("vera1d", [[g]]), np.full(6, g))
    direction = before + (B @ A).ravel() / RANK
    np.testing.assert_allclose(delta("dora", [[g], A, B]), g * direction / np.linalg.norm(direction) - before)


def test_trained_numbers_are_counted_per_form(tiny):
    d, layers = tiny.model.config.hidden_size, tiny.model.config.num_hidden_layers
    m, n = factors(d)
    numbers = {"lora": RANK * (m + n), "vera": RANK + m, "vera1d": 1, "dora": 1 + RANK * (m + n)}
    with open_bank(tiny.model, VALUE, [0] * len(VALUE)) as bank:
        for run, method in enumerate(VALUE):
            assert bank.parameter_counts(run)["bias"] == layers * numbers[parse_method(method).form]


def moved(bank):
    """Put every trained number a little elsewhere."""
    with torch.no_grad():
        for i, slot in enumerate(bank.slots):
            noise = torch.randn(slot.values.shape, generator=torch.Generator().manual_seed(i))
            slot.values += 0.3 * noise * slot.trained.view(-1, *[1] * (slot.values.dim() - 1))


@pytest.mark.parametrize("method", VALUE)
def test_gradient_is_that_of_the_bias_carried_through_the_form(tiny, sentiment, method):
    inputs = encode(tiny.tokenizer, sentiment.train.rows[:4], 64).columns
    with open_bank(tiny.model, [method], [0]) as bank:
        moved(bank)
        bank(torch.zeros(4, dtype=torch.long), None, **inputs).square().sum().backward()
        formed = [s for s in bank.slots if isinstance(s, BiasSlot) and s.form is not None]
        mine = {s.module: (s.values.grad[0].clone(), s) for s in formed}
        deltas = {s.module: s.delta().detach() for s in formed}
        rest = {s.parameter: s.values.detach().clone() for s in bank.slots if s not in formed}
    with open_bank(tiny.model, ["b_v"], [0]) as bank:
        with torch.no_grad():
            for slot in bank.slots:
                slot.values.copy_(deltas[slot.module] if slot.module in deltas else rest[slot.parameter])
        bank(torch.zeros(4, dtype=torch.long), None, **inputs).square().sum().backward()
        plain = {s.module: s.values.grad for s in bank.slots if s.module in deltas}
    for module, (gradient, slot) in mine.items():
        trained = slot.values.detach().clone().requires_grad_(True)
        slot.form.delta(trained, slot.fixed, slot.before).backward(plain[module])
        torch.testing.assert_close(gradient, trained.grad[0], rtol=1e-4, atol=1e-6)


def trained_values(loaded, data, runs):
    """Results of `runs`, and what each has trained, by parameter."""
    kept = [{} for _ in runs]

    def keep(bank, results):
        for slot in bank.slots:
            for which, values in enumerate(kept):
                if slot.trained[which]:
                    values[slot.parameter] = slot.values[which].detach().clone()

    return fitted(loaded, data, STUDY, runs, at_end=keep), kept


MINE = [Run(method, 3, 1e-2) for method in VALUE]


@pytest.fixture(scope="module")
def one_bank(sentiment):
    """The runs `MINE` behind runs of other seeds: every form, a bias as it is, a form of another term, a head."""
    others = [Run(m, i, 1e-2) for i, m in enumerate((*VALUE, "b_v", "b_q:lora", "head"))]
    results, kept = trained_values(models.load(models.TINY, labels=2), sentiment, [*others, *MINE])
    return results[len(others) :], kept[len(others) :]


@pytest.mark.parametrize("which", range(len(MINE)), ids=VALUE)
def test_a_run_beside_all_other_forms_is_the_run_alone(tiny, sentiment, one_bank, which):
    (one,), (alone,) = trained_values(tiny, sentiment, [MINE[which]])
    two, banked = (part[which] for part in one_bank)
    # within one row of 60
    assert alone.keys() == banked.keys() and one.final["validation"] == pytest.approx(two.final["validation"], abs=0.02)
    assert one.epochs[-1]["train_loss"] == pytest.approx(two.epochs[-1]["train_loss"], abs=1e-5)
    for name, value in alone.items():
        torch.testing.assert_close(banked[name], value, rtol=0, atol=1e-4)
    (again,), (same,) = trained_values(tiny, sentiment, [MINE[which]])
    assert again.epochs == one.epochs and all(torch.equal(same[name], value) for name, value in alone.items())


@pytest.mark.parametrize("method", VALUE)
def test_a_form_leaves_as_the_bias_that_it_comes_to(tiny, sentiment, tmp_path, method):
    inputs = encode(tiny.tokenizer, sentiment.train.rows[:4], 64).columns
    with open_bank(tiny.model, ["head", method], [0, 1]) as bank, torch.no_grad():
        moved(bank)
        expected = bank.every_run(**inputs)[1]
        _, after = bank.biases(1, "v")
        adapters.save_adapter(bank, 1, tmp_path)
        plain = merge(bank, 1)
        with pytest.raises(BeftError, match="load it into a b_v run"):
            adapters.load_adapter(bank, 1, tmp_path)
    torch.testing.assert_close(plain(**inputs).logits, expected, rtol=0, atol=1e-5)
    with open_bank(tiny.model, ["b_v"], [0]) as bank, torch.no_grad():
        adapters.load_adapter(bank, 0, tmp_path)
        torch.testing.assert_close(bank.biases(0, "v")[1], after, rtol=0, atol=1e-6)
    tuned = adapters.load_tuned(tiny.model, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(tuned(**inputs).logits, expected, rtol=0, atol=1e-5)


def test_dora_of_a_bias_of_zeros_is_refused(small_vit):
    with pytest.raises(BeftError, match="DoRA form scales the pre-trained bias, and here it is zero"):
        open_bank(small_vit(qkv_bias=False), ["b_v:dora"], [0]).__enter__()


def test_an_unknown_form_names_the_near_one():
    with pytest.raises(BeftError, match="unknown method 'b_v:lorra': did you mean b_v:lora"):
        Run("b_v:lorra", 0, 1e-3)


def test_an_interrupted_bank_of_forms_goes_on_to_the_same_result(tiny, sentiment, tmp_path):
    runs = [Run(method, 0, 1e-2) for method in VALUE]
    whole = fitted(tiny, sentiment, STUDY, runs)

    def stop(bank, epoch):
        if epoch == 2:
            raise KeyboardInterrupt

    path = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fitted(tiny, sentiment, replace(STUDY), runs, at_epoch=stop, checkpoint=path)
    assert path.exists()
    again = fitted(tiny, sentiment, STUDY, runs, checkpoint=path)
    assert [r.epochs for r in again] == [r.epochs for r in whole]
