"""The state of an unfinished bank in one safetensors file, so that an interrupt costs at most one epoch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

if TYPE_CHECKING:
    from ..bank.optimizer import StackedAdam
    from ..study import Result


def save_checkpoint(path: Path, optimizer: StackedAdam, results: list[Result], seconds: float) -> None:
    """Write values, moments and the epochs so far; a reader sees the whole file or the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    progress = {"seconds": seconds, "runs": [[vars(r.run), r.epochs, r.outcome] for r in results]}
    state = {name: tensor.contiguous() for name, tensor in optimizer.state().items()}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    save_file(state, temporary, metadata={"progress": json.dumps(progress)})
    os.replace(temporary, path)


def load_checkpoint(path: Path | None, optimizer: StackedAdam, results: list[Result]) -> tuple[int, float]:
    """Restore a bank if `path` holds its state; return (epochs done, seconds spent), (0, 0.0) if not.

    A file that cannot be read or belongs to other runs is ignored: a checkpoint only ever saves time.
    """
    if path is None or not path.exists():
        return 0, 0.0
    try:
        with safe_open(path, framework="pt") as file:
            progress = json.loads(file.metadata()["progress"])
            if [run for run, _, _ in progress["runs"]] != [vars(r.run) for r in results]:
                return 0, 0.0
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if _shapes(state) != _shapes(optimizer.state()):  # before anything is overwritten
                return 0, 0.0
            optimizer.restore(state)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError):
        return 0, 0.0
    for result, (_, epochs, outcome) in zip(results, progress["runs"], strict=True):
        result.epochs, result.outcome = epochs, outcome
    return len(results[0].epochs), float(progress["seconds"])


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
