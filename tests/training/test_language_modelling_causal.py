"""Phase one of debiasing on decoders: next tokens in a bank, and pairs scored from what stands before."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beft.bank.baselines import open_bank
from beft.data.batching import CHUNKS
from beft.data.counterfactual import augment, axis
from beft.data.datasets import Draw, text_dataset
from beft.data.microworld.biographies import biographies
from beft.data.microworld.people import stereotype_triples
from beft.data.stereotype_sets import SentencePair
from beft.debias import upstream
from beft.debias.pair_scores import causal_pair_scores, shared_places
from beft.debias.stereotypes import intrinsic
from beft.errors import BeftError
from beft.models import loading as models
from beft.records.store import Store
from beft.study import Study
from beft.training.language_modelling import NextTokens

TEXTS = ["The soup was dull.", "She said that the plot was never superb, and he agreed.", "A bed."]
PAIRS = [
    ("She sings in the choir.", "He sings in the choir."),
    ("A nurse told her so.", "A nurse told him so."),
]
STUDY = Study(model="tiny-llama", task="t", regime="all", epochs=1, batch_size=4, max_length=64, validate="last")


@pytest.fixture(scope="module")
def llama():
    """A shipped bias-free decoder."""
    return models.load_causal("tiny-llama", offline=True)


def test_the_loss_is_transformers_own_for_every_text(llama):
    objective = NextTokens(llama, text_dataset("t", TEXTS, TEXTS, "by hand"), STUDY, [Draw(np.arange(3), np.arange(0))])
    with open_bank(llama.model, ["b_v"], [0]) as bank:
        ours = objective.loss(bank, torch.zeros(3, dtype=torch.long), None, np.array([2, 0, 1])).detach()
    for value, i in zip(ours, (2, 0, 1), strict=True):
        ids = llama.tokenizer(TEXTS[i], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            assert float(value) == pytest.approx(float(llama.model(input_ids=ids, labels=ids).loss), abs=1e-5)


def test_pairs_are_scored_as_one_sentence_at_a_time(llama):
    ours = causal_pair_scores(llama.model, llama.tokenizer, PAIRS)
    for pair, scores in zip(PAIRS, ours, strict=True):
        ids = [llama.tokenizer(text)["input_ids"] for text in pair]
        places = shared_places(*ids, set(llama.tokenizer.all_special_ids))
        for row, at, score in zip(ids, places, scores, strict=True):
            with torch.no_grad():
                log_probs = llama.model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1)
            assert score == pytest.approx(sum(float(log_probs[i - 1, row[i]]) for i in at if i), abs=1e-4)


def test_the_loss_on_held_out_text_is_the_mean_over_its_tokens(llama):
    objective = NextTokens(llama, text_dataset("t", TEXTS, TEXTS, "by hand"), STUDY, [Draw(np.arange(3), np.arange(0))])
    with open_bank(llama.model, ["b_v", "b_q"], [0, 1]) as bank:
        objective.scores(bank, True, True, CHUNKS["cpu"])
    ids = [llama.tokenizer(text, return_tensors="pt")["input_ids"] for text in TEXTS]
    with torch.no_grad():
        losses = [float(llama.model(input_ids=row, labels=row).loss) for row in ids]
    counts = [row.shape[1] - 1 for row in ids]
    mean = sum(loss * n for loss, n in zip(losses, counts, strict=True)) / sum(counts)
    assert objective.nats == pytest.approx([mean] * 2, rel=1e-4)


def test_an_injected_bias_of_a_decoder_is_a_patch_with_a_record(llama, tmp_path):
    texts = [b.text for b in biographies("train", 8, 0.5)]
    corpus = text_dataset("people", augment(texts, axis("gender")).texts, texts[:3], "generated", True)

    def measure(model, run):
        scores = causal_pair_scores(model, llama.tokenizer, PAIRS, run)
        return {"crows": {"gender": {"percent": 50.0, "nats": float(np.mean(scores[:, 0] - scores[:, 1]))}}}

    phase = upstream.Phase(llama, corpus, "gender", STUDY, measure, "two pairs")
    runs = [upstream.Run("b_v", 0, 0.05), upstream.Run("b_q", 0, 0.05)]
    records = upstream.train_patches(phase, runs, Store(tmp_path), progress=False)
    before = upstream.untouched(phase, Store(tmp_path))["measures"]["crows"]["gender"]["nats"]
    assert all(r["outcome"] == "ok" and r["measures"]["crows"]["gender"]["nats"] != before for r in records)
    sites = set(upstream.patch(phase, runs[0], Store(tmp_path)).tensors)
    assert sites == {f"model.layers.{i}.self_attn.v_proj.bias" for i in range(4)}  # where the model has none


def test_a_text_of_one_token_is_named(llama):
    data = text_dataset("t", [*TEXTS, ""], TEXTS, "by hand")
    with pytest.raises(BeftError, match="text 4 of t has one token: leave it out"):
        NextTokens(llama, data, STUDY, [Draw(np.arange(4), np.arange(0))])


def test_the_intrinsic_measure_of_a_decoder_goes_by_what_stands_before(llama):
    pairs = {"gender": [SentencePair(*pair, "gender") for pair in PAIRS]}
    measure, _ = intrinsic(llama.tokenizer, pairs, {"gender": stereotype_triples("gender", 2)})
    found = measure(llama.model, 0)
    scores = causal_pair_scores(llama.model, llama.tokenizer, PAIRS)
    assert found["crows"]["gender"]["nats"] == pytest.approx(float(np.mean(scores[:, 0] - scores[:, 1])))
    assert found["stereoset"] == {}
