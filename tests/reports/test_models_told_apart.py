"""Whoever gives a model that cannot be tuned as it is learns what it is and what to give instead.

A model of an unknown architecture is tuned by whoever follows the message: with its projections named by hand.
"""

from __future__ import annotations

import json
import re

import pytest
import strange_models
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

import beft
from beft.bank.bank import BiasBank
from beft.errors import BeftError
from beft.experiments import sweep
from beft.models import files, loading
from beft.records.store import Store
from beft.study import Run, Study
from beft.training.classification import predict

PARTS, WORDS = ("film", "soup", "view"), ("dull", "superb")
ROWS = [(f"the {part} was {word}", word) for part in PARTS for word in WORDS] * 4
SITES = {"v": "body.mixes.{layer}.carry"}


@pytest.fixture
def reviews(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS))
    return str(path)


@pytest.fixture
def mine(tmp_path, tiny):
    """A folder with the tiny random model."""
    tiny.model.save_pretrained(tmp_path / "mine")
    tiny.tokenizer.save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


def told(*arguments, **more):
    with pytest.raises(BeftError) as caught:
        beft.tune(*arguments, offline=True, progress=False, epochs=1, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_causal_model_is_called_one_and_an_encoder_is_asked_for(reviews):
    text = told(reviews, model="tiny-llama")
    assert "is a causal language model" in text and "give an encoder of the families bert" in text
    assert "prompted=True" in text and "give a language model" not in text


# --- an unknown architecture ------------------------------------------------------------------------------------------


@pytest.fixture
def strange(tmp_path, tiny):
    return str(strange_models.folder_of(tiny.tokenizer, tmp_path / "strange"))


def test_who_follows_the_message_about_an_unknown_architecture_has_a_tuned_model(reviews, strange, tmp_path):
    text = told(reviews, model=strange)
    assert "argument of tune, Study and BiasBank" in text
    (named,) = re.findall(r"body\.mixes\.\{layer\}\.carry", text)  # as the message lists it
    tuned = beft.tune(
        reviews,
        model=strange,
        sites={"v": named},
        epochs=12,
        rate=0.05,
        adapter=tmp_path / "a",
        offline=True,
        progress=False,
    )
    assert tuned.result.parameters == {
        "bias": 2 * strange_models.WIDTH,
        "head": 2 * strange_models.WIDTH + 2,
        "pooler": 0,
    }
    assert tuned.score == 1.0 and tuned.predict(["the soup was dull", "the view was superb"]) == ["dull", "superb"]
    base = loading.load(strange, labels=2, offline=True)
    for name, parameter in base.model.named_parameters():
        changed = not torch.equal(parameter, tuned.model.get_parameter(name))
        assert changed == (name.endswith("carry.bias") or name.startswith("decide.")), name
    wrapped = PeftModel.from_pretrained(base.model, str(tmp_path / "a")).eval()
    texts = [text for text, _ in ROWS[:4]]
    expected = predict(tuned.model, tuned.tokenizer, texts)
    assert predict(wrapped, base.tokenizer, texts) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("method", ["all_biases", "head", "lora", "full"])
def test_other_methods_train_an_unknown_architecture_too(reviews, strange, method):
    tuned = beft.tune(
        reviews, model=strange, sites=SITES, method=method, epochs=1, rate=1e-2, offline=True, progress=False
    )
    assert tuned.result.outcome == "ok"


def test_a_term_that_was_not_named_is_refused(reviews, strange):
    assert "unknown bias term 'q'" in told(reviews, model=strange, sites=SITES, method="b_q")


@pytest.mark.parametrize("sites", [{}, "body", {"v": 1}, ["v"]])
def test_sites_that_name_nothing_are_refused(sites):
    with pytest.raises(BeftError, match="name no projections"):
        Study(sites=sites)


def test_a_sweep_trains_the_sites_of_its_study_and_its_records_say_which(reviews, strange, tmp_path):
    study = Study(strange, reviews, "all", epochs=1, sites=SITES, offline=True)
    store = Store(tmp_path / "records")
    runs = [Run("b_v", 0, 1e-2), Run("b_v", 1, 1e-2), Run("lora", 0, 1e-2)]
    records = sweep.run(study, runs, store, progress=False)
    assert [r["outcome"] for r in records] == ["ok"] * 3 and records[0]["settings"]["sites"] == SITES
    assert records[0]["bank"]["runs"] == 2
    exported = sweep.export(study, runs[0], store, tmp_path / "plain")
    assert (exported / "model.safetensors").exists()
    assert "sites" not in Study(strange, reviews).identity()


def test_rows_of_a_bank_with_named_sites_are_those_of_each_run_alone(strange):
    loaded = loading.load(strange, labels=2, offline=True)
    inputs = dict(loaded.tokenizer(["the film was good"] * 2, return_tensors="pt"))
    with torch.no_grad(), BiasBank(loaded.model, ["b_v", "b_v"], [0, 1], sites=SITES) as bank:
        bank.slots[0].values[1] = 1.0
        both = bank(torch.tensor([0, 1]), None, **inputs)
    for run in (0, 1):
        with torch.no_grad(), BiasBank(loaded.model, ["b_v"], [run], sites=SITES) as bank:
            bank.slots[0].values[0] = float(run)
            alone = bank(torch.tensor([0]), None, **{n: x[:1] for n, x in inputs.items()})
        assert torch.allclose(both[run], alone[0], atol=1e-6)


def test_a_prompted_study_of_an_unknown_family_is_not_told_of_sites(tmp_path, tiny):
    with pytest.raises(BeftError, match="sites are for classifiers"):
        Study(sites=SITES, prompted=True)
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    size = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "attention_types": [[["global"], 1]]}
    GPTNeoForCausalLM(GPTNeoConfig(vocab_size=len(tiny.tokenizer), **size)).save_pretrained(tmp_path / "neo")
    tiny.tokenizer.save_pretrained(tmp_path / "neo")
    with pytest.raises(BeftError, match=r"neo \(gpt_neo\) is of no family that beft knows how to tune on prompts"):
        loading.load_causal(str(tmp_path / "neo"))


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named_and_no_rate_is_blamed(mine, reviews, value):
    weights = load_file(mine / "model.safetensors")
    weights["bert.embeddings.word_embeddings.weight"][7, 3] = value
    save_file(weights, mine / "model.safetensors", metadata={"format": "pt"})
    text = told(reviews, model=str(mine))
    assert "1 entries of bert.embeddings.word_embeddings.weight are NaN or infinite" in text and "rate" not in text


def test_large_weights_whose_sum_is_infinite_are_no_fault(mine):
    weights = load_file(mine / "model.safetensors")
    weights["classifier.weight"].fill_(3e38)
    save_file(weights, mine / "model.safetensors", metadata={"format": "pt"})
    assert loading.load(str(mine), labels=2).name == str(mine)


def test_a_file_of_a_model_is_told_to_be_a_folder(mine, reviews):
    assert "is a file: give the folder of the model" in told(reviews, model=str(mine / "model.safetensors"))


def test_a_folder_with_an_adapter_in_it_is_refused(mine, reviews):
    (mine / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x", "peft_type": "LORA"}))
    assert "has an adapter beside the model" in told(reviews, model=str(mine))


@pytest.mark.parametrize("content", ["[]", '"bert"', "3", "null"])
def test_a_config_that_is_no_object_is_a_sentence(mine, reviews, content):
    (mine / "config.json").write_text(content)
    assert "where it should hold an object" in told(reviews, model=str(mine))
    with pytest.raises(BeftError, match="where it should hold an object"):
        loading.load_causal(str(mine))


def test_a_quantization_that_is_no_object_is_a_sentence(mine, reviews):
    config = json.loads((mine / "config.json").read_text())
    (mine / "config.json").write_text(json.dumps(config | {"quantization_config": "4bit"}))
    assert "are quantised" in told(reviews, model=str(mine))


# --- addresses --------------------------------------------------------------------------------------------------------


def test_a_url_is_called_one(reviews, monkeypatch):
    monkeypatch.setattr(files, "_snapshot", lambda *_, **__: pytest.fail("the hub was asked for a URL"))
    text = told(reviews, model="https://huggingface.co/distilbert/distilbert-base-uncased/tree/main")
    assert "is a URL" in text and "'distilbert/distilbert-base-uncased'" in text
    for address in ("https://example.org/model", "s3://bucket/model"):
        assert "give its name on the hub" in told(reviews, model=address)
    for address in ("https://example.org/a.csv", "s3://bucket/a.parquet", "https://example.org/a"):
        text = told(address)
        assert "is a URL" in text and "download the file" in text and "no host given" not in text


# --- lengths and letters ----------------------------------------------------------------------------------------------


def test_a_length_beyond_the_positions_is_refused_before_training_and_in_predictions(reviews, tiny):
    text = told(reviews, model=files.TINY, max_length=129)
    assert text == "max_length 129 is beyond the 128 positions of this bert model: give 128 or less"
    with pytest.raises(BeftError, match="max_length 600 is beyond the 128 positions"):
        predict(tiny.model, tiny.tokenizer, ["good " * 300], 600)
    assert predict(tiny.model, tiny.tokenizer, ["good " * 300], 128).shape == (1, 2)


def test_half_a_surrogate_pair_is_named_with_its_text(tiny):
    with pytest.raises(BeftError, match=r"text 2 of 2 has half a character"):
        predict(tiny.model, tiny.tokenizer, ["good", "bad \ud83d"])
    with pytest.raises(BeftError, match=r"a part of text 1 of 1 has half a character"):
        predict(tiny.model, tiny.tokenizer, [("good", "bad \ude00")])
    assert predict(tiny.model, tiny.tokenizer, ["good \U0001f600"]).shape == (1, 2)
