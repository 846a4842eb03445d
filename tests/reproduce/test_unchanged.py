"""A second `make reproduce` leaves a notebook as it is where nothing has changed, and runs it where anything has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_notebooks import Make, built

from beft.records.store import Store
from beft.reproduce import unchanged
from beft.reproduce.__main__ import main
from beft.reproduce.notebooks import read

SOURCE = """
import json, os, pathlib, time
folder = pathlib.Path(os.environ["BEFT_HOME"]) / "figures" / profile
folder.mkdir(parents=True, exist_ok=True)
(folder / "x.png").write_bytes(b"x")
entry = {"notebook": "a", "kind": "figure", "files": ["x.png"], "records": RECORDS}
(folder / "index.json").write_text(json.dumps([entry]))
print(time.time_ns())
"""


@pytest.fixture
def again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Runs the notebook, and says whether it ran or was left."""

    def run(*options: str) -> str:
        before = built(tmp_path, "a").read_bytes() if built(tmp_path, "a").exists() else b""
        assert main(["--profile", "smoke", *options]) == 0
        said = capsys.readouterr().out.split()[-1]
        assert (built(tmp_path, "a").read_bytes() == before) == (said == "unchanged")
        return said

    return run


def record(home: Path) -> str:
    settings = {"kind": "bench", "n": 1}
    blocks: dict[str, object] = {"model": {}, "data": {}, "seconds": 0, "outcome": "ok"}
    store = Store(home / "data" / "results" / "smoke")
    return str(store.read(store.write({"kind": "bench", "settings": settings, **blocks}))["key"])


def test_what_is_as_it_was_is_left_and_again_runs_it(tmp_path: Path, make: Make, again) -> None:
    make("a", [SOURCE.replace("RECORDS", "[]")])
    assert [again(), again(), again("--again"), again()] == ["ok", "unchanged", "ok", "unchanged"]


def test_a_parameter_runs_it_and_leaves_no_stamp_of_its_own(tmp_path: Path, make: Make, again) -> None:
    make("a", [SOURCE.replace("RECORDS", "[]")])
    assert [again(), again("-p", "count", "3"), again("-p", "count", "3")] == ["ok", "ok", "ok"]
    assert again() == "ok", "what is in build/ is of other parameters"


def test_a_change_of_anything_that_it_is_made_from_runs_it(
    tmp_path: Path, make: Make, again, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, home = record(tmp_path / "home"), tmp_path / "home"
    cells = [SOURCE.replace("RECORDS", json.dumps([key]))]
    make("a", cells)
    assert [again(), again()] == ["ok", "unchanged"]
    (home / "figures" / "smoke" / "x.png").write_bytes(b"y")
    assert [again(), again()] == ["ok", "unchanged"], "a file that was changed"
    (home / "figures" / "smoke" / "x.png").unlink()
    assert [again(), again()] == ["ok", "unchanged"], "a file that is gone"
    (path,) = (home / "data" / "results" / "smoke").glob("*.json")
    text = path.read_text()
    path.unlink()
    assert again() == "ok", "a record that is gone"
    path.write_text(text)
    assert again() == "unchanged"
    monkeypatch.setattr(unchanged, "versions", lambda: {"torch": "another"})
    assert [again(), again()] == ["ok", "unchanged"], "another version of a package"
    source = make("a", [*cells, "1 + 1"])
    assert [again(), again()] == ["ok", "unchanged"], "another cell"
    assert len(read(source).cells) == 4


def test_a_change_of_a_model_of_the_repository_or_of_a_file_that_the_profile_names_is_a_change(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, rows, model = make("a", ["1"]), tmp_path / "rows.csv", tmp_path / "data" / "models" / "tiny" / "config.json"
    model.parent.mkdir(parents=True)
    monkeypatch.setattr(unchanged.paths, "ROOT", tmp_path)
    monkeypatch.setattr(unchanged, "read_profile", lambda name: {"common": {"cells": [{"task": str(rows)}]}})
    seen = [unchanged.made_from(source, "smoke")]
    for path in (rows, model):
        for text in ("1", "12"):
            path.write_text(text)
            seen.append(unchanged.made_from(source, "smoke"))
    monkeypatch.setenv("BEFT_DATA", str(tmp_path))
    seen.append(unchanged.made_from(source, "smoke"))
    assert len(set(seen)) == 6 and unchanged.made_from(source, "smoke") == seen[-1]


def test_what_was_edited_while_it_ran_is_not_what_it_was_made_from(tmp_path: Path, make: Make, again) -> None:
    path = tmp_path / "repository" / "notebooks" / "a.ipynb"
    edit = f"p = pathlib.Path({str(path)!r})\np.write_text(p.read_text().replace('left' + ' as it is', 'edited'))"
    make("a", [SOURCE.replace("RECORDS", "[]"), edit, "'left as it is'"])
    assert [again(), again(), again()] == ["ok", "ok", "unchanged"]


def test_a_broken_stamp_counts_as_none(tmp_path: Path, make: Make, again) -> None:
    make("a", [SOURCE.replace("RECORDS", "[]")])
    again()
    stamp = tmp_path / "home" / "build" / "smoke" / "a.stamp.json"
    for text in ("{", "[]", "{}"):
        stamp.write_text(text)
        assert again() == "ok"


def test_a_profile_that_reads_from_elsewhere_always_runs(
    tmp_path: Path, make: Make, again, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("a", [SOURCE.replace("RECORDS", "[]")])
    monkeypatch.setattr("beft.settings.profiles.read_profile", lambda name: {"common": {"offline": False}})
    assert [again(), again()] == ["ok", "ok"]
