"""Masked-language modelling in a bank: BERT's rule, a loss that is transformers' own, runs that share nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fitting import fitted
from hypothesis import given
from hypothesis import strategies as st
from masked_models import STUDY, TEXTS, small

from beft.bank.baselines import open_bank
from beft.data.batching import CHUNKS
from beft.data.datasets import Draw, text_dataset
from beft.errors import BeftError
from beft.study import Run
from beft.training.language_modelling import MaskedTokens, Rule, logits_at, rule_of


@given(st.lists(st.integers(5, 99), min_size=1, max_size=120), st.integers(0, 2**32 - 1))
def test_what_is_masked_is_fifteen_percent_of_the_text_and_nothing_special(body, seed):
    ids = np.array([2, *body, 3])
    masked, places = Rule(4, (0, 1, 2, 3, 4), 100).apply(ids, np.random.default_rng(seed))
    assert len(places) == max(1, round(0.15 * len(body))) == len(set(places.tolist()))
    assert 1 <= places.min() and places.max() <= len(body)
    changed = np.flatnonzero(masked != ids)
    assert set(changed.tolist()) <= set(places.tolist())


def test_of_the_chosen_eight_in_ten_are_masked_one_is_another_token_and_one_stays():
    ids, rng = np.array([2, *[50] * 100, 3]), np.random.default_rng(0)
    rule = Rule(4, (0, 1, 2, 3, 4), 1000)
    replaced = np.concatenate([masked[places] for masked, places in (rule.apply(ids, rng) for _ in range(400))])
    assert np.mean(replaced == 4) == pytest.approx(0.8, abs=0.02)
    assert np.mean(replaced == 50) == pytest.approx(0.1, abs=0.02)


def objective_of(loaded, texts=TEXTS):
    data = text_dataset("texts", texts, TEXTS[:3], "by hand")
    return MaskedTokens(loaded, data, STUDY, [Draw(np.arange(len(texts)), np.array([], dtype=int))])


def test_the_loss_is_transformers_own_over_the_masked_places():
    loaded = small(dropout=0.0)
    objective, keys = objective_of(loaded), torch.tensor([11, -7, 5], dtype=torch.int32)
    index = np.array([0, 7, 3])
    with open_bank(loaded.model, ["b_v"], [0]) as bank:
        ours = objective.loss(bank, torch.zeros(3, dtype=torch.long), keys, index).detach()
    for n, i in enumerate(index):
        ids = objective.ids[i, : objective.lengths[i]]
        masked, places = objective.rule.apply(ids, np.random.default_rng(int(keys[n]) & 0xFFFFFFFF))
        labels = torch.full((1, len(ids)), -100)
        labels[0, places] = torch.from_numpy(ids[places])
        with torch.no_grad():
            theirs = loaded.model(input_ids=torch.from_numpy(masked)[None], labels=labels).loss
        assert float(ours[n]) == pytest.approx(float(theirs), abs=1e-5)


def test_a_run_learns_the_same_alone_and_beside_others():
    runs = [Run("b_v", 0, 0.02), Run("b_q", 1, 0.02), Run("all_biases", 2, 0.01)]
    data = text_dataset("texts", TEXTS, TEXTS[:3], "by hand")
    together = fitted(small(), data, STUDY, runs, objective=MaskedTokens)
    for run, result in zip(runs, together, strict=True):
        (alone,) = fitted(small(), data, STUDY, [run], objective=MaskedTokens)
        for a, b in zip(alone.epochs, result.epochs, strict=True):
            assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-5)
        assert alone.final["validation"] == result.final["validation"] is not None
    again = fitted(small(), data, STUDY, runs, objective=MaskedTokens)
    assert [r.epochs for r in again] == [r.epochs for r in together]  # to the last bit


def test_training_lowers_the_loss_of_every_way_to_train():
    data = text_dataset("texts", TEXTS * 4, TEXTS[:3], "by hand")
    for method, rate in {"b_v": 0.03, "lora": 0.03, "adapter": 0.03, "full": 0.003}.items():
        (result,) = fitted(small(), data, replace(STUDY, epochs=6), [Run(method, 0, rate)], objective=MaskedTokens)
        losses = [e["train_loss"] for e in result.epochs]
        assert losses[-1] < losses[0] - 0.01, (method, losses)  # a random model has little use for a bias
        assert 0 <= result.final["validation"] <= 1


def test_the_score_counts_the_same_places_for_every_run():
    loaded = small()
    objective = objective_of(loaded)
    with open_bank(loaded.model, ["b_v", "b_q"], [0, 1]) as bank:
        scores = objective.scores(bank, True, True, CHUNKS["cpu"])["validation"]
        nats = objective.nats
        assert objective.scores(bank, False, False, CHUNKS["cpu"])["validation"] == [None, None]
    hits, total, loss = 0, 0, 0.0
    for n, (masked, places) in enumerate(objective.masked_held_out):
        ids = objective.held_out.columns["input_ids"][n].numpy()
        with torch.no_grad():
            logits = loaded.model(input_ids=torch.from_numpy(masked)[None]).logits[0]
        best, right = logits.argmax(-1).numpy(), torch.from_numpy(ids[places])
        hits, total = hits + int((best[places] == ids[places]).sum()), total + len(places)
        loss += float(torch.nn.functional.cross_entropy(logits[places], right, reduction="sum"))
    assert scores == [hits / total] * 2
    assert nats == pytest.approx([loss / total] * 2, rel=1e-5)


def test_a_head_without_a_name_of_its_own_is_read_at_the_same_places():
    from beft.theory import null_key_bias as tiny_models

    model = tiny_models.build("DistilBERT", auto="AutoModelForMaskedLM").float()
    inputs = {n: x for n, x in tiny_models.inputs(model, batch=2).items() if n in ("input_ids", "attention_mask")}
    rows, places = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 3])
    whole = model(**inputs).logits
    with logits_at(model, rows, places):
        assert torch.allclose(model(**inputs).logits, whole[rows, places], atol=1e-6)
    assert model(**inputs).logits.shape == whole.shape


def test_a_tokenizer_without_a_mask_is_refused():
    import small_models

    with pytest.raises(BeftError, match="has no mask token: give a masked language model"):
        rule_of(small_models.tokenizer_for("tiny-gpt2", count=50))
