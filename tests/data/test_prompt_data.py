"""Decoder tasks from a folder of data sets, from a stand-in of the hub, and rows that cannot be used."""

from __future__ import annotations

import json

import numpy as np
import pytest

from beft.data.datasets import draw
from beft.data.prompt_data import examples, load_prompts
from beft.data.prompts import get_prompt
from beft.errors import BeftError

COPA = {
    "premise": "It rained.",
    "choice1": "I got wet.",
    "choice2": "I sang.",
    "question": "effect",
    "label": 0,
}
SQUAD = {
    "title": "Rain",
    "context": "It falls.",
    "question": "What?",
    "answers": {"text": ["rain"], "answer_start": [0]},
}


def write(folder, home, rows, splits=("train", "validation")):
    (folder / home).mkdir(parents=True, exist_ok=True)
    for split in splits:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / home / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_a_folder_of_data_sets_is_read(tmp_path):
    found = load_prompts("copa", folder=write(tmp_path, "super_glue/copa", [COPA, COPA | {"label": 1}]))
    assert (found.source, found.substitute, len(found.train)) == ("data folder, super_glue/copa", False, 2)
    assert found.train.labels.tolist() == [0, 1] and found.task.metric == "accuracy"
    squad = load_prompts("squad", folder=write(tmp_path, "squad", [SQUAD] * 3))
    assert squad.validation.rows[0].answers == ("rain",)
    assert draw(squad, "low", 0).train.tolist() == np.random.RandomState(0).permutation(3).tolist()


def test_the_validation_examples_are_drawn_once_and_named_by_the_fingerprint(tmp_path):
    rows = [COPA | {"premise": f"It rained {i} days."} for i in range(9)]
    folder = write(tmp_path, "super_glue/copa", rows)
    some = load_prompts("copa", folder=folder, evaluated=4)
    expected = np.random.RandomState(0).permutation(9)[:4]
    assert [e.prompt for e in some.validation.rows] == [f"It rained {i} days so" for i in expected]
    assert len(load_prompts("copa", folder=folder, evaluated=9).validation) == 9
    assert some.fingerprint != load_prompts("copa", folder=folder).fingerprint
    assert some.fingerprint == load_prompts("copa", folder=folder, evaluated=4).fingerprint


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (COPA | {"label": -1}, "row 2 of .*train.jsonl has the label -1: use a labelled split, with labels 0 to 1"),
        (COPA | {"label": "0"}, "row 2 of .* has the label '0'"),
        (COPA | {"label": None}, "row 2 of .* has an empty 'label'"),
        (COPA | {"choice1": ""}, "row 2 of .* has an empty 'choice1'"),
        (COPA | {"premise": 7}, "row 2 of .* is not as the hub's copa has it"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_is_named(tmp_path, row, message):
    write(tmp_path, "super_glue/copa", [COPA, row])
    with pytest.raises(BeftError, match=message):
        load_prompts("copa", folder=tmp_path)


def test_a_column_that_is_missing_is_named(tmp_path):
    write(tmp_path, "super_glue/copa", [{"premise": "a", "label": 0}])
    with pytest.raises(BeftError, match="lacks the column 'choice1' and 'choice2' and 'question'"):
        load_prompts("copa", folder=tmp_path)
    with pytest.raises(BeftError, match="has no validation split"):
        load_prompts("wsc", folder=write(tmp_path, "super_glue/wsc", [{}], splits=("train",)))


def test_an_answer_that_is_missing_is_named():
    with pytest.raises(BeftError, match="row 1 of here has no answer"):
        examples(
            get_prompt("squad"), {n: [v] for n, v in (SQUAD | {"answers": {"text": []}}).items()}, "here"
        )
    row = {"passage": "p", "query": "@placeholder", "entities": ["A"], "answers": ["B"]}
    with pytest.raises(BeftError, match="'B' of a record row is none of its entities"):
        examples(get_prompt("record"), {n: [v] for n, v in row.items()}, "here")


def test_offline_without_a_folder_names_both_remedies(tmp_path, monkeypatch):
    monkeypatch.delenv("BEFT_DATA", raising=False)
    with pytest.raises(BeftError, match="squad/train.jsonl and validation.jsonl, or be online"):
        load_prompts("squad", offline=True)
    with pytest.raises(BeftError, match="super_glue/copa/train.jsonl"):
        load_prompts("copa", offline=True)
    with pytest.raises(BeftError, match="unknown decoder task 'cola'"):
        load_prompts("cola")


def test_the_hub_is_asked_by_its_names(monkeypatch):
    import datasets
    import pandas

    asked = []

    class Split:
        def to_pandas(self):
            row = SQUAD | {
                "answers": {"text": np.array(["rain"], dtype=object), "answer_start": np.array([0])}
            }
            return pandas.DataFrame([row, row])

    monkeypatch.delenv("BEFT_DATA", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *names: asked.append(names) or {"train": Split(), "validation": Split()},
    )
    found = load_prompts("squad")
    assert asked == [("rajpurkar/squad",)] and found.train.rows[0].answers == ("rain",)


@pytest.mark.parametrize("task", ["sentiment", "entailment", "choices", "questions"])
def test_generated_tasks_read_as_prompts(task):
    found = load_prompts(f"microworld_{task}", offline=True)
    assert (
        found.substitute
        and found.task.source.startswith("generated")
        and (len(found.train), len(found.validation)) == (4000, 200)
    )
    first = found.train.rows[0]
    assert first.answers if task == "questions" else set(found.train.labels) == {0, 1}


@pytest.mark.real
@pytest.mark.parametrize("task", ["sst2", "rte", "cb", "boolq", "wic", "copa"])
def test_real_tasks_read_as_prompts(real_data, task):
    found = load_prompts(task, folder=real_data)
    assert 50 < len(found.validation) <= 1000 and len(found.train) >= 250
    assert set(np.unique(found.train.labels)) == set(range(len(found.train.rows[0].options)))
    assert not any(
        e.prompt.endswith(" ") for e in found.train.rows
    )  # a space belongs to the option behind it
