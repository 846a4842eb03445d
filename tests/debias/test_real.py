"""The real model of notebook 05, with the smallest one there is: texts, rates, patches, and a task on top."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from beft.data import rated_sentences
from beft.data.stereotype_sets import SentencePair
from beft.debias import downstream, occupations, real, upstream
from beft.debias.pair_scores import sentence_scores
from beft.errors import BeftError
from beft.models import loading as models
from beft.records.store import Store
from beft.settings import profiles as settings
from beft.study import Run

PAIRS = [SentencePair("She sings.", "He sings.", "gender"), SentencePair("It rained there.", "It rained.", "age")]


def load(**given):
    return settings.load("05_debiasing", {"profile": "smoke", **given})


def a_record(method, rate, loss, outcome="ok"):
    return {"settings": {"method": method, "rate": rate}, "measures": {"held-out nats": loss}, "outcome": outcome}


def test_texts_with_a_word_of_gender_are_trained_with_both_sides_and_counted(monkeypatch):
    train = [f"She wrote book {n}." if n % 50 == 0 else f"Book {n} was long." for n in range(2000)]
    texts = {"train": train, "validation": ["He left.", "It rained.", "It snowed."]}
    rated = rated_sentences.Rated(*([rated_sentences.Sentence(t, 1.0) for t in own] for own in texts.values()), {})
    monkeypatch.setattr(rated_sentences, "load", lambda kind: rated)
    made = real.corpus(load(real_corpus=["film", "product"], real_rows=10, real_held_out=2))
    assert made.counts == {"film": (2000, 40), "product": (2000, 40)}
    assert "film: 40 of 2,000 texts have a word of gender (2.0%) - few" in str(made)
    assert len(made.data.train) == 20 and {t.split()[0] for (t,) in made.data.train.rows} == {"She", "He"}
    assert set(made.held_out) == {"film", "product"} and all(len(own) == 2 for own in made.held_out.values())
    assert made.data.task.name == "film+product" and not made.data.substitute
    with pytest.raises(BeftError, match="real_rows asks for 79 texts .* film have 40: give fewer"):
        real.corpus(load(real_corpus=["film"], real_rows=79))


def test_a_whole_sentence_is_scored_behind_the_token_that_begins_texts():
    for name in ("tiny-llama", "tiny-gpt2"):  # one whose tokenizer puts it there, and one whose does not
        loaded = models.load_causal(name, offline=True)
        texts = ["The soup was dull.", "She said that the plot was superb."]
        ours = sentence_scores(loaded.model, loaded.tokenizer, texts)
        start = [i for i in (loaded.tokenizer.bos_token_id, loaded.tokenizer.eos_token_id) if i is not None][0]
        for text, (score, count) in zip(texts, ours, strict=True):
            ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                log_probs = loaded.model(input_ids=torch.tensor([[start, *ids]])).logits[0].log_softmax(-1)
            assert score == pytest.approx(sum(float(log_probs[n, i]) for n, i in enumerate(ids)), abs=1e-3)
            assert count == len(ids)
    with pytest.raises(BeftError, match="sentence 2 is empty"):
        sentence_scores(loaded.model, loaded.tokenizer, ["A bed.", " "])


def test_rates_are_the_ones_given_or_the_best_on_held_out_text():
    tried = {"lora": [0.01, 0.1], "b_q": [0.01, 0.1]}
    s = load(real_patches=["b_v", "b_q", "lora"], real_rates={"b_v": 0.02}, real_tried_rates=tried)
    assert real.tried_runs(s) == [Run(m, 0, rate) for m in ("lora", "b_q") for rate in (0.01, 0.1)]
    records = [a_record("lora", 0.01, 3.0), a_record("lora", 0.1, None, "diverged: at once")]
    records += [a_record("b_q", 0.01, 4.0), a_record("b_q", 0.1, 3.9)]
    assert real.rates_used(s, records) == {"b_v": 0.02, "b_q": 0.1, "lora": 0.01}
    with pytest.raises(BeftError, match="every rate tried for lora diverged"):
        real.rates_used(s, records[1:])
    with pytest.raises(BeftError, match="lora has no rate: name it in real_rates"):
        real.check_rates(load(real_patches=["lora"], real_tried_rates={}))


def test_patches_are_measured_and_stay_frozen_under_a_task_as_prompts(tmp_path, monkeypatch):
    few = {"nurse": "professionals", "miner": "machine operators"}, ("The {occupation} said that",)
    monkeypatch.setattr(occupations, "listed", lambda: few)
    s, store = load(real_rows=4, real_task_rows=4, real_test_rows=2), Store(tmp_path)
    texts = real.corpus(s)
    one = real.phase(s, texts, PAIRS)
    as_it_is = upstream.untouched(one, store)["measures"]
    assert as_it_is["crows"]["gender"]["score"] == "whole sentence" and as_it_is["crows"]["all"]["n"] == 2
    assert 0 <= as_it_is["crows"]["age"]["low"] <= as_it_is["crows"]["age"]["high"] <= 100
    assert as_it_is["text"]["microworld_people"]["nats"] > 0 and set(as_it_is["occupations"]["by"]) == set(few[0])
    runs = [Run("prefix", 0, 0.05), Run("b_v", 0, 0.05)]
    records = upstream.train_patches(one, runs, store, progress=False)
    for run, record in zip(runs, records, strict=True):
        measured, patch = record["measures"], upstream.patch(one, run, store)
        assert measured["occupations"]["by"] != as_it_is["occupations"]["by"]
        _, take_out = patch.put(one.loaded.model)
        again = one.measure(one.loaded.model, 0)
        take_out()
        assert again["occupations"]["by"] == pytest.approx(measured["occupations"]["by"], abs=1e-3)
        assert again["text"]["microworld_people"]["nats"] == pytest.approx(
            measured["text"]["microworld_people"]["nats"], abs=1e-4
        )
    kept = [downstream.Patched(r.method, 0, rec["key"], lambda r=r: upstream.patch(one, r, store))
            for r, rec in zip(runs, records, strict=True)]  # fmt: skip
    tuned = downstream.fine_tune(real.tuning(s, one), [downstream.Patched("none", 0), *kept], 1e-3, store, False)
    for record in tuned:
        assert 0 <= record["measures"]["accuracy"] <= 1 and record["measures"]["crows"]["all"]["n"] == 2
    assert all(r["patch"]["before"] == r["patch"]["after"] for r in tuned[1:])
    again = one.measure(one.loaded.model, 0)  # everything is taken out
    assert again["text"] == as_it_is["text"] and again["occupations"]["by"] == as_it_is["occupations"]["by"]


def test_a_rate_is_chosen_without_the_measures_and_bfloat16_is_in_the_key_of_the_model_as_it_is():
    s = load()
    one = real.phase(s, real.corpus(s), [])
    assert real.choosing(one).settings(None)["measured"] == "loss on held-out text"
    assert real.choosing(one).measure(one.loaded.model, 0) == {} and "CrowS" not in one.measured
    assert "dtype" not in one.settings(None)
    coarse = replace(one, study=replace(one.study, dtype="bfloat16"))
    assert coarse.settings(None) == one.settings(None) | {"dtype": "bfloat16"}
