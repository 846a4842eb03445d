"""What the notebooks' runner is told of sweeps: numbers of runs done, reused and failed, a line per sweep."""

from __future__ import annotations

import json
import os

RUN_LOG = "BEFT_RUN_LOG"  # environment variable: the file that the runner reads


def tell_runner(**counts: int) -> None:
    """Add what a sweep did to the runner's log, if there is one."""
    path = os.environ.get(RUN_LOG)
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(counts) + "\n")
