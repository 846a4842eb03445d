"""Settings of a run and a study: NumPy's numbers are plain ones, and an unknown name is one sentence."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest

from beft import paths
from beft.errors import BeftError
from beft.experiments.context import Context
from beft.models.files import TINY
from beft.records.schema import key
from beft.study import Run, Study, plain

PLAIN = Study(TINY, "microworld_sentiment", 48, 3, 8, 64, tuning=0.25, clip=0.1, eps=1e-6, offline=True)
NUMPY = Study(
    np.str_(TINY),
    "microworld_sentiment",
    regime=np.int64(48),
    epochs=np.int32(3),
    batch_size=np.uint8(8),
    max_length=np.array(64),
    tuning=np.float16(0.25),
    clip=np.float32(0.1),
    eps=np.float64(1e-6),
    offline=np.bool_(True),
)


def test_numpys_numbers_are_the_plain_numbers_that_they_print_as() -> None:
    assert asdict(NUMPY) == asdict(PLAIN)
    assert [type(value) for value in asdict(NUMPY).values()] == [type(value) for value in asdict(PLAIN).values()]
    assert json.dumps(asdict(replace(NUMPY, epochs=np.int64(5)))) == json.dumps(asdict(replace(PLAIN, epochs=5)))
    run = Run("b_v", np.int64(2), np.float32(1e-3))
    assert run == Run("b_v", 2, 1e-3) and (type(run.seed), type(run.rate)) == (int, float)


def test_the_key_of_a_record_is_that_of_the_plain_numbers() -> None:
    ours = Context(PLAIN).settings(Run("b_v", 2, 1e-3))
    assert key(Context(NUMPY).settings(Run("b_v", np.int64(2), np.float32(1e-3)))) == key(ours)
    json.dumps(ours)


def test_numpy_inside_lists_and_dicts_is_found() -> None:
    given = {"seeds": np.arange(2), "rates": [np.float32(0.1), "x"], np.str_("full"): (np.float64(1e-5), None)}
    assert plain(given) == {"seeds": [0, 1], "rates": [0.1, "x"], "full": (1e-5, None)}
    assert type(plain(given)["seeds"][0]) is int


@pytest.mark.parametrize(
    ("make", "named", "says"),
    [
        (Run, {"learning_rate": 1e-3}, "unknown setting of a run 'learning_rate': learning_rate is called rate here"),
        (Run, {"random_state": 1}, "random_state is called seed here"),
        (Study, {"num_train_epochs": 1}, "unknown setting of a study 'num_train_epochs': .* is called epochs here"),
        (Study, {"model_name": TINY}, "model_name is called model here"),
        (Study, {"max_len": 1}, "max_len is called max_length here"),
        (Study, {"batch": 1}, "batch is called batch_size here"),
        (Study, {"lr": 1e-3}, r"lr is called rate \(of a Run\) here"),
        (Study, {"seed": 1}, r"did you mean seed \(of a Run\)"),
        (Study, {"epoch": 1}, "did you mean epochs"),
        (Study, {"xyz": 1}, r"'xyz': \(valid: model, task,"),
    ],
)
def test_an_unknown_name_is_refused_with_what_it_is_called_here(
    make: type, named: dict[str, object], says: str
) -> None:
    with pytest.raises(BeftError, match=says):
        make(**named)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": 3}, "model 3 is no name and no path"),
        ({"task": " "}, "task ' ' is no name"),
        ({"regime": 2.5}, "regime 2.5 is neither"),
        ({"regime": True}, "regime True is neither"),
        ({"regime": 0}, "regime 0 is neither"),
        ({"tuning": "x"}, "tuning share 'x' is out of range"),
        ({"tuning": 0.75}, "tuning share 0.75 is out of range"),
        ({"offline": "no"}, "offline 'no' is neither True nor False"),
        ({"prompted": 1}, "prompted 1 is neither"),
        ({"dtype": np.arange(2)}, "unknown dtype"),
        ({"clip": 10**400}, "is not a positive number"),
        ({"epochs": np.float64(3)}, "epochs 3.0 is not a whole number"),
        ({"epochs": np.bool_(True)}, "epochs True is not a whole number"),
        ({"template": "{text} {label}"}, "a template is for a language model .*: give prompted=True too"),
        ({"prompted": True, "template": 3}, "template 3 is no text"),
        ({"prompted": True, "labels": {"a": "b"}}, "labels are the options of a template, and there is none"),
        ({"prompted": True, "template": "x", "labels": {}}, "labels {} are no options by label"),
        ({"prompted": True, "template": "x", "labels": ["a"]}, r"labels \['a'\] are no options by label"),
        ({"prompted": True, "template": "x", "labels": {True: "b"}}, "labels has 'b' for True, and both must be text"),
        ({"prompted": True, "template": "x", "labels": {"yes": True}}, "labels has True for 'yes', and both must be"),
        ({"validation": 3}, "validation 3 is no path"),
        ({"validation": " "}, "validation ' ' is no path"),
    ],
)
def test_every_field_is_checked(changes: dict[str, object], says: str) -> None:
    with pytest.raises(BeftError, match=says):
        Study(**changes)


def test_what_came_later_is_in_the_identity_only_where_it_is_given() -> None:
    assert not {"template", "labels", "validation"} & Study().identity().keys()
    given = Study(prompted=True, template="{text} {label}", labels={1: "good", "0": "bad"}, validation=Path("v.csv"))
    own = {n: given.identity()[n] for n in ("template", "labels", "validation")}
    assert own == {"template": "{text} {label}", "labels": {"1": "good", "0": "bad"}, "validation": "v.csv"}
    assert Study(**{field.name: getattr(given, field.name) for field in fields(given)}) == given


def test_the_committed_records_have_the_keys_of_their_studies() -> None:
    folder = paths.ROOT / "data" / "results" / "laptop"
    settings = [json.loads(path.read_text())["settings"] for path in sorted(folder.glob("*.json"))]
    runs = [s for s in settings if s.get("method") and "train_size" in s and "kind" not in s]
    assert len(runs) > 100 and any(s.get("prompted") for s in runs)
    for s in runs:
        study = Study(**{field.name: s[field.name] for field in fields(Study) if field.name in s})
        run = asdict(Run(s["method"], s["seed"], s["rate"]))
        of_data = {n: v for n, v in s.items() if n not in asdict(study) and n not in run}
        assert key(study.identity() | run | of_data) == key(s)


def test_a_seed_is_no_truth_value() -> None:
    with pytest.raises(BeftError, match="seed True is not a whole number"):
        Run("b_v", True, 1e-3)


def test_a_folder_may_be_a_path() -> None:
    study = Study(model=Path("a/model"), task=Path("rows.csv"))
    assert (study.model, study.task) == ("a/model", "rows.csv")
