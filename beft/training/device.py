"""The device that runs are trained on: which one, what is free of it, and how much a process has used."""

import contextlib
import ctypes
import os
import resource
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import psutil
import torch

from ..errors import BeftError


def default_device() -> str:
    """Where runs are trained unless told otherwise: the environment's BEFT_DEVICE, else a GPU where there is one.

    Raises BeftError: BEFT_DEVICE is neither "cpu" nor "cuda", or "cuda" without a GPU that torch can use.
    """
    wanted = os.environ.get("BEFT_DEVICE", "").strip().lower()
    if not wanted:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted not in ("cpu", "cuda"):
        raise BeftError(f"BEFT_DEVICE is {wanted!r}: set it to cpu or cuda, or unset it")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise BeftError("BEFT_DEVICE is cuda, and torch finds no GPU: unset it, or install a build of torch with CUDA")
    return wanted


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Inside, a GPU adds up in a fixed order, as a CPU does anyway: the same seed gives the same bits."""
    if device.type != "cuda":
        yield
        return
    mode = torch.get_deterministic_debug_mode()
    options: Any = torch.utils.deterministic
    fill = options.fill_uninitialized_memory
    with warnings.catch_warnings():
        # attention's backward pass warns although it takes its fixed order then
        warnings.filterwarnings("ignore", message=".*deterministic.*")
        torch.use_deterministic_algorithms(True, warn_only=True)
        options.fill_uninitialized_memory = False  # nothing reads what was not written
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode(mode)
            options.fill_uninitialized_memory = fill


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU, or available to a process on a CPU."""
    return torch.cuda.mem_get_info()[0] if device.type == "cuda" else psutil.virtual_memory().available


def forget_peak(device: torch.device) -> None:
    """Let `peak_memory` count from here, where the system can: on a GPU and on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError, AttributeError):  # what was freed still counts until it is given back
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def peak_memory(device: torch.device) -> int:
    """Peak bytes of this process: allocated on the GPU, resident on a CPU (which counts everything loaded)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
