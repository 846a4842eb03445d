"""How many tokens a text may have for a model, and whether a tokenizer fits it."""

from __future__ import annotations

import pytest
import torch
from small_tokenizers import byte_level
from transformers import BertConfig, BertForSequenceClassification, BigBirdConfig

from beft.anatomy.architectures import text_positions
from beft.errors import BeftError
from beft.models.tokens import check_length, check_vocabulary
from beft.theory import null_key_bias

TEXT = [name for name, a in null_key_bias.ARCHITECTURES.items() if a.config != "ViTConfig"]


@pytest.mark.parametrize("name", TEXT)
def test_the_most_tokens_of_a_text_are_computed_and_one_more_cannot_be(name):
    model = null_key_bias.build(name)
    longest = text_positions(model.config)
    batch = null_key_bias.inputs(model, batch=1, tokens=(longest or 600))
    batch["attention_mask"][:] = 1
    with torch.no_grad():
        model(**batch)
    if longest is not None:
        check_length(model, longest)
        with pytest.raises(BeftError, match=f"max_length {longest + 1} is beyond the {longest} positions"):
            check_length(model, longest + 1)
        more = {n: torch.cat([x, x[:, :1]], dim=1) for n, x in batch.items()}
        with pytest.raises((IndexError, RuntimeError)), torch.no_grad():
            model(**more)


def test_an_architecture_that_beft_does_not_know_is_bounded_by_its_config():
    assert text_positions(BigBirdConfig(max_position_embeddings=514)) == 514


def test_a_tokenizer_without_special_tokens_fits_a_model_with_as_many_embeddings(tmp_path):
    tokenizer = byte_level()
    tokenizer.save_pretrained(tmp_path)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    for missing in (0, 1):
        model = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer) - missing, **size))
        if missing:
            with pytest.raises(BeftError, match="1 of its tokens"):
                check_vocabulary(tokenizer, model, tmp_path)
        else:
            check_vocabulary(tokenizer, model, tmp_path)
