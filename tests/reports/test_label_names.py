"""Whatever leaves the package carries the names of its classes, so that a transformers pipeline answers "good" where
the file said "good"; names are texts, also of numbers, no two alike; a regression has none, and its value is passed on.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import BertConfig

import beft
from beft.bank.baselines import open_bank
from beft.bank.export import merge
from beft.bank.labels import label_names, name_labels
from beft.data import sources
from beft.experiments import sweep
from beft.models import loading as models

TEXTS = ["the film was good", "a bad and slow plot"]


def file_of(folder: Path, labels: list[Any], suffix: str = ".csv") -> str:
    rows = [{"text": f"the film was {label} {i}", "label": label} for i in range(8) for label in labels]
    path = folder / f"reviews{suffix}"
    if suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    else:
        path.write_text("text,label\n" + "".join(f"{r['text']},{r['label']}\n" for r in rows), encoding="utf-8")
    return str(path)


def answers(model: Any, tokenizer: Any) -> list[str]:
    pipe = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    return [answer["label"] for answer in pipe(TEXTS)]


def tune(path: str, **more: Any) -> Any:
    return beft.tune(path, model=models.TINY, epochs=1, rate=1e-2, offline=True, progress=False, **more)


@pytest.mark.parametrize(
    ("labels", "method"),
    [
        *((["bad", "good"], method) for method in ("b_v", "full", "lora", "prompt")),
        (["bad", "good", "mixed"], "b_v"),
        ([1, 2, 10], "b_v"),
    ],
    ids=str,
)
def test_a_pipeline_answers_with_the_names_of_the_file(tmp_path, labels, method):
    more = {} if method == "full" else {"adapter": tmp_path / "adapter"}
    tuned = tune(file_of(tmp_path, labels), method=method, **more)
    names = dict(enumerate(map(str, labels)))
    assert tuned.model.config.id2label == names
    tuned.save(tmp_path / "saved")
    expected = tuned.predict(TEXTS)
    if method != "prompt":
        assert answers(str(tmp_path / "saved"), None) == expected
        config = transformers.AutoConfig.from_pretrained(tmp_path / "saved")
        assert config.id2label == names and config.label2id == {name: i for i, name in names.items()}
    if more:
        base = models.load(models.TINY, labels=len(labels))
        again = beft.load_tuned(base.model, tmp_path / "adapter")
        assert again.config.id2label == names
        assert answers(again, base.tokenizer) == expected


def test_a_regression_has_no_names_and_a_pipeline_passes_its_value_on(tmp_path):
    path = tmp_path / "values.csv"
    path.write_text("text,label\n" + "".join(f"the film was {i},{i / 4}\n" for i in range(24)), encoding="utf-8")
    tuned = tune(str(path), adapter=tmp_path / "adapter")
    tuned.save(tmp_path / "saved")
    base = models.load(models.TINY, labels=1)
    for model in (str(tmp_path / "saved"), beft.load_tuned(base.model, tmp_path / "adapter")):
        pipe = transformers.pipeline("text-classification", model=model, tokenizer=base.tokenizer)
        assert pipe.model.config.problem_type == "regression"
        assert [answer["score"] for answer in pipe(TEXTS)] == pytest.approx(tuned.predict(TEXTS), abs=1e-5)


def test_the_adapter_and_the_checkpoint_of_a_sweep_carry_them(tmp_path):
    study = beft.Study(model=models.TINY, task=file_of(tmp_path, ["bad", "good"]), regime=8, epochs=1, offline=True)
    run, store = beft.Run("b_v", 0, 1e-2), beft.Store(tmp_path / "store")
    tuned = beft.load_tuned(models.load(models.TINY, labels=2).model, sweep.adapter(study, run, store))
    assert tuned.config.id2label == {0: "bad", 1: "good"}
    for method in ("b_v", "full"):
        folder = sweep.export(study, beft.Run(method, 0, 1e-2), store, tmp_path / method)
        assert transformers.AutoConfig.from_pretrained(folder).id2label == {0: "bad", 1: "good"}
        assert set(answers(str(folder), None)) <= {"bad", "good"}


def test_what_a_checkpoint_was_tuned_on_before_is_forgotten(tmp_path, tiny):
    name_labels(tiny.model.config, ["contradiction", "entailment"])
    tiny.model.config.problem_type = "multi_label_classification"
    with open_bank(tiny.model, ["b_v"], [0]) as bank:
        config = merge(bank, 0, labels=["bad", "good"]).config
    assert config.id2label == {0: "bad", 1: "good"} and config.problem_type is None
    assert tiny.model.config.id2label[0] == "contradiction"  # that of the base model stays


def test_names_that_are_alike_as_texts_are_refused_before_the_first_step(tmp_path, monkeypatch):
    with pytest.raises(beft.BeftError, match="two classes are named '1' once they are written as text"):
        label_names([1, "1"])
    with pytest.raises(beft.BeftError, match="3 names of classes for a model with 2 outputs"):
        name_labels(BertConfig(num_labels=2), ["a", "b", "c"])

    def alike(*arguments: Any, **more: Any) -> Any:
        found = load(*arguments, **more)
        return replace(found, task=replace(found.task, labels=(1, "1")))

    def step(*arguments: Any) -> None:
        raise AssertionError("a step was made")

    load = sources.load
    monkeypatch.setattr(sources, "load", alike)
    monkeypatch.setattr("beft.training.loop.train_epoch", step)
    with pytest.raises(beft.BeftError, match="two classes are named '1'"):
        tune(file_of(tmp_path, ["bad", "good"]))
