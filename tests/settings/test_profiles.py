"""A profile, a notebook's parameters, and nothing that nobody reads."""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from beft import paths
from beft.errors import BeftError
from beft.settings import profiles as settings
from beft.settings.parameters import NOTEBOOKS

FINE_TUNING = "03_fine_tuning"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEFT_HOME", str(tmp_path / "home"))


def own_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    """A repository whose only profile is `mine`."""
    folder = tmp_path / "repository" / "notebooks" / "profiles"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(content, encoding="utf-8")
    monkeypatch.setattr(paths, "repository", lambda: tmp_path / "repository")


def changed(section: str, **values: Any) -> str:
    """The smoke profile with some values of one section changed, as YAML."""
    content = yaml.safe_load((paths.repository() / "notebooks/profiles/smoke.yaml").read_text(encoding="utf-8"))
    content.setdefault(section, {}).update(values)
    return yaml.safe_dump(content)


@pytest.mark.parametrize("notebook", NOTEBOOKS)
@pytest.mark.parametrize("profile", ["smoke", "embedded", "laptop", "paper"])
def test_every_profile_gives_every_notebook_every_parameter(profile: str, notebook: str) -> None:
    s = settings.load(notebook, {"profile": profile})
    assert set(s.values) == set(NOTEBOOKS[notebook])
    assert s.overrides == {} and s["offline"] is (profile in ("smoke", "embedded"))


def test_without_a_profile_it_is_embedded() -> None:
    assert settings.load(FINE_TUNING, {"profile": None}).profile == settings.load(FINE_TUNING, {}).profile == "embedded"


def test_none_means_the_profiles_value() -> None:
    s = settings.load(FINE_TUNING, {"profile": "smoke", "epochs": None, "seeds": None})
    assert s["epochs"] == 2 and s["seeds"] == [0, 1] and s.overrides == {}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seeds", "[0, 4]", [0, 4]),
        ("seeds", "3", [3]),
        ("seeds", 3, [3]),
        ("rates", "[1e-3, 0.5]", [0.001, 0.5]),
        ("rate", "4e-4", 0.0004),
        ("epochs", "7", 7),
        ("regime", "500", 500),
        ("regime", "medium", "medium"),
        ("offline", "false", False),
        ("methods", "b_v", ["b_v"]),
        ("methods", "[b_v, head]", ["b_v", "head"]),
        ("methods", "- b_v\n- head", ["b_v", "head"]),
    ],
)
def test_values_given_as_text_get_their_type(name: str, text: Any, value: Any) -> None:
    s = settings.load(FINE_TUNING, {"profile": "smoke", name: text})
    assert s[name] == value and type(s[name]) is type(value) and s.overrides == {name: value}


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("epochs", np.int64(7), 7),
        ("rate", np.float32(4e-4), 0.0004),
        ("offline", np.bool_(False), False),
        ("regime", np.int64(500), 500),
        ("seeds", np.arange(3), [0, 1, 2]),
        ("rates", np.array([1e-3, 0.5], dtype=np.float32), [0.001, 0.5]),
        ("method_rates", {"full": np.float64(1e-4)}, {"full": 1e-4}),
    ],
)
def test_numpys_numbers_are_plain_ones(name: str, given: Any, value: Any) -> None:
    s = settings.load(FINE_TUNING, {"profile": "smoke", name: given})
    assert s.overrides == {name: value} and type(s[name]) is type(value)
    assert s.command == settings.load(FINE_TUNING, {"profile": "smoke", name: value}).command


def test_a_users_file_takes_the_low_regime_unless_another_is_given() -> None:
    path = "some/reviews.CSV"  # may have fewer rows than the number that the profile has for its own task
    s = settings.load(FINE_TUNING, {"profile": "smoke", "task": path})
    assert s.overrides == {"task": path, "regime": "low"} and s["null_rows"] == "low"
    s = settings.load(FINE_TUNING, {"profile": "embedded", "task": path})
    assert s["evaluated"] == "paper" and s.study().evaluated is None  # all of its held-out rows are scored
    s = settings.load(FINE_TUNING, {"profile": "smoke", "task": path, "regime": 48})
    assert s["regime"] == 48 and s.overrides == {"task": path}
    assert settings.load(FINE_TUNING, {"profile": "laptop", "task": path}).overrides == {"task": path}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("epochs", 0, "at least 1, not 0"),
        ("epochs", 2.5, "whole number"),
        ("epochs", True, "whole number"),
        ("rate", 0, "positive number"),
        ("rate", -1e-3, "positive number"),
        ("rate", math.nan, "positive number"),
        ("rate", "fast", "positive number, not 'fast'"),
        ("rates", [], "list of distinct positive"),
        ("rates", [1e-3, "1e-3"], "list of distinct positive"),
        ("seeds", [0, 0.5], "list of distinct whole"),
        ("seeds", "[0, 1", "list of distinct whole"),
        ("seeds", [-1], "list of distinct whole"),
        ("tuning", 1.0, "share"),
        ("regime", "-5", "regime"),
        ("regime", 0, "regime"),
        ("offline", "perhaps", "true or false"),
        ("task", "", "a name or a path"),
        ("task", 5, "a name or a path"),
        ("methods", ["b_w"], "unknown method 'b_w': did you mean .*b_v"),
        (
            "methods",
            "b_v,b_q",
            r"list of distinct methods, e.g. \[b_q, b_v\], .*: write it as '\[b_v,b_q\]'",
        ),
        ("seeds", "0, 1", r"list of distinct whole .*, not '0, 1': write it as '\[0, 1\]'"),
        ("cells", "task: rte, epochs: 6", r"list of cells, e.g. \[\{task: rte"),
        ("dtype", "float16", "did you mean bfloat16"),
        ("validate", "never", "valid: each, last"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_name(name: str, value: Any, says: str) -> None:
    with pytest.raises(BeftError, match=f"{name} in the parameters.*{says}"):
        settings.load(FINE_TUNING, {"profile": "smoke", name: value})


@pytest.mark.parametrize("name", ["sst2", "reviews", "notes.txt", "reviews.xlsx", " "])
def test_what_is_no_data_file_is_refused_as_one(name: str) -> None:
    says = f"file in the parameters must be the path of a .csv, .* file with texts and labels, or none, not '{name}'"
    with pytest.raises(BeftError, match=says):
        settings.load("00_quickstart", {"profile": "smoke", "file": name})


def test_a_file_of_ones_own_is_no_generated_text() -> None:
    s = settings.load("00_quickstart", {"profile": "smoke", "file": "my/reviews.CSV"})
    assert s["file"] == "my/reviews.CSV" and s.substitute_note == "(Substitute: a tiny random model.)"


def test_an_unknown_parameter_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(BeftError, match="unknown parameter of 03_fine_tuning 'epoch': did you mean epochs"):
        settings.load(FINE_TUNING, {"profile": "smoke", "epoch": 3})


def test_the_name_that_another_library_has_for_a_parameter_is_refused_with_ours() -> None:
    with pytest.raises(BeftError, match="'learning_rate': learning_rate is called rate here"):
        settings.load(FINE_TUNING, {"profile": "smoke", "learning_rate": 1e-3})


def test_a_parameter_of_another_notebook_is_unknown() -> None:
    with pytest.raises(BeftError, match="unknown parameter of 02_ranking 'form_cells'"):
        settings.load("02_ranking", {"profile": "smoke", "form_cells": [{}]})


def test_what_a_notebook_holds_besides_parameters_is_left_alone() -> None:
    namespace = {
        "profile": "smoke",
        "In": [],
        "Out": {},
        "_": 3,
        "_ih": ["x"],
        "os": os,
        "load": settings.load,
    }
    assert settings.load(FINE_TUNING, namespace | {"Path": Path, "exit": print}).overrides == {}


def test_the_settings_cell_can_be_run_again_after_later_cells() -> None:
    namespace: dict[str, Any] = {"profile": "smoke", "epochs": 3}
    namespace["s"] = settings.load(FINE_TUNING, namespace)
    namespace |= {"rows": 17, "title": "text"}
    assert settings.load(FINE_TUNING, namespace)["epochs"] == 3


def test_unknown_profile_and_notebook_have_their_nearest_names() -> None:
    with pytest.raises(BeftError, match="unknown profile 'laptob': did you mean laptop"):
        settings.load(FINE_TUNING, {"profile": "laptob"})
    with pytest.raises(BeftError, match="unknown notebook '03_finetuning': did you mean 03_fine_tuning"):
        settings.load("03_finetuning", {})


@pytest.mark.parametrize(
    ("section", "values", "says"),
    [
        (
            "03_fine_tuning",
            {"epoch": 3},
            "unknown parameter in section 03_fine_tuning .* did you mean epochs",
        ),
        ("common", {"rates": [1.0]}, "unknown parameter in section common"),
        ("03_finetuning", {"epochs": 3}, "unknown section .* did you mean 03_fine_tuning"),
        ("02_ranking", {"epochs": "many"}, "epochs in notebooks/profiles/mine.yaml must be a whole number"),
        ("02_ranking", {"seeds": None}, "seeds in notebooks/profiles/mine.yaml must be a list"),
    ],
)
def test_a_fault_anywhere_in_a_profile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, values: dict[str, Any], says: str
) -> None:
    own_profile(tmp_path, monkeypatch, changed(section, **values))
    with pytest.raises(BeftError, match=says):
        settings.load("01_expressiveness", {"profile": "mine"})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("common: [", "not valid YAML at line 1"),
        ("- a\n- b\n", "must hold a section"),
        ("common: 3\n", "section common .* must be a list"),
        ("common: {model: x}\n", "gives no value for task"),
    ],
)
def test_a_broken_profile_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, says: str
) -> None:
    own_profile(tmp_path, monkeypatch, content)
    with pytest.raises(BeftError, match=says) as caught:
        settings.load("01_expressiveness", {"profile": "mine"})
    assert "notebooks/profiles/mine.yaml" in str(caught.value)


def test_a_notebooks_section_goes_before_common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_profile(tmp_path, monkeypatch, changed("02_ranking", regime="high"))
    regimes = {notebook: settings.load(notebook, {"profile": "mine"})["regime"] for notebook in NOTEBOOKS}
    assert regimes == {
        "00_quickstart": 60,
        "01_expressiveness": 48,
        "02_ranking": "high",
        "03_fine_tuning": 48,
        "04_bias_free_injection": 16,
        "05_debiasing": 48,
        "06_efficiency": 48,
    }


def test_outputs_go_under_the_profile_and_overrides_beside_it(tmp_path: Path) -> None:
    home = (tmp_path / "home").resolve()
    base = settings.load(FINE_TUNING, {"profile": "smoke"})
    assert base.figures == home / "figures/smoke" and base.store.folder == home / "data/results/smoke"
    same = settings.load(FINE_TUNING, {"profile": "smoke", "epochs": base["epochs"]})
    assert same.figures == base.figures
    other = settings.load(FINE_TUNING, {"profile": "smoke", "epochs": 3, "seeds": "[0, 4]"})
    assert other.figures == home / "figures/smoke+epochs-3+seeds-0_4" and other.store.folder == base.store.folder


def test_figures_of_equal_file_names_in_two_folders_stay_apart() -> None:
    folders = [settings.load(FINE_TUNING, {"profile": "smoke", "task": f"{d}/r.csv"}).figures for d in ("a", "b")]
    assert folders[0] != folders[1] and all("/" not in f.name and "r.csv" in f.name for f in folders)


def test_the_command_repeats_the_settings() -> None:
    s = settings.load(FINE_TUNING, {"profile": "smoke", "seeds": [0, 4], "offline": False})
    end = "--profile smoke --only 03_fine_tuning -p offline false -p seeds '[0, 4]'"
    assert sorted(s.command.split(" -p ")) == sorted(f"python -m beft.reproduce {end}".split(" -p "))
    again = settings.load(FINE_TUNING, {"profile": "smoke", "seeds": "[0, 4]", "offline": "false"})
    assert again.values == s.values


def test_printed_settings_name_the_profile_every_value_and_what_was_given() -> None:
    s = settings.load(FINE_TUNING, {"profile": "smoke", "epochs": 3})
    lines = repr(s).splitlines()
    assert lines[0] == "03_fine_tuning, profile smoke" and len(lines) == 1 + len(s.values)
    assert [line for line in lines if "given" in line][0].split()[:2] == ["epochs", "3"]
    assert str(Path.home()) not in repr(s)


def test_an_unknown_value_asked_for_has_its_nearest_names() -> None:
    s = settings.load(FINE_TUNING, {"profile": "smoke"})
    with pytest.raises(BeftError, match="did you mean epochs"):
        s["epoch"]
    assert s.get("epoch") is None and s.get("epochs") == 2


def test_the_study_has_the_settings_values_and_takes_overrides() -> None:
    s = settings.load(FINE_TUNING, {"profile": "smoke", "epochs": 3})
    study = s.study(regime=32)
    assert (study.model, study.epochs, study.regime, study.tuning) == ("tiny-random-bert", 3, 32, 0.25)
    with pytest.raises(BeftError, match="unknown setting of a study 'epoch'"):
        s.study(epoch=3)


def test_a_prompt_of_ones_own_comes_as_a_shell_or_yaml_gives_it() -> None:
    given = {"template": r"{text}\nIt is {label}", "labels": "{1: good, '0': bad}", "validation": "held_out.csv"}
    s = settings.load("04_bias_free_injection", {"profile": "smoke", "task": "mine.csv"} | given)
    study = s.study(prompted=True)
    assert study.template == "{text}\nIt is {label}" and study.labels == {"1": "good", "0": "bad"}
    assert study.validation == "held_out.csv" and s["regime"] == "low"
    plain = settings.load("04_bias_free_injection", {"profile": "smoke"}).study(prompted=True)
    assert (plain.template, plain.labels, plain.validation) == (None, None, None)
    words = shlex.split(s.command)
    again = dict(
        text.split(" ", 1) for text in (f"{words[i + 1]} {words[i + 2]}" for i, w in enumerate(words) if w == "-p")
    )
    assert settings.load("04_bias_free_injection", {"profile": "smoke"} | again).values == s.values


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"labels": "{yes: good}"},
            "labels in the parameters must be options by label, in quotes where YAML reads more",
        ),
        ({"labels": "{pos: true}"}, "labels in the parameters must be options by label"),
        ({"labels": "good"}, "labels in the parameters must be options by label"),
        ({"template": {"text": None}}, "template in the parameters must be the prompt of a file"),
        ({"validation": "held_out"}, "validation in the parameters must be the path of a .csv"),
    ],
)
def test_a_prompt_that_is_none_is_one_sentence(given: dict[str, Any], says: str) -> None:
    with pytest.raises(BeftError, match=says):
        settings.load("04_bias_free_injection", {"profile": "smoke"} | given)


@pytest.mark.parametrize(
    ("model", "task", "note"),
    [
        (
            "tiny-random-bert",
            "microworld_sentiment",
            "(Substitute: a tiny random model and generated micro-world text.)",
        ),
        ("all-MiniLM-L6-v2", "microworld_sentiment", "(Substitute: generated micro-world text.)"),
        ("tiny-random-bert", "sst2", "(Substitute: a tiny random model.)"),
        ("all-MiniLM-L6-v2", "sst2", ""),
        ("bert-base-cased", "my/reviews.csv", ""),
    ],
)
def test_captions_name_what_stands_in_for_something_else(model: str, task: str, note: str) -> None:
    s = settings.load(FINE_TUNING, {"profile": "smoke", "model": model, "task": task})
    assert s.substitute_note == note


def test_profiles_are_found_from_any_working_folder(tmp_path: Path) -> None:
    code = "from beft import settings; print(settings.load('02_ranking', {'profile': 'smoke'}).profile)"
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "smoke"


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ([], "must be a list of cells"),
        ([{"tsk": "rte"}], "unknown setting of a cell 'tsk': did you mean task"),
        ([{"rate": -1}], "rate in a cell must be a positive number, `paper` or `chosen`, not -1"),
        ([{3: "rte"}], "unknown setting of a cell '3'"),
    ],
)
def test_a_fault_in_a_cell_is_one_sentence(cells: list[Any], says: str) -> None:
    with pytest.raises(BeftError, match=f"cells in the parameters.*{says}"):
        settings.load(FINE_TUNING, {"profile": "smoke", "cells": cells})


def test_cells_keep_their_order_and_their_names_lists() -> None:
    s = settings.load(FINE_TUNING, {"profile": "smoke", "cells": "{epochs: 6, rate: paper, task: rte, regime: '9'}"})
    assert s.overrides == {"cells": [{"epochs": 6, "rate": "paper", "task": ["rte"], "regime": [9]}]}
    assert list(s["cells"][0]) == ["epochs", "rate", "task", "regime"]


def test_settings_load_no_torch() -> None:
    code = "import sys; from beft import settings; settings.load; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT).returncode == 0


def test_modules_and_functions_named_like_parameters_are_not_values() -> None:
    module = types.ModuleType("task")
    assert settings.load(FINE_TUNING, {"profile": "smoke", "task": module})["task"] == "microworld_sentiment"
