"""A sweep on the workers of a Dask cluster: the same records, whatever becomes of a worker."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import threading
import time
from dataclasses import replace

import pytest

from beft.errors import BeftError
from beft.experiments import cluster, ranking, sweep
from beft.models import loading as models
from beft.records.store import Store
from beft.reproduce.__main__ import main
from beft.study import Run, Study

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="Dask is not installed (extra `cluster`)"
)
STUDY = Study(model=models.TINY, task="microworld_sentiment", regime=48, epochs=3, max_length=64, offline=True)
OTHER = replace(STUDY, task="microworld_similarity", regime=32)
JOBS = [
    (STUDY, [Run(m, seed, 1e-2) for m in ("head", "b_v") for seed in (0, 1)]),
    (OTHER, [Run("b_q", seed, 1e-2) for seed in (0, 1)]),
]


def timeless(records):
    """Records without what differs between two equal runs."""
    return [
        {k: v for k, v in r.items() if k not in ("seconds", "checksum", "bank")} | {"bank": r["bank"]["runs"]}
        for part in records
        for r in part
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The records of an in-process sweep."""
    return sweep.run_all(JOBS, Store(tmp_path_factory.mktemp("here")), progress=False, bank_size=2)


@pytest.fixture(scope="module")
def workers():
    """The address of a scheduler with two workers, as one that is already there."""
    with cluster.connect("local:2") as client:
        yield client.scheduler.address


def test_two_workers_write_the_records_of_this_process(tmp_path, undisturbed):
    store, environment = Store(tmp_path / "shared"), dict(os.environ)
    there = sweep.run_all(JOBS, store, progress=False, bank_size=2, scheduler="local:2")
    assert dict(os.environ) == environment, "what is started later would have Dask's number of threads"
    assert timeless(there) == timeless(undisturbed)
    assert len(store.all("run")) == 6
    again = sweep.run_all(JOBS, store, progress=False, bank_size=2, scheduler="tcp://nobody.invalid:1")
    assert again == there, "nothing is missing, so nobody is asked"


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="the system does not tell")
def test_local_workers_wait_without_spinning_from_their_start():
    """OpenMP reads its policy when it is loaded, which importing this process's main module may do at once."""
    with cluster.connect("local:1") as client:
        (born_with,) = client.run(lambda: open("/proc/self/environ", encoding="utf-8").read()).values()
    assert "OMP_WAIT_POLICY=PASSIVE" in born_with.split("\0")


def test_a_killed_worker_loses_its_running_bank_which_is_done_elsewhere(tmp_path, workers, monkeypatch):
    """Two banks are on the workers; the one that took the first is killed as soon as a checkpoint is written."""
    store, killed = Store(tmp_path / "shared"), []
    long = [(replace(study, epochs=40), runs) for study, runs in JOBS]
    expected = sweep.run_all(long, Store(tmp_path / "undisturbed"), progress=False, bank_size=2)
    connect = cluster.connect

    def with_a_murderer(address):
        from contextlib import contextmanager

        @contextmanager
        def context():
            with connect(address) as client:
                thread = threading.Thread(target=kill, args=(client,))
                thread.start()
                yield client
                thread.join()

        return context()

    def kill(client):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            if list((store.folder / "checkpoints").glob("*.safetensors")):
                busy = {w: tasks for w, tasks in client.processing().items() if tasks}
                pids = client.run(os.getpid)
                for worker in list(busy)[:1]:
                    killed.append(pids[worker])
                    os.kill(pids[worker], signal.SIGKILL)
            time.sleep(0.01)

    monkeypatch.setattr(cluster, "connect", with_a_murderer)
    records = sweep.run_all(long, store, progress=False, bank_size=2, scheduler=workers)
    assert len(killed) == 1
    assert timeless(records) == timeless(expected)
    assert len(list(store.folder.glob("*.json"))) == 6


def test_a_scheduler_that_does_not_answer_is_a_sentence_within_ten_seconds(tmp_path):
    with socket.socket() as quiet:  # takes the connection and says nothing
        quiet.bind(("127.0.0.1", 0))
        quiet.listen()
        address = f"tcp://127.0.0.1:{quiet.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(BeftError, match=f"no Dask scheduler answers at {address} within 10 s: start one"):
            sweep.run_all(JOBS, Store(tmp_path), progress=False, scheduler=address)
        assert time.monotonic() - start < 15
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("address", ["local:0", "local", "somewhere", "tcp://", "http://host:1"])
def test_what_is_no_address_is_refused(tmp_path, address):
    with pytest.raises(BeftError, match=f"scheduler '{address}' is not an address: give tcp://host:port, or local:N"):
        sweep.run_all(JOBS, Store(tmp_path), progress=False, scheduler=address)


def test_the_runner_refuses_a_scheduler_that_is_not_there_before_anything_runs(capsys):
    assert main(["--profile", "smoke", "--scheduler", "nonsense"]) == 2
    assert "scheduler 'nonsense' is not an address" in capsys.readouterr().err


def test_without_dask_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(BeftError, match="needs Dask: install it with pip install 'beft\\[cluster\\]'"):
        cluster.reach("local:2")


def test_a_bank_that_fails_on_a_worker_stops_none_of_the_others(tmp_path, workers):
    """The second study's data cannot be drawn on the worker: its keys are not those that this process asks for."""
    store = Store(tmp_path)
    tasks = [(STUDY, [Run("head", 0, 1e-2)], ["000000000000"]), (STUDY, JOBS[0][1][:1], None)]
    from beft.experiments.context import Context
    from beft.records.schema import key

    tasks[1] = (*tasks[1][:2], [key(Context(STUDY).settings(tasks[1][1][0]))])
    with pytest.raises(BeftError, match="a worker finds other data or another model than this process"):
        list(cluster.run_each(workers, sweep._train_on_worker, tasks, store.location))
    assert len(store.all("run")) == 1


def test_rankings_on_workers_are_those_of_this_process(tmp_path, workers):
    jobs = [(replace(STUDY, epochs=1), [0, 1], 1e-2), (replace(OTHER, epochs=1), [0], 1e-2)]
    here = ranking.score_all(jobs, Store(tmp_path / "here"), progress=False)
    store = Store(tmp_path / "there")
    there = ranking.score_all(jobs, store, progress=False, scheduler=workers)
    assert [len(part) for part in here] == [2, 1] and timeless(there) == timeless(here)
    again = ranking.score_all(jobs, store, progress=False, scheduler="tcp://nobody.invalid:1")
    assert again == there, "nothing is missing, so nobody is asked"
