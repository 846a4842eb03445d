"""One run record in the real format and its settings, made up, for tests of stores and folders."""

from __future__ import annotations

from typing import Any


def settings(**changes: Any) -> dict[str, Any]:
    base = {"model": "org/tiny", "task": "sst2", "regime": "low", "method": "b_v", "seed": 0, "rate": 4e-4}
    return base | {"epochs": 2, "train_size": 32, "tuning_size": 0, "dtype": "float32"} | changes


def record(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "kind": "run",
        "settings": settings(),
        "model": {"name": "org/tiny", "source": "folder", "revision": None, "sha256": "00"},
        "data": {"task": "sst2", "metric": "accuracy", "substitute": False},
        "code": {"commit": "unknown", "dirty": None},
        "versions": {},
        "device": {"kind": "cpu", "name": "chip", "threads": 1},
        "parameters": {"bias": 8, "head": 10, "pooler": 4},
        "epochs": [
            {"epoch": 1, "train_loss": 0.7, "tuning": None, "validation": 0.5},
            {"epoch": 2, "train_loss": 0.6, "tuning": None, "validation": 0.75},
        ],
        "final": {"epoch": 2, "validation": 0.75, "tuning": None},
        "best": {"epoch": 2, "validation": 0.75, "tuning": None, "chosen_on": "validation"},
        "bank": {"runs": 1, "seconds": 3.0, "peak_memory_bytes": 1, "padding_efficiency": 0.9},
        "seconds": 3.0,
        "outcome": "ok",
    }
    return base | changes
