"""What a run of the notebooks shows in a terminal: what will come, each file as it appears, and one bar over all.

The bar counts seconds: those that each cell took when the profile was timed on two quiet cores (`write_seconds`). In a
cell that trains it moves with the training steps, which the kernel tells (`beft.progress`).
"""

import json
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from .. import paths
from ..errors import BeftError
from ..progress import events
from ..records.folders import write_whole
from .notebooks import find, incomplete, read

ENGINE = "beft"
START = ""  # of the kernel, in the place of a cell id
UNTIMED = 1.0  # seconds of a code cell that was never timed
OF_A_BAR = 0.8  # share of what is left of a cell that a bar in it stands for: another one may follow
POLL = 0.25  # seconds


def seconds_file() -> Path:
    """The file of the seconds of every cell, {profile: {notebook: {cell id or START: seconds}}}."""
    return paths.repository() / "notebooks" / "seconds.json"


def timed() -> dict[str, dict[str, dict[str, float]]]:
    """What the file holds; nothing where there is none."""
    with suppress(OSError, ValueError):
        seconds = json.loads(seconds_file().read_text(encoding="utf-8"))
        return seconds if isinstance(seconds, dict) else {}
    return {}


def write_seconds(profile: str) -> Path:
    """Put the seconds that the cells in build/<profile> took into the file.

    Raises BeftError where a notebook was not run, or not to its end.
    """
    own = {}
    for source in find(paths.repository() / "notebooks"):
        built = paths.home() / "build" / profile / source.name
        notebook = read(built)
        if fault := incomplete(notebook):
            raise BeftError(f"build/{profile}/{source.name} is not whole, {fault}: run `make reproduce` again")
        taken = {c.id: c.metadata.get("papermill", {}).get("duration") or 0.0 for c in notebook.cells}
        whole = notebook.metadata.get("papermill", {}).get("duration") or 0.0
        taken[START] = max(0.0, whole - sum(taken.values()))
        own[source.stem] = {name: round(seconds, 1) for name, seconds in taken.items() if seconds >= 0.05}
    write_whole(seconds_file(), json.dumps(timed() | {profile: own}, indent=1, sort_keys=True) + "\n")
    return seconds_file()


class Progress:
    """The bar of a run of notebooks, for a `with` block.

    Args:
        profile: its name.
        notebooks: those that will run, in their order.
        shown: False prints nothing at all.
    """

    def __init__(self, profile: str, notebooks: Sequence[Path], shown: bool = True) -> None:
        self._seconds: dict[str, dict[str, float]] = {}
        self._titles: dict[str, str] = {}
        self._is_timed = True
        known = timed().get(profile, {})
        for path in notebooks:
            cells, own = read(path).cells, known.get(path.stem, {})
            self._is_timed = self._is_timed and bool(own)
            code = [START, *(c.id for c in cells if c.cell_type == "code")]
            self._seconds[path.stem] = {name: own.get(name, 0.0 if own else UNTIMED) for name in code}
            first = next((c.source for c in cells if c.cell_type == "markdown"), "")
            self._titles[path.stem] = re.sub(r"[#$]", "", first.partition("\n")[0]).strip()
        self._profile, self._shown, self._on_terminal = profile, shown, sys.stderr.isatty()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._notebook, self._before = "", 0.0
        self._log, self._read, self._cell, self._done, self._work = Path(), 0, "", 0.0, (0.0, 0.0)

    def announce(self) -> None:
        """Print what will run, and for how long."""
        total = sum(sum(own.values()) for own in self._seconds.values())
        many = "1 notebook" if len(self._seconds) == 1 else f"{len(self._seconds)} notebooks"
        about = f", about {_minutes(total)} on two cores; what is recorded is not computed again" * self._is_timed
        print(f"profile {self._profile}: {many}{about}")
        width = max(map(len, self._seconds))
        for name, own in self._seconds.items():
            time = f"{_minutes(sum(own.values())):>13}" if self._is_timed else ""
            print(f"  {name:<{width}}{time}   {self._titles[name]}".rstrip())
        sys.stdout.flush()

    def __enter__(self) -> Self:
        if self._shown:
            self.announce()
        total = sum(sum(own.values()) for own in self._seconds.values())
        self._bar = tqdm(
            total=max(total, UNTIMED),
            bar_format="{percentage:3.0f}%|{bar}| {elapsed} gone, about {remaining} left  {desc}",
            mininterval=0.5 if self._on_terminal else 60.0,
            miniters=0,
            disable=not self._shown,
        )
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._bar.close()

    @contextmanager
    def of(self, notebook: str, log: Path) -> Iterator[None]:
        """The time of one notebook, whose kernel tells in `log` what it does."""
        with self._lock:
            self._notebook, self._log, self._read = notebook, log, 0
            self._cell, self._done, self._work = "", 0.0, (0.0, 0.0)
            self._bar.set_description_str(notebook, refresh=False)
        _register_engine(self)
        try:
            yield
        finally:
            self._look()
            with self._lock:
                self._before += sum(self._seconds[notebook].values())
                self._notebook = ""
                self._move()

    def skip(self, notebook: str) -> None:
        """A notebook that need not run."""
        with self._lock:
            self._before += sum(self._seconds[notebook].values())
            self._move()

    def started(self, cell: str) -> None:
        """A cell has begun; those before it are over."""
        with self._lock:
            self._done += self._seconds[self._notebook].get(self._cell, 0.0)
            self._cell, self._work = cell, (0.0, 0.0)
            self._move()

    def _poll(self) -> None:
        while not self._stop.wait(POLL):
            self._look()

    def _look(self) -> None:
        """Show what the kernel has told since the last look."""
        with self._lock:
            if not self._notebook:
                return
            told, self._read = events(self._log, self._read)
            for event in told:
                if "file" in event and self._shown:
                    say = self._bar.write if self._on_terminal else print
                    say(f"  {event['file']}", file=sys.stdout)
                    sys.stdout.flush()
                if isinstance(event.get("work"), int | float):
                    past, now = self._work
                    if event["work"] < now:  # another bar
                        past += (1 - past) * OF_A_BAR
                    self._work = past, min(float(event["work"]), 1.0)
            self._move()

    def _move(self) -> None:
        """Move the bar, forwards only."""
        past, now = self._work
        share = past + (1 - past) * OF_A_BAR * now
        own = self._seconds.get(self._notebook, {})
        at = self._before + (self._done + own.get(self._cell, 0.0) * share if self._notebook else 0.0)
        self._bar.update(max(0.0, at - self._bar.n) if not self._bar.disable else 0)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 60 else f"{seconds / 60:.1f} minutes"


def _register_engine(progress: Progress) -> None:
    """Let papermill know its own engine as ENGINE, which then tells `progress` of each cell that begins."""
    from papermill.engines import NBClientEngine, papermill_engines

    from .kernels import ForkedKernelManager, may_fork

    class Engine(NBClientEngine):  # type: ignore[misc]
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
            begin = nb_man.cell_start

            def cell_start(cell: Any, *arguments: Any, **more: Any) -> None:
                progress.started(cell.get("id", ""))
                begin(cell, *arguments, **more)

            nb_man.cell_start = cell_start
            if may_fork():
                options["kernel_manager_class"] = ForkedKernelManager
            return super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register(ENGINE, Engine)
