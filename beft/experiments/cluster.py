"""Banks and rankings on the workers of a Dask cluster: a task each, records through a store that all reach."""

import asyncio
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import BeftError
from ..records.schema import key
from ..study import Run, Study
from . import lost_workers
from .context import Context, Shelf

Task = tuple[Study, list[Run], list[str]]  # the runs of a bank or of a ranking, and the keys of their records
# a task, the store's location, threads -> the keys of the records that were written
Work = Callable[[Study, list[Run], list[str], str, int], list[str]]
_LOCAL = re.compile(r"local:([1-9]\d*)")
TIMEOUT = 10  # seconds for a scheduler to answer

_one_at_a_time = threading.Lock()  # a worker with several threads has one model
_shelf: Shelf | None = None


def run_each(address: str, work: Work, tasks: Sequence[Task], location: str) -> Iterator[tuple[int, list[str]]]:
    """Give every task to some worker; yields the number of each as it ends, and what the worker returned.

    A task whose worker dies is given to another one; a bank goes on from its checkpoint where the store is a shared
    folder. A task that fails stops none of the others.

    Args:
        address: of a Dask scheduler, or "local:N".
        work: what a worker does with a task; it calls `on_worker`.
        location: folder or URL of the store, the same for all workers.

    Raises BeftError: the scheduler does not answer, or the error of the first task that failed; of one that Dask gave
    up, whether memory or lost workers were the cause.
    """
    with connect(address) as client:
        from distributed import as_completed

        threads, failure = torch.get_num_threads(), None
        killed = lost_workers.killed_for_memory()
        futures = {
            client.submit(work, *task, location, threads, pure=False, key=f"beft{work.__name__}-{i}-{task[2][0]}"): i
            for i, task in enumerate(tasks)
        }
        try:
            for future in as_completed(futures):
                try:
                    result = future.result()
                except Exception as error:
                    here = bool(_LOCAL.fullmatch(address)) and lost_workers.killed_for_memory() > killed
                    failure = failure or _failure(error, client, tasks[futures[future]], here)
                else:
                    yield futures[future], result
        finally:
            client.cancel([f for f in futures if not f.done()])
    if failure is not None:
        raise failure


def _failure(error: Exception, client: Any, task: Task, memory_was_full: bool) -> BeftError:
    """The error of a task that failed, as a sentence; see `lost_workers.why_given_up` for the last argument."""
    from distributed import KilledWorker

    if isinstance(error, BeftError):
        return error
    kept = "finished runs are kept, the same command goes on"
    if isinstance(error, KilledWorker):
        study, runs, _ = task
        methods = ", ".join(dict.fromkeys(run.method for run in runs))
        why = lost_workers.why_given_up(error, client, memory_was_full)
        failure = BeftError(f"{len(runs)} runs ({methods}) on {study.task} were given up {why}; {kept}")
    else:
        failure = BeftError(f"a task failed on the cluster, {type(error).__name__}: {error}; {kept}")
    failure.__cause__ = error
    return failure


def reach(address: str) -> None:
    """Nothing where the scheduler answers (or is to be started here). Raises BeftError as `connect`."""
    if isinstance(address, str) and _LOCAL.fullmatch(address):
        _dask(address)
    else:
        with connect(address):
            pass


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """A client of the scheduler at `address`; "local:N" starts one with N workers, closed at the end.

    Raises BeftError: `address` is none, Dask is not installed, or no scheduler answers within `TIMEOUT` seconds.
    """
    form = "give tcp://host:port, or local:N for N workers here"
    if not isinstance(address, str):
        raise BeftError(f"scheduler {address!r} is not an address: {form}")
    Client, LocalCluster = _dask(address)
    local = _LOCAL.fullmatch(address)
    if local:
        count = int(local[1])
        import dask

        # Threads that wait must not take the others' cores. Set before a worker starts: one that imports this
        # process's main module may have read it by the time Dask's `env` comes.
        waiting = {"distributed.nanny.pre-spawn-environ.OMP_WAIT_POLICY": "PASSIVE"}
        with (
            _same_environment(),
            dask.config.set(waiting),
            LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                memory_limit=0,  # a model is larger than what Dask takes for a leak
                dashboard_address=None,
            ) as here,
            Client(here) as client,
        ):
            yield client
        return
    if not re.fullmatch(r"(tcp|tls|ucx|ws|wss|inproc)://\S+", address):
        raise BeftError(f"scheduler {address!r} is not an address: {form}")
    try:
        with ThreadPoolExecutor(1) as apart:  # a notebook's own thread has a loop that runs already
            apart.submit(lambda: asyncio.run(_identity(address))).result()
        client = Client(address, timeout=TIMEOUT)
    except (OSError, TimeoutError, ValueError) as error:
        raise BeftError(
            f"no Dask scheduler answers at {address} within {TIMEOUT} s: start one (dask scheduler) or correct the "
            "address"
        ) from error
    with client:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            print(f"the scheduler at {address} has no workers yet: waiting for one", flush=True)
        yield client


@contextmanager
def _same_environment() -> Iterator[None]:
    """Dask sets the number of threads in this process's environment for the workers, and leaves it there."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


async def _identity(address: str) -> None:
    """Ask a scheduler who it is: one that takes the connection and says nothing would keep a client for minutes."""
    from distributed import rpc

    async with rpc(address) as scheduler:
        await asyncio.wait_for(scheduler.identity(), TIMEOUT)


def _dask(address: str) -> tuple[Any, Any]:
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise BeftError(f"scheduler {address!r} needs Dask: install it with pip install 'beft[cluster]'") from error
    return Client, LocalCluster


def on_worker(
    study: Study,
    runs: list[Run],
    names: list[str],
    threads: int,
    settings: Callable[[Context, list[Run]], list[dict[str, Any]]],
    work: Callable[[Context], Any],
) -> None:
    """On a worker: work on the data and the model of a study where the records have the keys `names`.

    Args:
        threads: as many as the process that asks has: sums over another number of threads differ by rounding.
        settings: of the records of `runs`, by the data and the model that the worker has.
        work: writes these records.
    """
    global _shelf
    torch.set_num_threads(threads)
    with _one_at_a_time:
        for shelf in (_shelf, None):  # what an earlier task has read, unless it has changed since
            _shelf = shelf or Shelf()
            context = Context(study, _shelf)
            if [key(s) for s in settings(context, runs)] == names:
                work(context)
                return
    raise BeftError(
        f"a worker finds other data or another model than this process for {study.task} and {study.model}: give all "
        "workers the same BEFT_DATA and the same version of the model and of beft"
    )
