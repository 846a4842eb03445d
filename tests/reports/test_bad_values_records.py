"""A user gives a folder that cannot be written, or a value of the wrong kind, to what keeps records and reads settings.

Bad input ends in one sentence that names it, before the first training step where it can be known, and never in another
exception; a value that is good after all does what it says. Half a character in a name is no reason to lose a run.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shutil
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sample_records import record, settings
from small_sweep import RUNS, STUDY

import beft
from beft import api, paths
from beft.data.counterfactual import axis
from beft.errors import BeftError
from beft.experiments import cluster, sweep
from beft.progress import count_runs, log_runs
from beft.records import folders, schema
from beft.records.store import Store
from beft.reproduce import notebooks, run
from beft.reproduce.__main__ import main
from beft.settings import profiles
from beft.settings.parameters import NOTEBOOKS
from beft.training import loop

SHORT = replace(STUDY, epochs=1)
NAME = "03_fine_tuning"
ROOT = paths.ROOT


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEFT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


# Places that cannot be written.


def a_file(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    (folder / "taken").write_text("mine")
    return folder / "taken"


def below_a_file(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    return a_file(folder, patch) / "new"


def too_long(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    return folder / ("x" * 300)


def too_deep(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    return folder.joinpath(*["x" * 200] * 30)


def read_only(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    access, probe = os.access, folders.tempfile.TemporaryFile

    def refused(*a: Any, **k: Any) -> Any:
        if Path(k["dir"]).is_relative_to(folder):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return probe(*a, **k)

    patch.setattr(os, "access", lambda p, m: not Path(p).is_relative_to(folder) and access(p, m))
    patch.setattr(folders.tempfile, "TemporaryFile", refused)  # the superuser may write where nobody else may
    return folder / "new"


def full_disk(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    def full(*a: Any, **k: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(total=1, used=1, free=0))
    patch.setattr(folders.tempfile, "TemporaryFile", full)
    return folder / "new"


PLACES = [a_file, below_a_file, too_long, too_deep, read_only, full_disk]


def settings_of_a_notebook(where: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("BEFT_HOME", str(where))
    profiles.load(NAME, {"profile": "smoke"})


def all_notebooks(where: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("BEFT_HOME", str(where))
    patch.setattr(run, "_run", lambda *a: pytest.fail("a notebook runs"))
    run.reproduce("smoke")


def adapter_folder(where: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(api.models, "load", lambda *a, **k: pytest.fail("the model is read"))
    beft.tune("microworld_sentiment", adapter=where, model=STUDY.model, offline=True, progress=False)


def results_folder(where: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sweep, "train", lambda *a, **k: pytest.fail("trains"))
    sweep.run(SHORT, RUNS[:1], Store(where), progress=False)


def exported_folder(where: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sweep, "Context", lambda *a, **k: pytest.fail("the data is read"))
    sweep.export(SHORT, RUNS[0], Store("memory://exported"), where)


USES = [settings_of_a_notebook, all_notebooks, adapter_folder, results_folder, exported_folder]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("place", PLACES)
def test_a_folder_that_cannot_be_written_is_one_sentence_before_anything_is_trained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: Callable[[Path, pytest.MonkeyPatch], Path],
    use: Callable[[Path, pytest.MonkeyPatch], None],
) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(BeftError) as caught:
        use(place(tmp_path / "there", monkeypatch), monkeypatch)
    said = str(caught.value)
    assert str(tmp_path / "there") in said and "\n" not in said
    assert re.search(r"not a folder|[Dd]irectory|too long|cannot be written|Read-only|[Nn]o space", said)


@pytest.mark.parametrize("inside", ["checkpoints", "adapters", "locks"])
def test_a_file_in_the_place_of_a_folder_of_the_store_is_told_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    (tmp_path / inside).write_text("")
    monkeypatch.setattr(sweep, "fit", lambda *a, **k: pytest.fail("trains"))
    with pytest.raises(BeftError, match="the results folder .* cannot be used, .*(exists|directory): correct"):
        sweep.run(SHORT, RUNS[:1], Store(tmp_path), progress=False)


def test_a_disk_that_fills_while_a_bank_is_trained_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*a: Any, **k: Any) -> None:
        raise loop.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(loop, "save_file", full)
    with pytest.raises(BeftError, match="results folder .*No space left.*finished runs are kept"):
        sweep.run(replace(STUDY, epochs=2), RUNS[:1], Store(tmp_path), progress=False)


def test_the_log_of_runs_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEFT_RUN_LOG", str(tmp_path))
    with pytest.raises(BeftError, match="the log .* of BEFT_RUN_LOG cannot be used, Is a directory"):
        log_runs(done=1, reused=0, failed=0)


def test_half_a_character_in_the_name_of_a_file_is_written_as_its_escape(tmp_path: Path) -> None:
    """As a file has that was named in another encoding than UTF-8."""
    rows = "".join(f"{word} {i},{label}\n" for label, word in (("yes", "good"), ("no", "bad")) for i in range(12))
    own = tmp_path / "mine\udcff.csv"
    own.write_text("text,label\n" + rows)
    study, store = replace(SHORT, task=str(own), regime="all"), Store(tmp_path / "results")
    (made,) = sweep.run(study, RUNS[:1], store, progress=False)
    assert made["settings"]["task"] == r"mine\udcff" and store.all() == [made]
    assert sweep.run(study, RUNS[:1], store, progress=False) == [made]
    labels = record(measures={"group\ud800": "\udfff"}, settings=settings(task="\ud83d"))
    store.write(labels)
    assert store.find(settings(task="\ud83d"))["measures"] == {"group\\ud800": "\\udfff"}
    assert schema.key(settings(task="café 漢字 🙂")) == "368a44722260", "the keys of whole characters stay"


# Generated values.

SIMPLE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_ODD: list[Any] = [
    *(b"bytes", {1, 2}, 3 + 4j, Decimal("0.1"), object(), len, Store, np.float64, np.nan, np.array([1.5])),
    *(Path("a/b"), "", " ", "\0", "a\0b", "\ud800", "x" * 300, "../up", "/", "~nobody/x", 10**400, range(3)),
    *(np.int64(3), np.str_("x"), np.array([[1, 2]]), {"a": {1}}, [float("inf")], -1, True),
]
ODD = st.integers(0, len(_ODD) - 1).map(_ODD.__getitem__)
NESTED = st.recursive(SIMPLE, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3))
JUNK = NESTED | ODD
# What fsspec would look for in a network.
JUNK = JUNK.filter(lambda value: not (isinstance(value, str) and "://" in value))
JSON = NESTED.filter(lambda value: "\\ud" not in json.dumps(value))
few = examples(
    max_examples=20,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@contextlib.contextmanager
def refused_or_right() -> Iterator[None]:
    """A BeftError of one line, or no error at all. What is printed must be text that a terminal can show."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    except BeftError as error:
        assert str(error).strip() and "\n" not in str(error)


@few
@given(JUNK | st.sampled_from(["://", "nothing://x", "memory://", "file://\0", "memory://a\0b", "file://"]))
def test_any_place_is_a_store_or_refused(value: Any) -> None:
    with refused_or_right():
        store = Store(value)
        assert store.find(settings(seed=12345)) is None
        assert all(isinstance(r, dict) for r in store.all()) and repr(store)


@few
@given(st.sampled_from(["model", "task", "method", "kind", "seed", "rate", "other"]), JUNK)
def test_any_settings_are_found_again_or_refused(tmp_path: Path, name: str, value: Any) -> None:
    store = Store(tmp_path / "records")
    with refused_or_right():
        wanted = settings(**{name: value})
        path = store.write(record(settings=wanted))
        assert path.parent == tmp_path / "records" and path.is_file()
        assert store.find(wanted)["key"] == schema.key(wanted)


@few
@given(st.sampled_from(sorted(record())), JUNK)
def test_any_field_is_written_and_read_or_refused(tmp_path: Path, name: str, value: Any) -> None:
    store = Store(tmp_path / "records")
    with refused_or_right():
        assert store.read(store.write(record(**{name: value})))["schema"] == schema.SCHEMA


@few
@given(JUNK)
def test_any_argument_of_a_store_is_refused_or_right(tmp_path: Path, value: Any) -> None:
    store = Store(tmp_path / "records")
    for call in (store.read, store.find, store.write, store.name, store.path, schema.key, schema.jsonable):
        with refused_or_right():
            call(value)
    for call in (schema.fault_of, store.all):
        call(value)


@few
@given(JSON.map(json.dumps) | st.text() | st.dictionaries(st.sampled_from(sorted(record())), JSON).map(json.dumps))
def test_any_content_of_a_record_is_damage_or_a_record(tmp_path: Path, text: str) -> None:
    path = Store(tmp_path).write(record())
    path.write_text(text, encoding="utf-8", errors="replace")
    (tmp_path / "log").write_text(text, encoding="utf-8", errors="replace")
    assert set(count_runs(tmp_path / "log")) == {"done", "reused", "failed"}
    with refused_or_right():
        Store(tmp_path).all()
    with refused_or_right():
        Store(tmp_path).find(settings())
    with refused_or_right():
        Store(tmp_path).read(path)


@few
@given(st.sampled_from(sorted(NOTEBOOKS)), st.data(), JUNK)
def test_any_value_of_a_parameter_is_taken_or_refused(notebook: str, data: st.DataObject, value: Any) -> None:
    name = data.draw(st.sampled_from(sorted(NOTEBOOKS[notebook])))
    with refused_or_right():
        s = profiles.load(notebook, {"profile": "smoke"} | {name: value})
        assert repr(s) and s.command and s.figures.name.startswith(s.profile)
    for call in (lambda v: profiles.load(v, {}), lambda v: profiles.load(notebook, {"profile": v})):
        with refused_or_right():
            call(value)


@few
@given(JUNK, st.sampled_from(["model", "task", "regime", "epochs", "max_length", "dtype", "tuning", "clip", "epoch"]))
def test_any_setting_of_a_study_is_taken_or_refused(value: Any, name: str) -> None:
    s = profiles.Settings(NAME, "smoke", {"model": "x", "epochs": 2}, {}, Store("x"), Path("x"))
    with refused_or_right():
        s[value]
    with refused_or_right():
        s.study(**{name: value})


@few
@given(st.sampled_from(["common", NAME, "other"]), st.sampled_from(sorted(NOTEBOOKS[NAME])), JSON, JSON)
def test_any_profile_is_read_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, name: str, value: Any, whole: Any
) -> None:
    folder = tmp_path / "repository" / "notebooks" / "profiles"
    folder.mkdir(parents=True, exist_ok=True)
    sound = yaml.safe_load((ROOT / "notebooks" / "profiles" / "smoke.yaml").read_text(encoding="utf-8"))
    monkeypatch.setattr(paths, "repository", lambda: tmp_path / "repository")
    sound.setdefault(section, {})[name] = value
    for content in (sound, whole, sound | {section: whole}):
        (folder / "mine.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        with refused_or_right():
            profiles.load(NAME, {"profile": "mine"})


@few
@given(JUNK)
def test_any_argument_of_the_runner_is_taken_or_refused(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    monkeypatch.setattr(run, "_run", lambda source, *a: run.Result(source.stem))  # no notebook runs
    monkeypatch.setattr(run, "_kernel", lambda *a: contextlib.nullcontext())
    one: dict[str, Any] = {"only": ["01_expressiveness"]}
    for more in ({"only": value}, one | {"parameters": value}, one | {"scheduler": value}):
        with refused_or_right():
            assert all(isinstance(r, run.Result) for r in run.reproduce("smoke", **more))
    for call in (run.reproduce, notebooks.publish_outputs, lambda v: notebooks.publish_outputs("smoke", v)):
        with refused_or_right():
            call(value)
    text = str(value)
    for arguments in (["--profile", text], ["--only", text], ["-p", "seed", text]):
        with refused_or_right(), contextlib.suppress(SystemExit):
            assert main(["--profile", "smoke", "--only", *one["only"], *arguments]) in (0, 2)


@few
@given(JUNK)
def test_any_argument_of_a_sweep_is_taken_or_refused(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    store = Store("memory://bad-values")

    def reached(*a: Any, **k: Any) -> None:
        raise BeftError("the arguments were taken")

    monkeypatch.setattr(sweep, "Context", reached)
    for arguments in ((value, RUNS, store), (SHORT, value, store), (SHORT, RUNS, value), (value, value, value)):
        with refused_or_right():
            sweep.run(*arguments)
    for more in ({"bank_size": value}, {"scheduler": value}):
        with refused_or_right():
            sweep.run_all([(SHORT, RUNS)], store, False, **more)
    with refused_or_right():
        sweep.run_all(value, store)
    for arguments in ((value, RUNS[0], store), (SHORT, value, store), (SHORT, RUNS[0], value)):
        with refused_or_right():
            sweep.adapter(*arguments)
    with refused_or_right():
        sweep.export(SHORT, RUNS[0], store, value)
    with refused_or_right():
        cluster.reach(value)


@few
@given(JUNK)
def test_any_place_in_the_environment_is_taken_or_refused(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    for variable in ("BEFT_HOME", "BEFT_RESULTS"):
        with contextlib.suppress(ValueError, UnicodeEncodeError):  # no system lets these in
            monkeypatch.setenv(variable, str(value))
    for call in (paths.home, paths.cache, lambda: paths.results("smoke"), lambda: paths.results(value)):
        with refused_or_right():
            assert isinstance(call(), Path | str)
    with refused_or_right():
        assert isinstance(paths.check_folder(value, "folder"), Path)


@few
@given(JUNK, JSON, JSON)
def test_any_word_list_is_read_or_refused(tmp_path: Path, value: Any, content: Any, part: Any) -> None:
    path = tmp_path / "words.json"
    own = {"groups": ["a", "b"], "words": [["x", "y"]]}
    axes = [content, {"mine": part}, *({"mine": own | {name: part}} for name in own)]
    for whole in (content, *({"axes": one} for one in axes)):
        path.write_text(json.dumps(whole), encoding="utf-8")
        for name in ("mine", value):
            with refused_or_right():
                assert axis(name, names=True, path=path).pattern
    with refused_or_right():
        axis("gender", path=value)
