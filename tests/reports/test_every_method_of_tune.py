"""`tune` refuses before the first step what it could not hand over after the last one; each method that it lists as
valid comes back as a model that is saved, loaded again with and without beft, and predicts the same."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import beft
from beft.bank.handover import check_method
from beft.models import loading as models
from beft.study import ALL_METHODS
from beft.theory import null_key_bias as tiny_models

TEXTS = [("the film was good", "it was not"), ("a bad and slow plot", "nobody liked it"), ("the end", "the end")]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A file of pairs: the second text has a token type of its own."""
    folder = tmp_path_factory.mktemp("data")
    lines = [
        f"the film was {i},it was {('bad', 'good', 'mixed')[i % 3]},{('no', 'yes', 'so')[i % 3]}" for i in range(18)
    ]
    path = folder / "pairs.csv"
    path.write_text("text_a,text_b,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folders of encoders: BERT, with a pooler and token types, and RoBERTa with neither."""
    tokenizer = models.load(models.TINY, labels=2).tokenizer
    folders = {}
    for name in ("BERT", "RoBERTa"):
        architecture = tiny_models.ARCHITECTURES[name]
        settings = architecture.settings | {"vocab_size": len(tokenizer)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = getattr(transformers, architecture.config)(**settings)
            model = transformers.AutoModelForMaskedLM.from_config(config)
            for parameter in (p for n, p in model.named_parameters() if n.endswith("bias")):
                torch.nn.init.normal_(parameter, std=0.1)
        folders[name] = tmp_path_factory.mktemp("models") / name
        model.save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


def tune(pairs: str, base: Path, method: str, **more: Any) -> Any:
    settings = {"epochs": 1, "rate": 1e-2, "batch_size": 8, "max_length": 32, "offline": True}
    return beft.tune(pairs, model=str(base), method=method, **(settings | more))


def listed() -> list[str]:
    """The methods that the error of `tune` lists as valid."""
    with pytest.raises(beft.BeftError) as caught:
        beft.tune("nowhere.csv", method="nothing")
    valid = re.search(r"\(valid: (.*)\)", str(caught.value))
    assert valid is not None
    return valid.group(1).split(", ")


def test_what_is_listed_is_all_that_a_classifier_is_tuned_with():
    assert set(listed()) == set(ALL_METHODS) - {"prefix"}


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *(("BERT", method) for method in listed() if ":" not in method or method.startswith("b_v")),
        *(("RoBERTa", method) for method in ("head", "b_v", "full", "lora", "prompt")),
    ],
)
def test_what_is_listed_is_tuned_saved_and_loaded_again(pairs, bases, tmp_path, name, method):
    printed, adapter = io.StringIO(), tmp_path / "adapter"
    held = method not in ("full", "mask") and (method, name) != ("head", "RoBERTa")
    with contextlib.redirect_stdout(printed):
        tuned = tune(pairs, bases[name], method, **({"adapter": adapter} if held else {}))
        tuned.save(tmp_path / "saved")
    said = beft.predict(tuned.model, tuned.tokenizer, TEXTS, tuned.max_length)
    assert tuned.predict(TEXTS) == [tuned.labels[i] for i in said.argmax(1)]
    found = {}
    if method == "prompt":
        exec(printed.getvalue().rpartition("from peft")[2].join(["from peft", ""]), found)
        saved = found["model"]
    else:
        saved = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert beft.predict(saved.eval(), tokenizer, TEXTS, 32) == pytest.approx(said, abs=1e-5)
    if not held:
        return
    loaded = models.load(str(bases[name]), labels=3)
    again = beft.load_tuned(loaded.model, adapter)
    assert beft.predict(again, loaded.tokenizer, TEXTS, 32) == pytest.approx(said, abs=1e-5)
    code = (adapter / "README.md").read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    assert code.strip() in printed.getvalue()
    exec(code, found)
    tokenizer = transformers.AutoTokenizer.from_pretrained(adapter)
    assert beft.predict(found["model"].eval(), tokenizer, TEXTS, 32) == pytest.approx(said, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "method", "says"),
    [
        ("BERT", "full", "PEFT has no adapter.*leave `adapter` out"),
        ("BERT", "mask", "PEFT has no adapter.*leave `adapter` out"),
        ("RoBERTa", "head", "has no BEFT adapter.*leave `adapter` out"),
    ],
)
def test_an_adapter_that_cannot_be_written_is_refused_before_the_first_step(
    pairs, bases, tmp_path, monkeypatch, name, method, says
):
    _refuse_steps(monkeypatch)
    with pytest.raises(beft.BeftError, match=says):
        tune(pairs, bases[name], method, adapter=tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_so_is_a_folder_that_is_a_file(pairs, bases, tmp_path, monkeypatch):
    _refuse_steps(monkeypatch)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(beft.BeftError, match="is not a folder: give another"):
        tune(pairs, bases["BERT"], "b_v", adapter=tmp_path / "file")


@pytest.mark.parametrize(
    ("method", "says"), [("prefix", "a prefix is for causal language models"), ("sparse", "unknown method 'sparse'")]
)
def test_a_method_that_no_classifier_is_tuned_with_is_refused_before_anything_is_read(method, says):
    with pytest.raises(beft.BeftError, match=says):
        beft.tune("nowhere.csv", method=method)
    with pytest.raises(beft.BeftError, match=says):
        check_method(method)


def test_a_prompt_leaves_room_for_itself_in_long_texts(pairs, bases):
    tuned = tune(pairs, bases["BERT"], "prompt", max_length=512, progress=False)
    assert tuned.predict([("the film " * 600, "it was good")])[0] in tuned.labels


def _refuse_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*arguments: Any) -> None:
        raise AssertionError("a step was made")

    monkeypatch.setattr("beft.training.loop.train_epoch", step)
