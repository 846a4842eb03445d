"""A user's results folder holds something damaged: a record cut short by a crash of the machine, edited by hand, or
empty; half an adapter; somebody's own JSON file. Or two sweeps run on it at once.

Every other run is used as it is; what is damaged is made again, with a remark, and the damaged file is kept beside it;
what is not ours is left alone. Each sweep counts what it has trained itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sample_records import record, settings
from small_sweep import RUNS, STUDY, timeless

from beft.bank import adapter_files, peft_adapter
from beft.bank.baselines import open_bank
from beft.errors import BeftError
from beft.experiments import packing, sweep
from beft.progress import count_runs
from beft.records.store import Store
from beft.study import Run
from beft.training.loop import fit

SHORT = replace(STUDY, epochs=1)
PAIR = RUNS[:1] + RUNS[2:3]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"outcome": "ok"', '"outcome": "OK"'))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    """What some file systems leave of a file that was written when the power went."""
    path.write_bytes(bytes(path.stat().st_size))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "note.txt").write_text("mine")


DAMAGES = [cut, edit, empty, zeros, folder]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_hides_no_other_and_the_next_one_takes_its_place(
    tmp_path: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path).write(record())
    damaged = Store(tmp_path).write(record(settings=settings(seed=1)))
    damage(damaged)
    store = Store(tmp_path)
    assert [r["settings"]["seed"] for r in store.all()] == [0]
    assert damaged.name in capsys.readouterr().out
    assert store.find(settings()) is not None and store.find(settings(seed=1)) is None
    Store(tmp_path).find(settings(seed=1))
    assert f"the record {damaged.name} is damaged" in capsys.readouterr().out
    store.write(record(settings=settings(seed=1)))
    assert [r["settings"]["seed"] for r in Store(tmp_path).all()] == [0, 1]
    (aside,) = [path for path in tmp_path.iterdir() if path.suffix != ".json"]
    assert aside.name.startswith(damaged.name) and aside.is_dir() == (damage is folder)


@pytest.mark.parametrize("damage", [cut, folder])
def test_a_sweep_makes_a_damaged_record_again_and_leaves_the_others(
    tmp_path: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    first = sweep.run(SHORT, PAIR, Store(tmp_path), progress=False, bank_size=1)
    kept, damaged = (tmp_path / Store(tmp_path).name(r["settings"]) for r in first)
    before = kept.read_bytes(), kept.stat().st_mtime_ns
    damage(damaged)
    again = sweep.run(SHORT, PAIR, Store(tmp_path), progress=False, bank_size=1)
    assert [timeless(r) for r in again] == [timeless(r) for r in first]
    assert (kept.read_bytes(), kept.stat().st_mtime_ns) == before
    assert f"{damaged.name} is damaged" in capsys.readouterr().out
    assert len(Store(tmp_path).all()) == 2


def test_somebodys_own_json_is_ignored_and_never_ordered_to_be_deleted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    store.write(record())
    (tmp_path / "config.json").write_text('{"mine": 1}')
    (tmp_path / "notes.json").mkdir()
    (tmp_path / "._hidden.json").write_bytes(b"\0\5\26\7")
    assert len(store.all()) == len(store.all()) == 1 and store.find(settings()) is not None
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "'config.json' in the results folder is no record, and is ignored",
        "'notes.json' in the results folder is no record, and is ignored",
    ]
    assert repr(store).startswith("Store(1 records")
    assert sorted(path.name for path in tmp_path.iterdir())[:3] == ["._hidden.json", "config.json", "notes.json"]


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("behind_url", [False, True])
@pytest.mark.parametrize("file", [peft_adapter.WEIGHTS, peft_adapter.CONFIG])
@pytest.mark.parametrize("damage", [half, zeros, gone])
def test_a_damaged_adapter_is_made_again(
    tmp_path: Path,
    file: str,
    damage: Callable[[Path], None],
    behind_url: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BEFT_HOME", str(tmp_path / "home"))
    store = Store(f"memory://{tmp_path.name}-{file}" if behind_url else tmp_path / "results")
    made = sweep.adapter(SHORT, RUNS[0], store)
    (whole,) = store.all()
    expected = {path.name: path.read_bytes() for path in made.iterdir()}
    damage(made / file)
    trained = []
    monkeypatch.setattr(sweep, "fit", lambda *a, **k: (trained.append(1), fit(*a, **k))[1])
    again = sweep.adapter(SHORT, RUNS[0], store)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == expected
    assert "is damaged" in capsys.readouterr().out and store.all() == [whole]
    assert len(trained) == (not behind_url), "behind a URL there is a whole copy"


def test_a_file_in_the_place_of_an_adapter_is_no_adapter(tmp_path: Path, tiny) -> None:
    store = Store(tmp_path)
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "x").write_text("mine")
    with open_bank(tiny.model, ["b_v"], [0]) as bank:
        store.keep(peft_adapter.save_adapter(bank, 0, tmp_path / "made"), "x")
    assert adapter_files.fault_of(store.fetch("x", adapter_files.fault_of)) is None
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == ["x"]


def test_two_sweeps_at_once_count_what_each_has_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three runs are missing when the first sweep looks; before it trains, another one has made two of them."""
    runs, log, plan = [Run("b_v", 0, 1e-2), Run("b_q", 0, 1e-2), Run("b_k", 0, 1e9)], tmp_path / "log", packing.pack
    monkeypatch.setenv("BEFT_RUN_LOG", str(log))

    def go(own: list[Run]) -> None:
        sweep.run(SHORT, own, Store(tmp_path / "results"), progress=False, bank_size=1)

    def meanwhile(context, members, size=None):
        monkeypatch.setattr(packing, "pack", plan)
        go(runs[:2])
        yield from plan(context, members, size)

    monkeypatch.setattr(packing, "pack", meanwhile)
    go(runs)
    other, own = (json.loads(line) for line in log.read_text().splitlines())
    assert other == {"done": 2, "reused": 0, "failed": 0}
    assert own == {"done": 0, "reused": 2, "failed": 1}
    assert count_runs(log) == {"done": 2, "reused": 2, "failed": 1}, "three runs were trained, each once"


def test_a_store_in_a_newer_format_is_left_alone(tmp_path: Path) -> None:
    path = Store(tmp_path).write(record())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 2}))
    before = path.read_bytes()
    with pytest.raises(BeftError, match="written by a newer version, update beft"):
        Store(tmp_path).find(settings())
    assert path.read_bytes() == before
