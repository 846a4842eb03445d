"""CrowS-Pairs and StereoSet: scoring as one masked token at a time does, and counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForMaskedLM, BertConfig, PreTrainedTokenizerFast

from beft.bank.baselines import open_bank
from beft.data.stereotype_sets import Triple
from beft.debias import bias_metrics
from beft.debias.stereotypes import crows_shares, stereoset_by_kind, triple_scores
from beft.errors import BeftError

PIECES = "the my sailor cook is was very brave kind ##ly un ##kind ##er green tea ##pot . , and".split()
CONTEXTS = ["the cook is BLANK .", "BLANK was my sailor , and very brave", "my very BLANK, brave sailor ."]
TRIPLES = [
    Triple("the cook is kinder .", "the cook is unkinder .", "the cook is green .", "profession", CONTEXTS[0]),
    Triple(
        "kindly was my sailor , and very brave",
        "cook was my sailor , and very brave",
        "teapot was my sailor , and very brave",
        "gender",
        CONTEXTS[1],
    ),
    Triple(*(f"my very {w}, brave sailor ." for w in ("kind", "unkindly", "tea-pot")), "gender", CONTEXTS[2]),
]  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES]
    backend = Tokenizer(models.WordPiece({w: i for i, w in enumerate(names)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=32,
    )  # fmt: skip


def masked():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5 + len(PIECES), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=40, initializer_range=0.3, pad_token_id=0,
    )  # fmt: skip
    return AutoModelForMaskedLM.from_config(config).eval().requires_grad_(False)


def by_hand(model, words, context, pieces):
    """The mean probability of the pieces of a word, each with those before it in the blank and one mask."""
    before, after = context.split("BLANK")
    chances = []
    for k, piece in enumerate(pieces):
        tokens = ["[CLS]", *words.tokenize(before), *pieces[:k], "[MASK]", *words.tokenize(after), "[SEP]"]
        logits = model(input_ids=torch.tensor([words.convert_tokens_to_ids(tokens)])).logits[0]
        place = 1 + len(words.tokenize(before)) + k
        chances.append(float(logits[place].softmax(-1)[words.convert_tokens_to_ids(piece)]))
    return np.log(np.mean(chances))


def test_scores_are_those_of_the_authors_rule_one_token_at_a_time():
    model, words = masked(), tokenizer()
    pieces = [
        [["kind", "##er"], ["un", "##kind", "##er"], ["green"]],
        [["kind", "##ly"], ["cook"], ["tea", "##pot"]],
        [["kind"], ["un", "##kind", "##ly"], ["tea", "##pot"]],  # punctuation is no part of the word
    ]
    expected = [[by_hand(model, words, c, p) for p in row] for c, row in zip(CONTEXTS, pieces, strict=True)]
    found = triple_scores(model, words, TRIPLES)
    assert found == pytest.approx(np.array(expected), abs=1e-5)
    assert triple_scores(model, words, TRIPLES[1:2]) == pytest.approx(found[1:2], abs=1e-5)
    assert triple_scores(model, words, []).shape == (0, 3)


def test_a_run_of_a_bank_scores_with_its_biases():
    model, words = masked(), tokenizer()
    before = triple_scores(model, words, TRIPLES)
    with open_bank(model, ["b_v", "b_v"], [0, 1]) as bank:
        for slot in bank.slots:
            slot.values.data[1] = 1.0
        same, moved = (triple_scores(bank, words, TRIPLES, run=run) for run in (0, 1))
    assert same == pytest.approx(before, abs=1e-6) and abs(moved - before).max() > 1e-2


def test_a_blank_that_is_cut_off_and_a_tokenizer_without_mask_are_refused():
    model, words = masked(), tokenizer()
    words.model_max_length = 5
    with pytest.raises(BeftError, match="the blank of triple 1 is beyond 5 tokens"):
        triple_scores(model, words, TRIPLES)
    words.mask_token = None
    with pytest.raises(BeftError, match="has no mask token"):
        triple_scores(model, words, TRIPLES)


def test_shares_count_higher_scores_of_the_stereotype_and_ties_against_it():
    scores = np.array([[-1.0, -2.0], [-2.0, -1.0], [-1.0, -1.0], [-1.0, -1.0004], [-3.0, -4.0]])
    found = crows_shares(scores, ["age", "age", "age", "gender", "gender"])
    assert list(found) == ["all", "age", "gender"]
    assert [found[k].percent for k in found] == pytest.approx([40, 100 / 3, 50])
    assert found["all"].n == 5 and found["all"].low < 40 < found["all"].high
    assert np.isnan(crows_shares(np.zeros((0, 2)), [])["all"].percent)


def test_stereoset_by_kind_is_that_of_its_rows_and_of_targets_on_request():
    scores = np.array([[2.0, 1, 0], [1, 2, 0], [0, 1, 2], [3, 2, 1]])
    kinds = ["gender", "gender", "race", "gender"]
    found = stereoset_by_kind(scores, kinds)
    assert found["all"] == bias_metrics.stereoset(scores)
    assert found["gender"] == bias_metrics.stereoset(scores[[0, 1, 3]]) and found["race"].lm == 0
    # of gender, term a has the stereotype in 1 of 2 and term b in 1 of 1
    by_target = stereoset_by_kind(scores, kinds, ["a", "a", "c", "b"])["gender"]
    assert (by_target.lm, by_target.stereotype, by_target.icat) == (100, 75, 50)
    assert np.isnan(stereoset_by_kind(np.zeros((0, 3)), [])["all"].icat)


@pytest.mark.parametrize("count", [crows_shares, stereoset_by_kind])
def test_scores_that_do_not_fit_or_are_no_numbers_are_refused(count):
    width = 2 if count is crows_shares else 3
    with pytest.raises(BeftError, match=r"do not fit 1 categories: give \(1, "):
        count(np.zeros((2, width)), ["age"])
    with pytest.raises(BeftError, match="row 2 of the scores is no number: the model has diverged"):
        count([[0.0] * width, [np.nan] * width], ["age", "age"])
