"""A model is trained on texts as its own tokenizer reads them, or the user is told that this is not so.

A folder without a tokenizer, and one with more tokens than embeddings, are refused; of texts whose tokens are unknown
by more than a tenth a warning says so, by more than nine tenths they are refused.
"""

from __future__ import annotations

import itertools
import json
import warnings

import pytest
import torch
from fitting import fitted
from transformers import AutoTokenizer

import beft
from beft.data.datasets import Split, label_array, labelled_dataset
from beft.data.tasks import TASKS
from beft.errors import BeftError
from beft.models import files, loading
from beft.study import Run, Study
from beft.training.classification import predict

KNOWN = "the film was superb and the soup was dull"


@pytest.fixture
def mine(tmp_path, tiny):
    """A folder with the tiny random model."""
    tiny.model.save_pretrained(tmp_path / "mine")
    tiny.tokenizer.save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


@pytest.mark.parametrize("gone", [["tokenizer.json"], ["tokenizer.json", "tokenizer_config.json"]])
def test_a_folder_without_a_tokenizer_is_refused_with_the_remedy(mine, gone):
    for name in gone:
        (mine / name).unlink()
    with pytest.raises(BeftError, match=r"mine has no tokenizer .* copy that of the model .*save_pretrained\('"):
        loading.load(str(mine), labels=2)


def test_a_vocabulary_alone_is_a_tokenizer(mine, tiny):
    words = sorted(tiny.tokenizer.get_vocab().items(), key=lambda item: item[1])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (mine / name).unlink()
    (mine / "vocab.txt").write_text("\n".join(word for word, _ in words))
    loaded = loading.load(str(mine), labels=2)
    assert loaded.tokenizer(KNOWN)["input_ids"] == tiny.tokenizer(KNOWN)["input_ids"]


def test_a_damaged_tokenizer_is_not_called_damaged_weights(mine):
    (mine / "tokenizer.json").write_text("{")
    with pytest.raises(BeftError, match="its tokenizer may be damaged"):
        loading.load(str(mine), labels=2)


def test_more_tokens_than_embeddings_are_refused(mine):
    tokenizer = AutoTokenizer.from_pretrained(mine)
    tokenizer.add_tokens(["excellently"])
    tokenizer.save_pretrained(mine)
    with pytest.raises(
        BeftError, match="1 of its tokens, such as 'excellently', have no row among the model's 223 emb"
    ):
        loading.load(str(mine), labels=2)


def test_a_tokenizer_of_another_model_is_refused(mine):
    AutoTokenizer.from_pretrained(files.SHIPPED / "tiny-bert").save_pretrained(mine)
    with pytest.raises(BeftError, match="is not of this model: 92 of its tokens"):
        loading.load(str(mine), labels=2)


def test_a_special_token_that_no_text_gets_may_be_beyond_the_embeddings_until_a_text_has_it(mine):
    tokenizer = AutoTokenizer.from_pretrained(mine)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(mine)
    loaded = loading.load(str(mine), labels=2)
    assert predict(loaded.model, loaded.tokenizer, [KNOWN]).shape == (1, 2)
    with pytest.raises(BeftError, match="the token 223 and the model has 223 embeddings"):
        predict(loaded.model, loaded.tokenizer, ["an <image> of soup"])
    tokenizer.mask_token = "<image>"  # which masked texts would get
    tokenizer.save_pretrained(mine)
    with pytest.raises(BeftError, match="'<image>', have no row"):
        loading.load(str(mine), labels=2)


def trained_on(loaded, texts):
    rows = Split(tuple((text,) for text in texts), label_array([i % 2 for i in range(len(texts))]))
    data = labelled_dataset(TASKS["sst2"], rows, rows, "here")
    return fitted(loaded, data, Study(task="sst2", regime="all", epochs=1), [Run("head", 0, 1e-2)])


@pytest.fixture
def own(mine):
    """The same model under a name of its own."""
    return loading.load(str(mine), labels=2)


@pytest.mark.parametrize(("unknown", "warned"), [(0, 0), (1, 0), (2, 1), (9, 1)])
def test_a_tenth_of_unknown_tokens_is_warned_of(own, unknown, warned):
    texts = [" ".join(["film"] * (10 - unknown) + ["zzz"] * unknown)] * 8
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert trained_on(own, texts)[0].outcome == "ok"
    messages = [str(w.message) for w in caught if "unknown to the model's tokenizer" in str(w.message)]
    assert len(messages) == warned
    assert all(f"{unknown}0% of the tokens of the training texts of sst2" in m for m in messages)


def test_texts_of_nothing_but_unknown_tokens_are_refused_before_the_first_step(own):
    with pytest.raises(BeftError, match="100% of the tokens of the training texts of sst2 are unknown"):
        trained_on(own, ["zzz yyy"] * 8)


def test_a_tokenizer_in_which_nothing_is_unknown_is_never_warned_of(recwarn):
    """GPT-2's token for the unknown is that of the end of a text."""
    loaded = loading.load_causal("tiny-gpt2", offline=True)
    from beft.models.tokens import check_known

    loaded.tokenizer.unk_token = loaded.tokenizer.eos_token
    check_known(loaded, torch.tensor([loaded.tokenizer.eos_token_id] * 5), "texts")
    assert not recwarn.list


def test_real_text_is_known_to_a_model_of_letters_and_foreign_to_a_model_of_a_few_words(own, real_data, recwarn):
    with open(real_data / "glue" / "sst2" / "validation.jsonl", encoding="utf-8") as lines:
        rows = [json.loads(line)["sentence"] for line in itertools.islice(lines, 200)]
    trained_on(loading.load("tiny-bert", labels=2, offline=True), rows)
    assert not [w for w in recwarn.list if "unknown" in str(w.message)]
    with pytest.warns(UserWarning, match="% of the tokens of the training texts"):
        trained_on(own, rows)


def test_the_public_call_warns_too(tmp_path, mine):
    path = tmp_path / "own.csv"
    path.write_text("text,label\n" + "".join(f"the qqq{i} was fine,{i % 2}\n" for i in range(20)))
    with pytest.warns(UserWarning, match="is it the one that belongs to the model"):
        beft.tune(str(path), model=str(mine), epochs=1, offline=True, progress=False)
