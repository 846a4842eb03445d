"""A sweep of four runs of the tiny model, for tests of sweeps, folders and clusters."""

from __future__ import annotations

from beft.models.files import TINY
from beft.study import Run, Study

STUDY = Study(model=TINY, task="microworld_sentiment", regime=48, epochs=3, max_length=64, offline=True)
RUNS = [Run("b_v", 0, 1e-2), Run("head", 0, 1e-2), Run("b_v", 1, 1e-2), Run("b_v", 1, 3e-3)]


def timeless(record):
    """A record without what differs between two equal runs."""
    measured = ("seconds", "peak_memory_bytes")
    rest = {k: v for k, v in record.items() if k not in ("seconds", "checksum")}
    return rest | {"bank": {k: v for k, v in record["bank"].items() if k not in measured}}
