"""A sweep on the workers of a Dask cluster: the same records, whatever becomes of a worker."""

from __future__ import annotations

import contextlib
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


def test_a_killed_worker_loses_its_running_bank_which_is_done_elsewhere(tmp_path, undisturbed, workers, monkeypatch):
    """Two banks are on the workers; the worker that writes the first checkpoint waits there until it is killed."""
    store, waits, killed = Store(tmp_path / "shared"), tmp_path / "waits", []

    def stopped(*task):  # defined here, so that it is sent whole: a worker cannot import this module
        from beft.experiments import sweep
        from beft.training import loop

        save = loop.save_checkpoint

        def save_and_wait(*state):
            save(*state)
            with contextlib.suppress(FileExistsError), open(waits, "x", encoding="utf-8") as file:
                file.write(str(os.getpid()))
                file.flush()
                time.sleep(600)

        loop.save_checkpoint = save_and_wait
        try:
            return sweep._train_on_worker(*task)
        finally:
            loop.save_checkpoint = save

    def kill():
        end = time.monotonic() + 120
        while time.monotonic() < end and not killed:
            if waits.exists() and (pid := waits.read_text(encoding="utf-8")):
                killed.extend(store.folder.glob("checkpoints/*.safetensors"))
                os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.01)

    monkeypatch.setattr(sweep, "_train_on_worker", stopped)
    murderer = threading.Thread(target=kill)
    murderer.start()
    records = sweep.run_all(JOBS, store, progress=False, bank_size=2, scheduler=workers)
    murderer.join()
    assert killed, "no worker had written a checkpoint"
    assert timeless(records) == timeless(undisturbed)
    assert len(list(store.folder.glob("*.json"))) == 6


def test_a_scheduler_that_does_not_answer_is_a_sentence_within_ten_seconds(tmp_path, monkeypatch):
    assert cluster.TIMEOUT == 10
    monkeypatch.setattr(cluster, "TIMEOUT", 0.2)
    with socket.socket() as quiet:  # takes the connection and says nothing
        quiet.bind(("127.0.0.1", 0))
        quiet.listen()
        address = f"tcp://127.0.0.1:{quiet.getsockname()[1]}"
        with pytest.raises(BeftError, match=f"no Dask scheduler answers at {address} within 0.2 s: start one"):
            sweep.run_all(JOBS, Store(tmp_path), progress=False, scheduler=address)
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
