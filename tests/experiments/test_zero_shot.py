"""A prompt of one's own in a sweep: untuned, with demonstrations, tuned, kept and exported, under keys of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_files import write

from beft.api import Tuned
from beft.data.batching import encode_options
from beft.errors import BeftError
from beft.experiments import sweep
from beft.experiments.context import Context, Shelf
from beft.experiments.exports import export_saved
from beft.experiments.zero_shot import demonstration, score_untuned
from beft.models.loading import load_causal
from beft.records.schema import key
from beft.records.store import Store
from beft.study import Run, Study
from beft.training.prompting import option_scores

RUN = Run("b_v", 0, 1e-2)
TEXTS = [("tale 1", "the clock was slow"), ("tale 2", "nobody liked it")]


def rows(count: int, first: int = 0) -> list[dict[str, str]]:
    words = ("slow", "bright", "cold", "kind")
    return [
        {"title": f"tale {i}", "text": f"the soup was {words[i % 4]} and {i}", "label": ("neg", "pos")[i % 2]}
        for i in range(first, first + count)
    ]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    write(tmp_path / "held_out.csv", rows(8, first=100))
    return Study(
        "tiny-llama",
        write(tmp_path / "reviews.csv", rows(24)),
        prompted=True,
        template="{title}: {text}\nAll in all, {label}",
        labels={"pos": "good", "neg": "bad"},
        validation=str(tmp_path / "held_out.csv"),
        regime=16,
        epochs=1,
        max_length=200,
        offline=True,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def accuracy(study: Study, before: str = "") -> float:
    """Of the untuned model, one example at a time."""
    loaded, data = load_causal("tiny-llama"), Context(study).data
    scored = [
        option_scores(loaded.model, [encode_options(loaded.tokenizer, e, 200, before)])[0] for e in data.validation.rows
    ]
    return float(np.mean([np.argmax(s.mean) == e.label for s, e in zip(scored, data.validation.rows, strict=True)]))


def test_zero_shot_and_demonstrations_are_those_of_the_template(study: Study, store: Store) -> None:
    (zero,) = score_untuned(study, [0, 1], store)
    assert zero["validation"] == pytest.approx(accuracy(study)) and zero["data"]["template"] == study.template
    assert zero["data"]["options"] == study.labels and zero["data"]["source"].endswith("validation: held_out.csv")
    (shown,) = score_untuned(study, [1], store, demonstrations=2)
    data = Context(study).data
    drawn = [data.train.rows[i] for i in np.random.RandomState(1).permutation(24)[:2]]
    before = "".join(demonstration(example) + "\n\n" for example in drawn)
    assert before.count("\nAll in all, ") == 2 and before.count("tale") == 2
    assert shown["demonstrations"] == 2 and shown["validation"] == pytest.approx(accuracy(study, before))
    other = replace(study, template="{text}\nAll in all, {label}")
    assert score_untuned(other, [0], store)[0]["key"] != zero["key"]


def test_untuned_scores_of_other_validation_rows_and_of_another_precision_are_records_of_their_own(
    study: Study, store: Store
) -> None:
    others = [study, replace(study, evaluated=3), replace(study, dtype="bfloat16")]
    records = [score_untuned(other, [0], store)[0] for other in others]
    assert len({record["key"] for record in records}) == 3
    assert [record["settings"].get("dtype") for record in records] == ["float32", "float32", None]
    assert [score_untuned(other, [0], store)[0] for other in others] == records


def test_a_run_has_a_record_that_says_its_prompt_and_is_found_again(study: Study, store: Store) -> None:
    (record,) = sweep.run(study, [RUN], store, progress=False)
    settings = record["settings"]
    assert {n: settings[n] for n in ("template", "labels", "validation", "task")} == {
        "template": study.template, "labels": study.labels, "validation": "held_out.csv", "task": "reviews",
    }  # fmt: skip
    assert record["data"]["rows"] == {"train": 16, "tuning": 0, "validation": 8}
    moved = replace(study, labels={"neg": "bad", "pos": "good"})
    assert sweep.run(moved, [RUN], store, progress=False) == [record] and len(list(store.folder.glob("*.json"))) == 1


def test_studies_of_one_sweep_that_differ_in_their_prompt_or_validation_rows_have_data_of_their_own(
    study: Study,
) -> None:
    shelf = Shelf()
    others = [
        study,
        replace(study, template="{text}\nAll in all, {label}"),
        replace(study, labels=None),
        replace(study, validation=None),
    ]
    contexts = [Context(one, shelf) for one in others]
    assert len({context.data.fingerprint for context in contexts}) == len({key(c.settings(RUN)) for c in contexts}) == 4


def test_a_language_model_is_read_again_for_another_precision_and_a_classifier_is_not(study: Study) -> None:
    shelf, precisions = Shelf(), ("bfloat16", "float32")
    read = [Context(replace(study, dtype=dtype), shelf).loaded.model for dtype in precisions]
    assert [next(model.parameters()).dtype for model in read] == [torch.bfloat16, torch.float32]
    headed = Study("tiny-bert", study.task, offline=True)
    first, second = (Context(replace(headed, dtype=dtype), shelf).loaded for dtype in precisions)
    assert first is second and next(first.model.parameters()).dtype == torch.float32


def test_the_content_of_the_validation_file_is_part_of_the_key(study: Study) -> None:
    before = key(Context(study).settings(RUN))
    assert study.validation is not None
    write(Path(study.validation), rows(8, first=200))
    assert key(Context(study).settings(RUN)) != before
    headed = Study(task=study.task, validation=study.validation, offline=True)
    data = Context(headed).data
    assert (len(data.train), len(data.validation)) == (24, 8) and Context(headed).common()[
        "validation"
    ] == "held_out.csv"


def test_adapter_and_checkpoint_carry_the_prompt_to_new_rows(study: Study, store: Store, tmp_path: Path) -> None:
    sweep.run(study, [RUN], store, progress=False)
    adapter = sweep.adapter(study, RUN, store)
    about = json.loads((adapter / "beft.json").read_text())
    assert (about["template"], about["options"], about["max_length"]) == (study.template, study.labels, 200)
    assert about["labels"] == ["neg", "pos"] and "    All in all, {label}\n" in (adapter / "README.md").read_text()
    sweep.export(study, RUN, store, tmp_path / "plain")
    expected = Tuned.load(tmp_path / "plain").probabilities(TEXTS)
    assert Tuned.load(adapter, offline=True).probabilities(TEXTS) == pytest.approx(expected, abs=1e-5)
    base = load_causal("tiny-llama")
    words = Context(study).data.prompt.wording  # type: ignore[union-attr]
    untuned = Tuned(base.model, base.tokenizer, words.labels, None, 200, ("title", "text"), wording=words)  # type: ignore[union-attr]
    assert not np.allclose(untuned.probabilities(TEXTS), expected, atol=1e-4)
    full = Run("full", 0, 1e-3)
    sweep.export(study, full, store, tmp_path / "full")
    assert Tuned.load(tmp_path / "full").predict(TEXTS[0]) in ("neg", "pos")


def test_a_record_is_exported_where_its_files_are_given_again(study: Study, store: Store, tmp_path: Path) -> None:
    sweep.run(study, [RUN], store, progress=False)
    (record,) = store.folder.glob("*.json")
    files = {"task": study.task, "validation": str(study.validation)}
    with pytest.raises(BeftError, match=r"there is no file 'held_out.csv'"):
        export_saved(record, tmp_path / "out", offline=True, task=study.task)
    export_saved(record, tmp_path / "out", offline=True, **files)
    assert Tuned.load(tmp_path / "out").labels == ("neg", "pos") and len(list(store.folder.glob("*.json"))) == 1


def test_what_does_not_fit_is_said_before_a_model_is_read(study: Study, store: Store) -> None:
    for changes, says in (
        ({"template": "{body} {label}"}, "unknown column of reviews.csv in the template 'body'"),
        ({"labels": {"pos": "good"}}, "labels has no option for 'neg'"),
        ({"validation": study.task}, "reviews.csv and reviews.csv hold the same rows"),
        ({"task": "copa"}, "template and labels and validation can be given for rows of one's own"),
    ):
        with pytest.raises(BeftError, match=says):
            sweep.run(replace(study, model="no such model", **changes), [RUN], store)
    assert not store.folder.exists()
