"""What a process tells the one that started it while it works: runs done, files written, and how far a bar is.

They are lines of JSON in the file that $BEFT_RUN_LOG names; where it is not set, nothing is told. A line has `done`,
`reused` and `failed` (of a finished sweep), `file` (a path) or `work` (the share of the outermost bar that is done).
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from tqdm.auto import tqdm

from .errors import BeftError

RUN_LOG = "BEFT_RUN_LOG"
EVERY = 0.3  # seconds between two reports of a bar


def tell(**event: Any) -> None:
    """Append an event to the log. Raises BeftError where it cannot be written."""
    if not (path := os.environ.get(RUN_LOG)):
        return
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
    except OSError as error:
        raise BeftError(
            f"the log {path} of {RUN_LOG} cannot be used, {error.strerror or error}: name a file, or unset {RUN_LOG}"
        ) from error


def log_runs(*, done: int, reused: int, failed: int) -> None:
    """Tell the numbers of runs of a finished sweep."""
    tell(done=done, reused=reused, failed=failed)


def events(path: Path, start: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The events of a log from the byte `start` on, and the byte up to which it was read; none where there is no file.

    A line that is not whole yet is left for the next call; what is no event is passed over.
    """
    with suppress(OSError), open(path, "rb") as file:
        file.seek(start)
        text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        found = []
        for line in whole.splitlines():
            with suppress(ValueError):
                event = json.loads(line)
                found += [event] if isinstance(event, dict) else []
        return found, start + len(whole)
    return [], start


def count_runs(path: Path) -> dict[str, int]:
    """{"done": n, "reused": n, "failed": n} over all sweeps of a log; zeros where there is no such file."""
    counts = {"done": 0, "reused": 0, "failed": 0}
    for event in events(path)[0]:
        with suppress(ValueError, TypeError, KeyError):
            counts = {name: count + int(event[name]) for name, count in counts.items()}
    return counts


class Bar(tqdm):  # type: ignore[misc, type-arg]
    """tqdm's bar. Of those that are open the outermost one with a total tells how much of it is done."""

    _open: ClassVar[list["Bar"]] = []

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._told = 0.0
        if not self.disable and self.total:
            Bar._open.append(self)

    def update(self, n: float | None = 1) -> bool | None:
        shown = super().update(n)
        now = time.monotonic()
        if Bar._open[:1] == [self] and now - self._told > EVERY:
            self._told = now
            tell(work=self.n / (self.total or 1))
        return shown  # type: ignore[no-any-return]

    def close(self) -> None:
        Bar._open[:] = [bar for bar in Bar._open if bar is not self]
        super().close()
