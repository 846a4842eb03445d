"""Occupations and pronouns: the sentences, and the log odds of a causal language model."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from small_tokenizers import byte_level, word_piece

from beft.bank.baselines import open_bank
from beft.data.counterfactual import axis
from beft.debias.occupations import association, listed, log_odds, pronoun_tokens, sentence
from beft.errors import BeftError
from beft.models import loading as models

WORDS = ["nurse", "engineer", "cook"]


@pytest.fixture(scope="module")
def llama():
    return models.load_causal("tiny-llama", offline=True)


def test_occupations_are_many_single_words_of_every_group_that_say_no_gender():
    groups, templates = listed()
    assert len(groups) >= 60 and len(set(groups.values())) == 10 and len(templates) >= 4
    assert all(re.fullmatch(r"[a-z]+", word) for word in groups)
    sentences = [sentence(template, word) for template in templates for word in groups]
    assert len(set(sentences)) == len(sentences) and not any("{" in text for text in sentences)
    gender = axis("gender")
    assert [text for text in sentences if gender.words_in(text)] == []


def test_the_article_fits_the_word():
    made = [sentence("We met {a occupation}", word) for word in ("nurse", "engineer", "executive")]
    assert [text.split()[2] for text in made] == ["a", "an", "an"]
    wrong = re.compile(r"\b(?:a [aeio]|an [^aeio])")
    assert not [w for w in listed()[0] for t in listed()[1] if wrong.search(sentence(t, w).lower())]


def test_log_odds_are_those_of_one_sentence_at_a_time(llama):
    templates = ["The {occupation} said that", "We asked {a occupation} whether"]
    ours = log_odds(llama.model, llama.tokenizer, 0, WORDS, templates)
    he, she = (llama.tokenizer(f"The cook said that {p}")["input_ids"][-1] for p in ("he", "she"))
    for word in WORDS:
        odds = []
        for template in templates:
            ids = torch.tensor([llama.tokenizer(sentence(template, word))["input_ids"]])
            with torch.no_grad():
                log_probs = llama.model(input_ids=ids).logits[0, -1].log_softmax(-1)
            odds.append(float(log_probs[she] - log_probs[he]))
        assert ours[word] == pytest.approx(np.mean(odds), abs=1e-4)


def test_a_run_of_a_bank_is_asked_with_its_biases_and_bfloat16_does_not_round_the_logits(llama):
    before = log_odds(llama.model, llama.tokenizer, 0, WORDS)
    for dtype, apart in (("float32", 1e-4), ("bfloat16", 0.05)):
        with open_bank(llama.model, ["b_v", "b_v"], [0, 1], dtype) as bank:
            for slot in bank.slots:
                slot.values.data[1] = 0.5
            same, moved = (log_odds(bank, llama.tokenizer, run, WORDS) for run in (0, 1))
        assert [same[w] for w in WORDS] == pytest.approx([before[w] for w in WORDS], abs=apart)
        assert max(abs(moved[w] - before[w]) for w in WORDS) > 0.1
        steps = np.array(list(same.values())) * 4 * 64  # four templates; logits in bfloat16 are whole steps here
        assert np.abs(steps - steps.round()).max() > 1e-3
    assert "forward" not in vars(llama.model.get_output_embeddings())


@pytest.mark.parametrize("make", [byte_level, word_piece])
def test_a_tokenizer_without_single_tokens_for_the_pronouns_is_refused(make):
    with pytest.raises(BeftError, match="does not have ' he' as a single token"):
        pronoun_tokens(make())


def test_the_spread_is_what_is_left_without_the_mean():
    even, uneven = {"a": 2.0, "b": 2.0, "c": 2.0}, {"a": -1.0, "b": 0.0, "c": 1.0, "d": 4.0}
    assert association(even)["spread"] == 0 and association(even)["mean"] == 2
    found = association(uneven)
    assert found["spread"] == pytest.approx(1.5) and found["mean"] == 1 and found["n"] == 4
    assert found["spread_low"] <= 1.5 <= found["spread_high"] and found["mean_low"] < 1 < found["mean_high"]
    shifted = association({name: value + 10 for name, value in uneven.items()})
    assert shifted["spread"] == pytest.approx(1.5) and shifted["spread_low"] == pytest.approx(found["spread_low"])
    assert np.isnan(association({"a": 1.0})["spread_low"]) and np.isnan(association({})["spread"])
