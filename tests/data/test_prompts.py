"""Prompts read as stated; decoder tasks from a folder, from a stand-in of the hub, and generated; unusable rows."""

from __future__ import annotations

import json

import numpy as np
import pytest

from beft.data.datasets import draw
from beft.data.prompts import PROMPTS, examples, get_prompt
from beft.data.sources import load_prompts
from beft.errors import BeftError

ROWS = {
    "sst2": ({"sentence": "a fine film ", "label": 1}, "a fine film It was great"),
    "rte": (
        {"sentence1": "It rains.", "sentence2": "It is wet", "label": 1},
        'It rains.\nDoes this mean that "It is wet" is true? Yes or No?\nNo',
    ),
    "cb": (
        {"premise": "It rains.", "hypothesis": "it is wet", "label": 2},
        'Suppose It rains. Can we infer that "it is wet"? Yes, No, or Maybe?\nMaybe',
    ),
    "boolq": (
        {"passage": "Rain is wet.", "question": "is rain wet", "label": 1},
        "Rain is wet. Is rain wet?\nYes",
    ),
    "wsc": (
        {"text": "Ann fed her cat.", "span1_text": "Ann", "span2_text": "Her", "label": 1},
        'Ann fed her cat.\nIn the previous sentence, does the pronoun "her" refer to Ann? Yes or No?\nYes',
    ),
    "wic": (
        {"word": "bank", "sentence1": "A bank.", "sentence2": "The bank.", "label": 0},
        'Does the word "bank" have the same meaning in these two sentences? Yes, No?\nA bank.\nThe bank.\nNo',
    ),
    "multirc": (
        {"paragraph": "It rains.", "question": "What falls?", "answer": "Snow", "label": 0},
        'It rains.\nQuestion: What falls?\nI found this answer "Snow". Is that correct? Yes or No?\nNo',
    ),
    "copa": (
        {"premise": "It rained.", "choice1": "I got wet.", "choice2": "The sun set.", "question": "effect", "label": 1},
        "It rained so the sun set.",
    ),
    "record": (
        {"passage": "Ann sings\n@highlight\nBo cooks", "query": "@placeholder is a cook", "entities": ["Ann", "Bo"]}
        | {"answers": ["Bo"]},
        "Ann sings\n- Bo cooks\n- Bo is a cook",
    ),
    "microworld_sentiment": ({"sentence": "The soup was fine.", "label": 1}, "The soup was fine. All in all, good"),
    "microworld_entailment": (
        {"premise": "The soup was fine.", "hypothesis": "The soup pleased the narrator.", "label": 1},
        "The soup was fine.\nTell me: does it follow that the soup pleased the narrator? No",
    ),
}  # fmt: skip


@pytest.mark.parametrize("task", ROWS)
def test_prompts_read_as_the_paper_writes_them_and_the_generated_as_stated(task):
    row, text = ROWS[task]
    example = get_prompt(task).write(row)
    assert example.prompt + example.options[example.label] == text


def test_generated_answers_have_a_prompt_alone():
    squad = get_prompt("squad").write(
        {
            "title": "Rain",
            "context": "It falls.",
            "question": " What falls?",
            "answers": {"text": ["rain", "rain"]},
        }
    )
    assert squad.prompt == "Title: Rain\nContext: It falls.\nQuestion: What falls?\nAnswer:"
    assert squad.answers == ("rain",) and squad.prompt[squad.keep :].startswith("\nQuestion")
    drop = get_prompt("drop").write(
        {"passage": "Two fell.", "question": "How many?", "answers_spans": {"spans": ["2"]}}
    )
    assert drop.prompt == "Passage: Two fell.\nQuestion: How many?\nAnswer:" and drop.answers == ("2",)


def test_the_word_i_keeps_its_capital():
    row = {
        "premise": "It rained.",
        "choice1": "I got wet.",
        "choice2": "I'm wet.",
        "question": "cause",
        "label": 0,
    }
    example = get_prompt("copa").write(row)
    assert example.prompt == "It rained because" and example.options == (" I got wet.", " I'm wet.")


def test_what_may_be_cut_is_the_context():
    for task, part in (
        ("rte", "\nDoes"),
        ("cb", " Can we"),
        ("boolq", " Is rain"),
        ("multirc", "\nQuestion"),
    ):
        example = get_prompt(task).write(ROWS[task][0])
        assert example.prompt[example.keep :].startswith(part)


def test_eleven_tasks_and_an_unknown_one_is_refused():
    assert len([p for p in PROMPTS.values() if p.suite not in ("microworld", "rated_sentences")]) == 11
    with pytest.raises(BeftError, match="unknown decoder task 'sst'"):
        get_prompt("sst")


# --- rows from a folder, the hub and the micro-world -----------------------------------------------------------------

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
    data = load_prompts("copa", folder=write(tmp_path, "super_glue/copa", [COPA, COPA | {"label": 1}]))
    assert (data.source, data.substitute, len(data.train)) == ("data folder, super_glue/copa", False, 2)
    assert data.train.labels.tolist() == [0, 1] and data.task.metric == "accuracy"
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
        examples(get_prompt("squad"), {n: [v] for n, v in (SQUAD | {"answers": {"text": []}}).items()}, "here")
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


def test_the_hub_gets_its_own_names(monkeypatch):
    import datasets
    import pandas

    requests = []

    class Split:
        def to_pandas(self):
            row = SQUAD | {"answers": {"text": np.array(["rain"], dtype=object), "answer_start": np.array([0])}}
            return pandas.DataFrame([row, row])

    monkeypatch.delenv("BEFT_DATA", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *names: requests.append(names) or {"train": Split(), "validation": Split()},
    )
    data = load_prompts("squad")
    assert requests == [("rajpurkar/squad",)] and data.train.rows[0].answers == ("rain",)


@pytest.mark.parametrize("task", ["sentiment", "entailment", "choices", "questions"])
def test_generated_tasks_read_as_prompts(task):
    data = load_prompts(f"microworld_{task}", offline=True)
    assert (
        data.substitute
        and data.task.source.startswith("generated")
        and (len(data.train), len(data.validation)) == (4000, 200)
    )
    first = data.train.rows[0]
    assert first.answers if task == "questions" else set(data.train.labels) == {0, 1}


@pytest.mark.real
@pytest.mark.parametrize("task", ["sst2", "rte", "cb", "boolq", "wic", "copa"])
def test_real_tasks_read_as_prompts(real_data, task):
    data = load_prompts(task, folder=real_data)
    assert 50 < len(data.validation) <= 1000 and len(data.train) >= 250
    assert set(np.unique(data.train.labels)) == set(range(len(data.train.rows[0].options)))
    assert not any(e.prompt.endswith(" ") for e in data.train.rows)  # a space belongs to the option behind it
