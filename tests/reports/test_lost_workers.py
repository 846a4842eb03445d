"""A user's workers die under a bank until Dask gives it up. The error says whether memory or something else was it.

A worker that goes over its memory limit needs more of it, or a smaller bank; one that is killed or leaves does not.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_sweep import RUNS, STUDY

from beft.errors import BeftError
from beft.experiments import cluster, lost_workers

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="Dask is not installed (extra `cluster`)"
)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A scheduler that gives a task up at once, with a worker under a nanny that stops it near 0.5 GB."""
    import dask
    from distributed import LocalCluster

    options: dict[str, Any] = {f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")}
    options |= {"distributed.scheduler.allowed-failures": 0, "distributed.worker.memory.terminate": 0.1}
    with (
        pytest.MonkeyPatch.context() as patch,
        dask.config.set(options),
        LocalCluster(1, threads_per_worker=1, memory_limit="5GB", dashboard_address=None) as c,
    ):
        for name in ("PATIENCE", "TIMEOUT"):  # however busy the machine is
            patch.setattr(lost_workers, name, 60.0)
        yield c.scheduler_address


def given_up(scheduler: str, work: Any) -> str:
    """The error of a bank of two runs that goes to the worker."""
    with pytest.raises(BeftError) as caught:
        list(cluster.run_each(scheduler, work, [(STUDY, RUNS[:2], ["key"])], "memory://x"))
    return str(caught.value)


# The work is defined inside the tests, so that it is sent whole: a worker cannot import this module.
def test_memory_is_named_where_the_limit_was_passed(scheduler: str) -> None:
    def greedy(*_: Any) -> None:
        import time

        taken = [bytearray(b"1" * 20_000_000) for _ in range(50)]  # 1 GB, twice where it is stopped
        time.sleep(120 + len(taken))

    says = given_up(scheduler, greedy)
    assert says.startswith("2 runs (b_v, head) on microworld_sentiment were given up for want of memory: the worker")
    assert "near Dask's limit of 5.0 GB: give each worker more memory" in says
    assert says.endswith("finished runs are kept, the same command goes on") and "lost workers" not in says


def test_lost_workers_are_named_where_no_limit_was_passed(scheduler: str) -> None:
    def leaves(*_: Any) -> None:
        import os

        os._exit(3)

    def is_killed(*_: Any) -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    says = given_up(scheduler, leaves)
    assert "were given up for lost workers, not for Dask's limit of memory: the worker that had them died" in says
    assert "exited with status 3: see its log" in says and "for want of memory" not in says
    says = given_up(scheduler, is_killed)
    assert "for lost workers" in says and "was killed by signal 9: if nobody and no batch system did that" in says


def test_what_was_done_before_comes_with_its_result(scheduler: str, tmp_path: Path) -> None:
    received = str(tmp_path / "received")

    def second_leaves(_: Any, runs: list[Any], *__: Any) -> list[str]:
        import os
        import time

        if runs:
            return ["written"]
        began = time.monotonic()
        while not os.path.exists(received) and time.monotonic() - began < 60:  # else it could take the result with it
            time.sleep(0.01)
        os._exit(3)

    done, tasks = [], [(STUDY, RUNS[:1], ["a"]), (STUDY, [], ["b"])]
    with pytest.raises(BeftError, match="lost workers"):
        for one in cluster.run_each(scheduler, second_leaves, tasks, "memory://x"):
            done.append(one)
            Path(received).touch()
    assert done == [(0, ["written"])]


def killed_worker(nanny: str | None, failures: int = 3) -> Any:
    worker = SimpleNamespace(address="tcp://there:1", nanny=nanny, pid=7, memory_limit=0)
    return SimpleNamespace(allowed_failures=failures, last_worker=worker)


class Deaf:
    """A client whose nannies do not answer."""

    scheduler = SimpleNamespace(broadcast=None)

    def get_events(self, _: str) -> tuple[()]:
        return ()

    def sync(self, *_: Any, **__: Any) -> dict[str, Any]:
        raise TimeoutError


def test_a_machine_that_is_gone_and_one_whose_system_ran_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_workers, "PATIENCE", 0.0)
    says = lost_workers.why_given_up(killed_worker("tcp://there:2"), Deaf())
    assert (
        "all 4 workers that had them died, and the last, tcp://there:1, is gone with its machine or its nanny" in says
    )
    assert "tcp://there:1, broke its connection" in lost_workers.why_given_up(killed_worker(None), Deaf())
    says = lost_workers.why_given_up(killed_worker("tcp://there:2"), Deaf(), memory_was_full=True)
    assert says.startswith("for want of memory: all 4 workers") and "the system killed processes for it" in says
    assert lost_workers.killed_for_memory() >= 0
