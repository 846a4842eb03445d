"""Texts are cut and padded on the right, whatever the config of a tokenizer says: the same numbers come out.

With "left" in it, texts were cut to nothing but padding, and models were trained on that without a word.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from fitting import fitted
from masked_models import STUDY, TEXTS, folder_of, small

import beft
from beft.data.batching import encode
from beft.data.datasets import text_dataset
from beft.data.prompts import Example
from beft.data.stereotype_sets import Triple
from beft.debias.pair_scores import pair_scores
from beft.debias.stereotypes import triple_scores
from beft.models import files, loading
from beft.study import Run
from beft.training.classification import predict
from beft.training.language_modelling import MaskedTokens
from beft.training.prompting import generate

SHORT, LONG = "the film was dull", "the view from the hotel was superb and the soup was dull after the first visit"
TOO_LONG = " ".join([LONG] * 20)  # than the tokenizer takes


def to_the_left(folder):
    """Write the sides into a tokenizer's own config, as some models on the hub have them."""
    path = folder / "tokenizer_config.json"
    settings = {"padding_side": "left", "truncation_side": "left"}
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


@pytest.fixture(params=["right", "left"])
def tokenizer(request, tiny):
    """The tiny tokenizer with either side."""
    tiny.tokenizer.padding_side = tiny.tokenizer.truncation_side = request.param
    return tiny.tokenizer


def test_rows_of_a_chunk_are_whole_texts_cut_on_the_right(tokenizer):
    encoded = encode(tokenizer, [(SHORT,), (LONG,)], 8)
    rows = encoded.rows(np.array([0]), torch.device("cpu"))
    cls, sep, words = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.convert_tokens_to_ids(LONG.split())
    assert rows["input_ids"].tolist() == [[cls, *tokenizer.convert_tokens_to_ids(SHORT.split()), sep]]
    assert encoded.columns["input_ids"][1].tolist() == [cls, *words[:6], sep]
    assert tokenizer.padding_side == tokenizer.truncation_side  # as its owner has it


def test_predictions_of_texts_together_are_those_of_each_alone(tiny, tokenizer):
    together = predict(tiny.model, tokenizer, [SHORT, LONG, TOO_LONG], 32)
    alone = np.concatenate([predict(tiny.model, tokenizer, [text], 32) for text in (SHORT, LONG, TOO_LONG)])
    assert together == pytest.approx(alone, abs=1e-6)
    first = predict(tiny.model, tokenizer, [" ".join(TOO_LONG.split()[:30])], 32)
    assert together[2] == pytest.approx(first[0], abs=1e-6)


def test_scores_of_pairs_and_of_blanks_do_not_know_the_side(tokenizer):
    loaded = small(dropout=0.0)
    assert loaded.tokenizer.padding_side == "right"
    pairs = [(SHORT, "the film was superb"), (TOO_LONG, TOO_LONG)]
    triples = [Triple("the film was dull", "the soup was dull", "the hotel was dull", "gender", "the BLANK was dull")]
    for score, given in ((pair_scores, pairs), (triple_scores, triples)):
        assert np.array_equal(score(loaded.model, tokenizer, given), score(loaded.model, loaded.tokenizer, given))


@pytest.fixture
def sides(tmp_path, tiny):
    """Two folders with the same classifier, whose tokenizers differ in their sides."""
    for side in ("right", "left"):
        tiny.model.save_pretrained(tmp_path / side)
        tiny.tokenizer.save_pretrained(tmp_path / side)
    return tmp_path / "right", to_the_left(tmp_path / "left")


def test_a_classifier_is_tuned_to_the_same_and_saved_with_the_side_it_was_tuned_with(sides, tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\n" + "".join(f"{text},{text.split()[-1] < 'm'}\n" for text in TEXTS * 4))
    tuned = [beft.tune(str(path), model=str(m), epochs=2, rate=1e-2, offline=True, progress=False) for m in sides]
    assert tuned[0].result.epochs == tuned[1].result.epochs
    texts = [SHORT, LONG, TOO_LONG]
    expected = predict(tuned[0].model, tuned[0].tokenizer, texts)
    assert np.array_equal(predict(tuned[1].model, tuned[1].tokenizer, texts), expected)
    tuned[1].save(tmp_path / "saved")
    written = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert (written["padding_side"], written["truncation_side"]) == ("right", "right")


def test_masked_texts_are_trained_on_the_same(tmp_path):
    data = text_dataset("texts", [*TEXTS, LONG, *TEXTS, LONG], [SHORT, LONG], "here")
    right, left = (folder_of(small(), tmp_path / name) for name in ("right", "left"))
    results = [
        fitted(loading.load_masked(str(m)), data, STUDY, [Run("b_v", 0, 1e-2)], objective=MaskedTokens)[0].epochs
        for m in (right, to_the_left(left))
    ]
    assert results[0] == results[1]


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama"])
def test_a_prompted_model_writes_and_is_trained_the_same(name):
    from beft.data.sources import load_prompts
    from beft.study import Study

    data = load_prompts("microworld_sentiment")
    few = replace(data, validation=replace(data.validation, **{n: x[:8] for n, x in vars(data.validation).items()}))
    study = Study(name, "microworld_sentiment", 8, epochs=1, prompted=True, max_length=64, validate="last")
    prompts, outcomes = [Example(f"{text}\nSo") for text in (SHORT, LONG)], []
    for side in ("right", "left"):
        loaded = loading.load_causal(name, offline=True)
        loaded.tokenizer.padding_side = loaded.tokenizer.truncation_side = side
        trained = fitted(loaded, few, study, [Run("b_v", 0, 1e-2)])[0].epochs
        outcomes.append((trained, generate(loaded.model, loaded.tokenizer, prompts, 40, new_tokens=5)))
    assert outcomes[0] == outcomes[1]


def test_the_side_of_a_language_model_is_its_own_when_it_is_saved(tmp_path):
    """A server pads prompts on the left, and a tokenizer that says so keeps saying it."""
    shutil.copytree(files.SHIPPED / "tiny-llama", tmp_path / "mine")
    assert loading.load_causal(str(to_the_left(tmp_path / "mine"))).tokenizer.padding_side == "left"
