"""Kernels that are forked from a process that has the large libraries in memory: importing them is paid once a run.

On Linux without a GPU. Elsewhere kernels start as they always do: a GPU's driver and the frameworks of macOS do not
live through a fork. What a kernel is given, environment, folder and arguments, is the same either way.
"""

import asyncio
import multiprocessing
import os
import pathlib
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

LIBRARIES = (
    "torch",
    "transformers.modeling_utils",
    "transformers.modeling_layers",
    "peft",
    "pandas",
    "scipy.stats",
    "sklearn.metrics",
    "nbformat",
    "ipykernel.kernelapp",
)
GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
# Read when a library is imported, so that a kernel with other values cannot come from the same process.
READ_ONCE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

_started_with: dict[str, str | None] = {}


def may_fork() -> bool:
    """Whether kernels can be forked here, with the environment as it is now."""
    if sys.platform != "linux" or any(map(os.path.exists, GPUS)):
        return False
    now = {name: os.environ.get(name) for name in READ_ONCE}
    return not _started_with or _started_with == now


def _context() -> Any:
    """Where processes are forked; it imports the libraries when the first one is asked for."""
    context = multiprocessing.get_context("forkserver")
    if not _started_with:
        context.set_forkserver_preload(list(LIBRARIES))
        _started_with.update({name: os.environ.get(name) for name in READ_ONCE})
    return context


def _be_a_kernel(arguments: Sequence[str], environment: Mapping[str, str], folder: str | None) -> None:
    """Run a kernel in this process, which was forked for it."""
    os.setsid()  # a group of its own, to which signals are sent
    os.environ.clear()
    os.environ.update(environment)
    os.environ["JPY_PARENT_PID"] = str(os.getppid())  # the kernel ends when the process that it was forked from does
    if folder:
        os.chdir(folder)
    sys.path[:0] = [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance(list(arguments))


class _Process:
    """A forked process with what jupyter_client asks of a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, process: Any) -> None:
        self._process, self.pid = process, process.pid

    def poll(self) -> int | None:
        return self._process.exitcode  # type: ignore[no-any-return]

    def wait(self) -> int | None:
        self._process.join()
        return self.poll()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class _Provisioner(LocalProvisioner):
    """Forks a kernel instead of starting an interpreter."""

    async def launch_kernel(self, cmd: list[str], **options: Any) -> Any:
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
        given = (arguments, dict(options.get("env") or os.environ), options.get("cwd"))
        process = _context().Process(target=_be_a_kernel, args=given)
        await asyncio.to_thread(process.start)
        self.process = _Process(process)  # type: ignore[assignment]
        self.pid = self.pgid = process.pid
        self.cwd = options.get("cwd") or pathlib.Path.cwd()
        return self.connection_info


class ForkedKernelManager(AsyncKernelManager):
    """jupyter_client's manager, whose kernel is forked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.kernel_id = str(uuid.uuid4())
        self.provisioner = _Provisioner(kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self)
