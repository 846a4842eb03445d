"""How many runs the sweeps of a process did: written by each sweep, read by whoever started the process."""

import json
import os
from contextlib import suppress
from pathlib import Path

RUN_LOG = "BEFT_RUN_LOG"
"""Environment variable: the file to which every sweep appends one line {"done": n, "reused": n, "failed": n}."""


def log_runs(*, done: int, reused: int, failed: int) -> None:
    """Append the numbers of one sweep to the file that $BEFT_RUN_LOG names; nothing where it is not set."""
    path = os.environ.get(RUN_LOG)
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"done": done, "reused": reused, "failed": failed}) + "\n")


def count_runs(path: Path) -> dict[str, int]:
    """{"done": n, "reused": n, "failed": n} over all sweeps of a log; zeros where there is no such file."""
    counts = {"done": 0, "reused": 0, "failed": 0}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        with suppress(ValueError):  # a process killed while writing leaves half a line
            for name, number in json.loads(line).items():
                counts[name] = counts.get(name, 0) + int(number)
    return counts
