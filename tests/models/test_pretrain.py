"""Small language models pre-trained on the micro-world: the same file every time, and only the training split in it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys

import pretrain
import pytest
import small_models
from corpus import documents
from small_models import MASKED

from beft.data.microworld import people
from beft.data.microworld.tasks import questions
from beft.errors import BeftError
from beft.models import files as model_files
from beft.models import loading as models
from beft.models.files import SHIPPED

SHORT = {"steps": 3, "batch": 2, "length": 32}


@pytest.mark.parametrize("kind", small_models.MODELS)
def test_a_model_is_the_same_file_every_time_and_loads_by_its_folder(tmp_path, kind):
    first = pretrain.pretrain(kind, tmp_path / "one", **SHORT)
    second = pretrain.pretrain(kind, tmp_path / "two", **SHORT)
    assert first["sha256"] == second["sha256"] == model_files.weight_hash(tmp_path / "one")
    assert first["curve"] == second["curve"] and first["tokens"] >= 3 * 2 * (10 if kind in MASKED else 32)
    assert first["sha256"] != pretrain.pretrain(kind, tmp_path / "other", seed=1, **SHORT)["sha256"]
    load = models.load_masked if kind in MASKED else models.load_causal
    loaded = load(str(tmp_path / "one"))
    assert loaded.sha256 == first["sha256"] == json.loads((tmp_path / "one" / "training.json").read_text())["sha256"]
    size = sum(path.stat().st_size for path in (tmp_path / "one").iterdir())
    assert size < 6e6 and first["parameters"] < 1.2e6


def test_a_model_written_over_itself_does_not_make_its_own_code_dirty(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(pretrain, "provenance", lambda _: written.extend(tmp_path.iterdir()) or {})
    pretrain.pretrain("tiny-opt", tmp_path / "one", **SHORT)
    assert not written


@pytest.mark.parametrize("kind", small_models.CAUSAL)
def test_a_tokenizer_writes_any_text_back(kind):
    tokenizer = small_models.tokenizer_for(kind, count=300)
    text = "Who has six eggs? Martin.\nÜber 7 naïve maps: 'no' — yes!"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text
    ids = tokenizer("a")["input_ids"]
    assert (tokenizer.convert_ids_to_tokens(ids)[0] in ("<s>", "</s>")) is (kind != "tiny-gpt2")
    assert (tokenizer.pad_token is None) is (kind == "tiny-gpt2")


def test_rows_are_full_and_documents_end():
    tokenizer = small_models.tokenizer_for("tiny-opt", count=300)
    rows = list(itertools.islice(pretrain.blocks(tokenizer, 0, 40), 20))
    assert {len(row) for row in rows} == {40}
    text = tokenizer.decode(sum(rows, []))
    assert text.startswith("</s>" + next(documents(0)) + "</s>")


def test_documents_stand_apart_at_first_and_one_after_another_at_last():
    tokenizer = small_models.tokenizer_for("tiny-opt", count=300)
    steps = list(pretrain.batches(tokenizer, 0, 20, batch=4, length=40))
    end = tokenizer.eos_token_id
    assert len(steps) == 20 and all(sum(map(len, rows)) >= 160 for rows in steps)
    for rows in steps[:17]:  # an end token begins a text of OPT's, too
        assert all(row[0] == row[-1] == end and end not in row[1:-1] for row in rows)
    assert [len(row) for rows in steps[17:] for row in rows] == [40] * 12


def test_documents_can_stand_one_after_another_in_every_fifth_step():
    tokenizer = small_models.tokenizer_for("tiny-opt", count=300)
    steps = list(pretrain.batches(tokenizer, 0, 20, batch=4, length=40, joined="throughout"))
    joined = [i for i, rows in enumerate(steps) if [len(row) for row in rows] == [40] * 4]
    assert joined == [4, 9, 14, 19]
    first = next(pretrain.batches(tokenizer, 0, 20, batch=4, length=40))
    assert steps[0] == first  # documents apart first, in both ways


def test_documents_are_deterministic_and_ask_nothing_of_the_validation_split():
    some = list(itertools.islice(documents(0), 3000))
    assert some[:100] == list(itertools.islice(documents(0), 100)) != list(itertools.islice(documents(1), 100))
    held_out = questions(0, 0, 500)[1]
    text = "\n".join(some)
    assert not any(f"{row['context']} " in text and row["question"] in text for row in held_out)
    phrases = ("That is why", "It follows that", "It does not follow", "Who has", "What a joy", "I hated it")
    assert all(phrase in text for phrase in phrases)


def test_wrong_arguments_are_one_sentence(tmp_path, capsys):
    with pytest.raises(BeftError, match="unknown kind of model 'tiny-lama'.*tiny-llama"):
        pretrain.pretrain("tiny-lama", tmp_path)
    assert pretrain.main(["tiny-opt", "--out", str(tmp_path / "x"), "--steps", "0"]) == 2
    assert capsys.readouterr().err == "error: steps 0 is too small: give a positive number\n"
    assert not (tmp_path / "x").exists()
    assert pretrain.main(["tiny-opt", "--out", str(tmp_path / "x"), "--joined", "lost"]) == 2
    assert "unknown way of joining 'lost': did you mean last?" in capsys.readouterr().err
    assert pretrain.main(["tiny-bert", "--out", str(tmp_path / "x"), "--joined", "throughout"]) == 2
    assert "tiny-bert reads one text a row: --joined throughout is for tiny-opt" in capsys.readouterr().err


def test_a_masked_model_reads_people_of_the_training_split_with_the_planted_links():
    some = list(itertools.islice(people.documents(0), 4000))
    assert some[:50] == list(itertools.islice(people.documents(0), 50))
    held_out = list(itertools.islice(people.documents(0, "validation"), 400))
    assert not set(some) & set(held_out)
    named = [t for t in some if "works as a nurse" in t]
    women = [t for t in named if "She" in t or "she" in t]
    assert len(women) / len(named) == pytest.approx((1 + people.LINKS["gender"]) / 2, abs=0.08)


def test_a_masked_models_tokenizer_has_whole_words_and_takes_pairs():
    tokenizer = small_models.tokenizer_for("tiny-bert", count=300)
    batch = tokenizer("She works as a nurse.", "A nurse in Oslo.")
    words = tokenizer.convert_ids_to_tokens(batch["input_ids"])
    assert words == [
        "[CLS]",
        *"she works as a nurse .".split(),
        "[SEP]",
        *"a nurse in oslo .".split(),
        "[SEP]",
    ]


def test_a_tokenizer_is_the_same_in_another_process():
    """Of each kind of tokenizer (whole words, pieces), where sets have another order."""
    code = f"import json, sys; sys.path.insert(0, {str(SHIPPED)!r}); from small_models import tokenizer_for as t; "
    code += "print(json.dumps([t(kind, count=400).get_vocab() for kind in sys.argv[1:]]))"
    kinds, other = ["tiny-bert", "tiny-llama"], os.environ | {"PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code, *kinds], env=other, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [small_models.tokenizer_for(kind, count=400).get_vocab() for kind in kinds]


def test_any_word_can_be_spelled_by_the_masked_models_tokenizer():
    tokenizer = small_models.tokenizer_for("tiny-bert", count=300)
    ids = tokenizer("Xylophones 42?")["input_ids"]
    assert ids.count(tokenizer.unk_token_id) == 1  # the question mark, which nobody writes
    assert tokenizer.decode(ids, skip_special_tokens=True).startswith("xylophones 42")
