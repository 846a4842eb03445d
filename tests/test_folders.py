"""Records and adapters in a folder of this machine or behind any fsspec URL: the same records, whole or absent."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
import time
import uuid

import fsspec
import pytest
from test_records import record, settings
from test_sweep import RUNS, STUDY, timeless

from beft import adapters, folders, sweep
from beft.errors import BeftError
from beft.records import Store
from beft.settings import results


@pytest.fixture(params=["folder", "file://", "memory://"])
def where(request, tmp_path, monkeypatch):
    """A place for records of each kind."""
    monkeypatch.setenv("BEFT_HOME", str(tmp_path / "home"))
    if request.param == "folder":
        return tmp_path / "records"
    return (
        f"file://{tmp_path}/records" if request.param == "file://" else f"memory://{uuid.uuid4().hex}/records"
    )


def everything(where):
    """Names of all files below a place."""
    fs, root = fsspec.core.url_to_fs(str(where))
    return [path.rsplit("/", 1)[-1] for path in fs.find(root)] if fs.exists(root) else []


def test_what_is_written_is_found_read_and_listed(where):
    store = Store(where)
    assert store.all() == [] and store.find(settings()) is None
    store.write(record())
    store.write(record(settings=settings(seed=1)))
    again = Store(where)
    assert again.find(settings())["final"]["validation"] == 0.75
    assert [r["settings"]["seed"] for r in again.all("run")] == [0, 1]
    assert repr(again) == "Store(2 records in 'records')"
    assert len(everything(where)) == 2


def test_a_damaged_record_is_refused_by_its_full_name(where):
    store = Store(where)
    store.write(record())
    store.place.write(store.name(settings()), "{")
    with pytest.raises(
        BeftError, match=r"records/sst2-tiny-b_v-seed0-rate0.0004-\w+.json is not valid JSON: delete"
    ):
        store.find(settings())


def test_a_sweep_leaves_its_records_and_adapters_there(where, tmp_path, monkeypatch, tiny):
    records = sweep.run(STUDY, RUNS[:2], Store(where), progress=False)
    plain = sweep.run(STUDY, RUNS[:2], Store(tmp_path / "plain"), progress=False)
    assert [timeless(r) for r in records] == [timeless(r) for r in plain]
    assert sum(name.endswith(".json") and name != adapters.CONFIG for name in everything(where)) == 2
    monkeypatch.setenv("BEFT_HOME", str(tmp_path / "another machine"))
    monkeypatch.setattr(sweep, "fit", lambda *a, **k: pytest.fail("trained again"))
    assert sweep.run(STUDY, RUNS[:2], Store(where), progress=False) == records
    folder = sweep.adapter(STUDY, RUNS[0], Store(where))
    expected = sweep.adapter(STUDY, RUNS[0], Store(tmp_path / "plain"))
    assert (folder / adapters.WEIGHTS).read_bytes() == (expected / adapters.WEIGHTS).read_bytes()
    adapters.load_tuned(tiny.model, folder)


def test_a_failed_write_leaves_the_record_before_it_and_nothing_else(where, monkeypatch):
    store = Store(where)
    store.write(record())
    full = OSError(errno.ENOSPC, "No space left on device")

    def fails(*a, **k):
        raise full

    if isinstance(store.place, folders.RemoteFolder):
        monkeypatch.setattr(store.place.files, "mv", fails)
    else:
        monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(BeftError, match="cannot write the record .*: No space left on device; free the disk"):
        store.write(record(settings=settings(seed=1)))
    monkeypatch.undo()
    assert [r["settings"]["seed"] for r in store.all()] == [0]
    assert len(everything(where)) == 1


def test_a_kept_folder_replaces_the_one_before_it_whole(where, tmp_path):
    store = Store(where)
    for text in ("one", "two"):
        made = store.folder / "adapters" / f"x.{text}.tmp"
        made.mkdir(parents=True)
        (made / "file.txt").write_text(text)
        store.keep(made, "x")
    assert (store.fetch("x") / "file.txt").read_text() == "two"
    assert store.fetch("y") is None
    assert [p.name for p in (store.folder / "adapters").iterdir()] == ["x"]


@pytest.mark.parametrize("url", ["nothing://x", "s4://bucket/x"])
def test_a_url_of_no_known_protocol_is_one_sentence(url):
    with pytest.raises(
        BeftError, match=f"the results folder '{url}' cannot be used, .*: install the package"
    ):
        Store(url)


def test_results_go_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("BEFT_RESULTS", "s3://bucket/results/")
    assert results("laptop") == "s3://bucket/results/laptop"
    monkeypatch.setenv("BEFT_RESULTS", str(tmp_path))
    assert results("laptop") == tmp_path / "laptop"
    monkeypatch.delenv("BEFT_RESULTS")
    monkeypatch.setenv("BEFT_HOME", str(tmp_path))
    assert results("laptop") == tmp_path.resolve() / "data" / "results" / "laptop"


def test_one_at_a_time_and_the_other_is_told_that_it_waits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(folders, "WAITS", 0.1)
    order = []

    def second():
        with Store(tmp_path).lock("bank"):
            order.append("second")

    with Store(tmp_path).lock("bank"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.5)
        order.append("first")
    thread.join(timeout=30)
    assert order == ["first", "second"]
    assert "another sweep is training bank bank: waiting for it" in capsys.readouterr().out
    assert Store(tmp_path).all() == []


def write_often(folder, times):
    store = Store(folder)
    for _ in range(times):
        store.write(record(seconds=float(os.getpid())))


def test_two_processes_that_write_one_record_leave_one_whole_record(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_often, args=(tmp_path, 60)) for _ in range(2)]
    for writer in writers:
        writer.start()
    store, seen = Store(tmp_path), 0
    while any(writer.is_alive() for writer in writers):
        if store.find(settings()) is not None:  # raises for a part of a record
            seen += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen > 0 and len(list(tmp_path.iterdir())) == 1
