"""Records and adapters in a folder of this machine or behind any fsspec URL: the same records, whole or absent."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import filelock
import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from sample_records import record, settings
from small_sweep import RUNS, STUDY, timeless

from beft.bank import peft_adapter as adapters
from beft.bank.adapter_files import ABOUT
from beft.errors import BeftError
from beft.experiments import sweep
from beft.paths import ROOT
from beft.records import folders
from beft.records.store import Store


class Mounted(LocalFileSystem):
    """Stands for the protocols that rename (sftp://, hdfs://, ...), which show a file while it grows."""

    protocol = ("mounted",)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("mounted://"))


fsspec.register_implementation("mounted", Mounted, clobber=True)
REMOTE = ["memory://", "mounted://"]


@pytest.fixture(params=["folder", "file://", *REMOTE])
def where(request, tmp_path, monkeypatch):
    """A place for records of each kind."""
    monkeypatch.setenv("BEFT_HOME", str(tmp_path / "home"))
    if request.param == "folder":
        return tmp_path / "records"
    if request.param == "memory://":
        return f"memory://{uuid.uuid4().hex}/records"
    return f"{request.param}{tmp_path}/records"


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
    assert repr(again) == repr(Store(again.location)) == "Store(2 records in 'records')"
    assert again.read(again.path(settings())) == again.all()[0]
    assert len(everything(where)) == 2


def test_a_damaged_record_is_refused_by_its_full_name(where):
    store = Store(where)
    store.write(record())
    store.place.write(store.name(settings()), "{")
    where = r"records/sst2-tiny-b_v-seed0-rate0.0004-\w+.json cannot be used, it is not valid JSON: run"
    with pytest.raises(BeftError, match=where):
        store.read(store.name(settings()))
    assert store.find(settings()) is None
    store.write(record())
    assert store.find(settings()) is not None
    assert [name[-8:] for name in everything(store.location) if not name.endswith(".json")] == [".damaged"]


@pytest.mark.parametrize("where", ["folder", *REMOTE], indirect=True)
def test_a_sweep_leaves_its_records_and_adapters_there(where, tmp_path, monkeypatch, tiny):
    records = sweep.run(STUDY, RUNS[:2], Store(where), progress=False)
    local = sweep.run(STUDY, RUNS[:2], Store(tmp_path / "local"), progress=False)
    assert [timeless(r) for r in records] == [timeless(r) for r in local]
    assert sum(name.endswith(".json") and name not in (adapters.CONFIG, ABOUT) for name in everything(where)) == 2
    monkeypatch.setenv("BEFT_HOME", str(tmp_path / "another machine"))
    monkeypatch.setattr(sweep, "fit", lambda *a, **k: pytest.fail("trained again"))
    assert sweep.run(STUDY, RUNS[:2], Store(where), progress=False) == records
    folder = sweep.adapter(STUDY, RUNS[0], Store(where))
    expected = sweep.adapter(STUDY, RUNS[0], Store(tmp_path / "local"))
    assert (folder / adapters.WEIGHTS).read_bytes() == (expected / adapters.WEIGHTS).read_bytes()
    adapters.load_tuned(tiny.model, folder)


def full(*a, **k):
    raise OSError(errno.ENOSPC, "No space left on device")


def half_a_file(path, mode, **k):
    """Opens like `open`; the disk is full in the middle of the text."""
    file = open(path, mode, **k)  # closed by the writer
    whole = file.write
    file.write = lambda text: (whole(text[:40]), file.flush(), full())
    return file


@pytest.mark.parametrize(
    ("where", "step"),
    [("folder", "write"), ("folder", "fsync"), ("folder", "replace"), ("file://", "fsync")]
    + [("memory://", "pipe_file"), ("mounted://", "pipe_file"), ("mounted://", "mv")],
    indirect=["where"],
)
def test_a_full_disk_is_one_sentence_and_leaves_the_records_before_it(where, step, monkeypatch):
    store = Store(where)
    store.write(record())
    if step == "write":
        monkeypatch.setattr(folders, "open", half_a_file, raising=False)
    elif step in ("fsync", "replace"):
        monkeypatch.setattr(os, step, full)
    elif (step, store.place.label[:7]) == ("pipe_file", "mounted"):
        pipe = store.place.files.pipe_file
        monkeypatch.setattr(
            store.place.files, step, lambda path, content: (pipe(path, content[:40]), full()), raising=False
        )
    else:
        monkeypatch.setattr(store.place.files, step, full)
    name = store.name(settings(seed=1))
    with pytest.raises(BeftError, match=f"cannot write the record .*{name}: No space left on device; free the disk"):
        store.write(record(settings=settings(seed=1)))
    monkeypatch.undo()
    assert [r["settings"]["seed"] for r in store.all()] == [0]
    assert len(everything(where)) == 1
    store.write(record(settings=settings(seed=1)))
    assert [r["settings"]["seed"] for r in store.all()] == [0, 1]


def adapter(store, text):
    """A folder as a finished run leaves it, before it is kept."""
    made = store.folder / "adapters" / f"x.{uuid.uuid4().hex}.tmp"
    made.mkdir(parents=True)
    (made / adapters.CONFIG).write_text("{}")
    (made / "weights").write_text(text)
    return made


def test_a_kept_folder_replaces_the_one_before_it_whole(where):
    store = Store(where)
    for text in ("one", "two"):
        store.keep(adapter(store, text), "x")
    assert (store.fetch("x") / "weights").read_text() == "two"
    assert store.fetch("y") is None
    assert [p.name for p in (store.folder / "adapters").iterdir()] == ["x"]


def test_many_may_keep_one_folder_at_once(where):
    store = Store(where)
    made = [adapter(store, "same") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda folder: store.keep(folder, "x"), made))
    assert (store.fetch("x") / "weights").read_text() == "same"
    assert [p.name for p in (store.folder / "adapters").iterdir()] == ["x"]


def test_a_folder_that_cannot_be_kept_is_one_sentence(where, tmp_path):
    with pytest.raises(BeftError, match="the results folder .*records cannot be used, .*finished runs are kept"):
        Store(where).keep(tmp_path / "absent", "x")


@pytest.mark.parametrize("where", REMOTE, indirect=True)
def test_another_machine_fetches_an_adapter_once_it_is_whole(where, tmp_path, monkeypatch):
    here = Store(where)
    real = here.place.files.put_file

    def broken(path, target):
        if path.endswith("weights"):  # the last file
            raise ConnectionError("connection lost")
        real(path, target)

    monkeypatch.setattr(here.place.files, "put_file", broken)
    with pytest.raises(BeftError, match="connection lost"):
        here.keep(adapter(here, "whole"), "x")
    monkeypatch.undo()
    monkeypatch.setenv("BEFT_HOME", str(tmp_path / "there"))
    there = Store(where)
    assert there.folder != here.folder and there.fetch("x") is None
    here.keep(adapter(here, "whole"), "x")
    monkeypatch.setattr(there.place.files, "get_file", full)
    with pytest.raises(BeftError, match="records cannot be used, No space left on device"):
        there.fetch("x")
    assert list((there.folder / "adapters").iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setenv("BEFT_HOME", str(tmp_path / "there"))
    assert sorted(p.name for p in there.fetch("x").iterdir()) == [adapters.CONFIG, "weights"]
    monkeypatch.setattr(there.place.files, "get_file", lambda *a: pytest.fail("downloaded again"))
    assert (there.fetch("x") / "weights").read_text() == "whole"


@pytest.mark.parametrize("where", REMOTE, indirect=True)
def test_another_machine_fetches_a_folder_that_holds_no_peft_adapter(where, tmp_path, monkeypatch):
    here = Store(where)
    made = here.folder / "adapters" / "made.tmp"
    made.mkdir(parents=True)
    (made / "patch.safetensors").write_text("numbers")
    here.keep(made, "x")
    monkeypatch.setenv("BEFT_HOME", str(tmp_path / "there"))
    there = Store(where).fetch("x")
    assert there is not None and here.folder not in there.parents
    assert [p.name for p in there.iterdir()] == ["patch.safetensors"]


@pytest.mark.parametrize("where", REMOTE, indirect=True)
@pytest.mark.parametrize("error", [ConnectionError("no route"), RuntimeError("no route")])
def test_a_url_that_stops_answering_is_one_sentence(where, error, monkeypatch):
    store = Store(where)
    store.write(record())

    def fails(*a, **k):
        raise error

    monkeypatch.setattr(store.place.files, "exists", fails)
    for call in (store.all, lambda: store.find(settings()), lambda: store.fetch("x"), store.__repr__):
        with pytest.raises(BeftError, match="the results folder .*records cannot be used, no route: correct"):
            call()
    monkeypatch.undo()
    monkeypatch.setattr(store.place.files, "cat_file", fails, raising=False)
    with pytest.raises(BeftError, match=r"cannot read the record .*records/sst2.*\.json: no route"):
        store.find(settings())


@pytest.mark.parametrize("url", ["nothing://x", "s4://bucket/x", "ftp://127.0.0.1:1/x"])
def test_a_url_of_no_known_protocol_is_one_sentence(url):
    with pytest.raises(BeftError, match=f"the results folder '{url}' cannot be used, .*: install the package"):
        Store(url)


def test_a_protocol_without_its_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(BeftError, match="'s3://bucket/x' cannot be used, Install s3fs.*: install the package"):
        Store("s3://bucket/x")


def test_no_password_is_shown():
    with pytest.raises(BeftError) as caught:
        Store("nothing://me:secret@host/x")
    assert "secret" not in str(caught.value) and "nothing://me:***@host/x" in str(caught.value)


@pytest.mark.parametrize("url", ["memory://", "memory://a/b/", "memory:///"])
def test_the_location_of_a_url_is_a_url(url, monkeypatch, tmp_path):
    monkeypatch.setenv("BEFT_HOME", str(tmp_path))
    store = Store(Store(url).location)
    assert "://" in store.location and store.folder == Store(url).folder
    name = store.name(settings())
    store.write(record())
    assert Store(url).find(settings()) is not None
    store.place.files.rm_file(f"{store.place.root}/{name}")


def test_one_at_a_time_and_the_other_is_told_that_it_waits(tmp_path, monkeypatch):
    order, waits = [], threading.Event()
    monkeypatch.setattr(folders, "WAITS", 0.1)
    monkeypatch.setattr(folders, "print", lambda text, **_: (order.append(text), waits.set()), raising=False)

    def second():
        with Store(tmp_path).lock("bank"):
            order.append("second")

    with Store(tmp_path).lock("bank"):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(timeout=60)
        order.append("first")
    thread.join(timeout=60)
    assert order == ["another sweep is training bank bank: waiting for it", "first", "second"]
    assert Store(tmp_path).all() == []


HOLDS = """
import sys, time
from beft.records import Store
with Store(sys.argv[1]).lock("bank"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_process_that_is_killed_lets_go(tmp_path, monkeypatch):
    """Killed when this one has said that it waits."""
    environment, said = os.environ | {"PYTHONPATH": str(ROOT)}, []
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    monkeypatch.setattr(folders, "WAITS", 0.1)
    monkeypatch.setattr(folders, "print", lambda text, **_: (said.append(text), holder.kill()), raising=False)
    try:
        assert holder.stdout.readline() == "held\n"
        with Store(tmp_path).lock("bank"):
            assert holder.wait(timeout=30) != 0
    finally:
        holder.kill()
        holder.communicate()
    assert said == ["another sweep is training bank bank: waiting for it"]


@pytest.mark.parametrize("error", [NotImplementedError(), OSError(errno.ENOLCK, "No locks available")])
def test_where_there_are_no_locks_both_go_on(tmp_path, monkeypatch, error):
    def fails(*a, **k):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", fails)
    with Store(tmp_path).lock("bank"), Store(tmp_path).lock("bank"):
        Store(tmp_path).write(record())
    assert len(Store(tmp_path).all()) == 1


@pytest.mark.parametrize("where", REMOTE, indirect=True)
def test_a_url_has_no_locks(where):
    with Store(where).lock("bank"), Store(where).lock("bank"):
        pass
    assert everything(where) == []


def test_an_error_under_a_lock_is_raised_as_it_is(tmp_path):
    with pytest.raises(OSError, match="mine"), Store(tmp_path).lock("bank"):
        raise OSError("mine")
    with Store(tmp_path).lock("bank"):
        pass


def test_a_folder_that_cannot_be_written_is_told_before_the_training(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(BeftError, match="the results folder .*taken cannot be used, Not a directory"):
        with Store(tmp_path / "taken").lock("bank"):
            pytest.fail("trained")


@pytest.mark.parametrize("where", REMOTE, indirect=True)
def test_threads_that_write_one_record_behind_a_url_leave_one_whole_record(where):
    def often(worker):
        for _ in range(30):
            Store(where).write(record(seconds=float(worker)))
            assert Store(where).find(settings()) is not None  # raises for a part of a record

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(often, range(4)))
    assert len(everything(where)) == 1


WRITES = """
import os, sys
from beft.records.store import Store
from sample_records import record
store = Store(sys.argv[1])
print("ready", flush=True)
while not os.path.exists(sys.argv[2]):
    store.write(record(seconds=float(os.getpid())))
"""


def test_two_processes_that_write_one_record_leave_one_whole_record(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    store, enough = Store(tmp_path / "records"), tmp_path / "enough"
    command = [sys.executable, "-c", WRITES, str(store.folder), str(enough)]
    writers = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
        writers_seen, reads = set(), 0
        while (reads < 30 or len(writers_seen) < 2) and all(writer.poll() is None for writer in writers):
            if (found := store.find(settings())) is not None:  # raises for a part of a record
                writers_seen.add(found["seconds"])
                reads += 1
        assert reads >= 30 and len(writers_seen) == 2
    finally:
        enough.touch()
        for writer in writers:
            writer.communicate(timeout=60)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(list(store.folder.iterdir())) == 1
