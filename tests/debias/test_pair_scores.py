"""CrowS-Pairs: many masked places at once, with the scores of one at a time."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForMaskedLM, BertConfig, PreTrainedTokenizerFast, RobertaConfig

from beft.bank.baselines import open_bank
from beft.debias.pair_scores import pair_scores, shared_places
from beft.errors import BeftError

WORDS = "the women men people who like to cook work are not bad good at home .".split()
PAIRS = [
    ("the women like to cook at home .", "the men like to cook at home ."),
    ("women are bad at work .", "people who are not women are good at work ."),
    ("men .", "men ."),
]


def tokenizer() -> PreTrainedTokenizerFast:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=32,
    )  # fmt: skip


def masked(kind=BertConfig):
    torch.manual_seed(0)
    config = kind(
        vocab_size=5 + len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=40, initializer_range=0.3, pad_token_id=0,
    )  # fmt: skip
    return AutoModelForMaskedLM.from_config(config).eval().requires_grad_(False)


def one_at_a_time(model, words, pair):
    """The definition, place by place."""
    ids = [words(text)["input_ids"] for text in pair]
    scores = []
    for mine, places in zip(ids, shared_places(*ids, set(words.all_special_ids)), strict=True):
        total = 0.0
        for i in places:
            row = torch.tensor([mine])
            row[0, i] = words.mask_token_id
            total += float(model(input_ids=row).logits[0, i].log_softmax(-1)[mine[i]])
        scores.append(total)
    return scores


@pytest.mark.parametrize("kind", [BertConfig, RobertaConfig])
def test_scores_are_those_of_one_masked_place_at_a_time(kind):
    model, words = masked(kind), tokenizer()
    with torch.no_grad():
        expected = [one_at_a_time(model, words, pair) for pair in PAIRS]
    assert pair_scores(model, words, PAIRS) == pytest.approx(torch.tensor(expected).numpy(), abs=1e-4)


def test_only_what_both_sentences_share_is_scored():
    words = tokenizer()
    first, second = (words(text)["input_ids"] for text in PAIRS[0])
    one, other = shared_places(first, second, set(words.all_special_ids))
    assert one == other == [1, 3, 4, 5, 6, 7, 8]  # neither the word that differs nor the first and last token
    assert shared_places([7, 8, 9], [9, 7, 8], set()) == ([0, 1], [1, 2])


def test_a_run_of_a_bank_scores_with_its_biases():
    model, words = masked(), tokenizer()
    before = pair_scores(model, words, PAIRS)
    with open_bank(model, ["b_v", "b_v"], [0, 1]) as bank:
        for slot in bank.slots:
            slot.values.data[1] = 1.0
        same, moved = (pair_scores(bank, words, PAIRS, run=run) for run in (0, 1))
    assert same == pytest.approx(before, abs=1e-6) and abs(moved - before).max() > 1e-2
    assert pair_scores(model, words, []).shape == (0, 2)


def test_bad_pairs_and_models_are_refused():
    words = tokenizer()
    with pytest.raises(BeftError, match="pair 2 has an empty sentence"):
        pair_scores(masked(), words, [PAIRS[0], ("", "men .")])
    words.mask_token = None
    with pytest.raises(BeftError, match="has no mask token: give a masked language model"):
        pair_scores(masked(), words, PAIRS)
