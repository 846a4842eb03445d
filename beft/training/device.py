"""The device that runs are trained on: which one, what is free of it, and how much a process has used."""

import contextlib
import ctypes
import resource
import sys

import psutil
import torch


def default_device() -> str:
    """Where runs are trained unless told otherwise: "cuda" where there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


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
