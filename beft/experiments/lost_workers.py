"""Why Dask gave a task up: the memory of its workers, or that they were lost, in words and with the remedy."""

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

MORE_MEMORY = "give each worker more memory, start fewer on one machine, or let fewer runs share a bank (bank_size)"
PATIENCE = 1.0  # seconds in which what a nanny has seen arrives
TIMEOUT = 5.0  # seconds for a nanny to answer


def killed_for_memory() -> int:
    """How many processes the system of this machine has killed for want of memory; 0 where it does not tell."""
    with suppress(OSError, ValueError):
        counts = dict(line.split() for line in Path("/proc/vmstat").read_text(encoding="utf-8").splitlines())
        return int(counts.get("oom_kill", 0))
    return 0


def why_given_up(error: Any, client: Any, memory_was_full: bool = False) -> str:
    """Why the workers died that had a task.

    A worker that takes more memory than Dask allows it is stopped by its nanny, which tells the scheduler so. Any other
    end is in the log of the nanny, as the signal or the status with which the process ended.

    Args:
        error: Dask's KilledWorker.
        client: of the scheduler.
        memory_was_full: the system has meanwhile killed processes for want of memory on the workers' machine.
    """
    count, last = error.allowed_failures + 1, error.last_worker
    who = f"all {count} workers that had them" if count > 1 else "the worker that had them"
    most, end = _signs(client, last)
    if most:
        allowed = f" of {last.memory_limit / 1e9:.1f} GB" if last.memory_limit else ""
        return (
            f"for want of memory: {who} died, and the last, {last.address}, was stopped with {most / 1e9:.1f} GB near "
            f"Dask's limit{allowed}: {MORE_MEMORY}"
        )
    if memory_was_full:
        return f"for want of memory: {who} died, while the system killed processes for it: {MORE_MEMORY}"
    remedy = "see its log, and start workers that last"
    if end.endswith("signal 9"):
        remedy = f"if nobody and no batch system did that, the machine had no memory left: {MORE_MEMORY}"
    return (
        f"for lost workers, not for Dask's limit of memory: {who} died, and the last, {last.address}, {end}: {remedy}"
    )


def _signs(client: Any, worker: Any) -> tuple[int, str]:
    """Bytes with which a nanny stopped a worker for its memory (0: it did not), and how else the worker ended."""
    deadline = time.monotonic() + PATIENCE
    while True:
        end = _end_of(client, worker)  # first: a nanny tells of the memory before it stops a worker
        for _, event in client.get_events("worker-restart-memory"):
            if (event["worker"], event["pid"]) == (worker.address, worker.pid):
                return int(event["rss"]), ""
        if end is not None or time.monotonic() > deadline:
            return 0, end or "broke its connection"
        time.sleep(0.1)


def _end_of(client: Any, worker: Any) -> str | None:
    """How a worker's process ended, from the log of its nanny; None where there is no nanny, or not in its log yet."""
    if not worker.nanny:
        return None
    ask = {"msg": {"op": "get_logs"}, "workers": [worker.nanny], "on_error": "ignore"}
    try:
        logs = client.sync(client.scheduler.broadcast, **ask, callback_timeout=TIMEOUT)
    except (OSError, TimeoutError):
        logs = {}
    if worker.nanny not in logs:
        return "is gone with its machine or its nanny"
    for _, line in logs[worker.nanny]:  # the newest first
        if match := re.search(rf"Worker process {worker.pid} (was killed by .*|exited with .*)", line):
            return match[1]
    return None
