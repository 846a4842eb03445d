"""Run the notebooks under a profile, strictly.

papermill only warns about a parameter that no cell declares and about a missing `parameters` cell, and takes
`sys.exit(0)` in a cell for success, with the later cells unrun. Here all three are errors.
"""

import contextlib
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import paths
from ..errors import BeftError, unknown
from ..progress import RUN_LOG, count_runs
from ..settings import profiles as settings
from ..settings.parameters import NOTEBOOKS
from ..study import plain
from .notebooks import find, incomplete, parameter_names, read
from .unchanged import made_from, runs_of_unchanged, write_stamp

if TYPE_CHECKING:
    from .progress import Progress

FIRST = "03_fine_tuning"
"""The notebook with the main figure, which is run first."""
SCHEDULER = "BEFT_SCHEDULER"
"""Environment variable: where `sweep` trains; see `sweep.run_all`."""


@dataclass
class Result:
    """The outcome of one notebook.

    Attributes:
        notebook: its name without ".ipynb".
        figures, tables: how many of the index of figures and tables are from it.
        runs: numbers of runs done, reused and failed.
        failure: why it failed, one sentence, or None.
        unchanged: whether it was left as it was, since nothing has changed that it is made from.
    """

    notebook: str
    seconds: float = 0.0
    figures: int = 0
    tables: int = 0
    runs: dict[str, int] = field(default_factory=lambda: {"done": 0, "reused": 0, "failed": 0})
    failure: str | None = None
    unchanged: bool = False

    @property
    def failed(self) -> bool:
        """Whether the notebook, or one of its runs, failed."""
        return self.failure is not None or self.runs["failed"] > 0


def reproduce(
    profile: str,
    only: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    progress: bool = True,
    scheduler: str | None = None,
    again: bool = True,
) -> list[Result]:
    """Execute the notebooks, into build/<profile>/; one that fails does not stop the others.

    Their order is that of their names, but for the one with the main figure, which is the first.

    Args:
        profile: name of a profile.
        only: names of notebooks; empty for all.
        parameters: values for the `parameters` cells. A notebook that does not declare one runs without it; one that
            no selected notebook declares is an error.
        progress: print what will come and each file as it appears, and show one bar over all notebooks.
        scheduler: a Dask scheduler whose workers train, or "local:N"; see `sweep.run_all`.
        again: False leaves a notebook of an offline profile as it is where nothing has changed (`unchanged`).

    Raises BeftError: unknown profile, notebook or parameter, a bad value, or a notebook without its `parameters` cell;
    nothing has run then.
    """
    if not isinstance(parameters, Mapping | None) or not all(isinstance(name, str) for name in parameters or ()):
        raise BeftError(f"parameters {parameters!r} are no dict: give values by name, e.g. {{'epochs': 3}}")
    if not isinstance(scheduler, str | None):
        raise BeftError(f"scheduler {scheduler!r} is not an address: give tcp://host:port, or local:N")
    offline = settings.read_profile(profile).get("common", {}).get("offline", False)
    plan = _plan(profile, only, plain(dict(parameters or {})))  # papermill writes them as code
    results = []
    if scheduler:
        from ..experiments.cluster import reach

        reach(scheduler)
    from .progress import Progress

    with _kernel(offline, scheduler), Progress(profile, [source for source, _, _ in plan], progress) as shown:
        for source, values, figures in plan:
            result = None if again or parameters or not offline else _left(source, profile, figures, shown)
            if result is None:
                origin = made_from(source, profile)  # now: what is edited while it runs is not what it was made from
                result = _run(source, values, figures, shown)
                if offline and not parameters and not result.failed:
                    with contextlib.suppress(OSError):  # a stamp only saves time
                        write_stamp(source, profile, figures, sum(result.runs.values()), origin)
            if result.failure is not None:
                print(f"{result.notebook} failed: {result.failure}", file=sys.stderr, flush=True)
            results.append(result)
    return results


def _plan(profile: str, only: Sequence[str], parameters: Mapping[str, Any]) -> list[tuple[Path, dict[str, Any], Path]]:
    """Each notebook to run, the parameters it takes and the folder of its figures and tables.

    Everything that can be refused before a notebook runs is refused here.
    """
    declared = {path: parameter_names(path) for path in find(paths.repository() / "notebooks", only)}
    paths.check_folder(paths.home() / "build" / profile, "folder of executed notebooks")
    if "profile" in parameters:
        raise BeftError("profile is given twice: use --profile NAME instead of -p profile NAME")
    names = list(dict.fromkeys(itertools.chain(*declared.values())))
    for name in parameters:
        if name not in names:
            where = next(iter(declared)).stem if len(declared) == 1 else "the notebooks"
            raise unknown(f"parameter of {where}", name, names)
    plan = []
    for source, own in sorted(declared.items(), key=lambda item: item[0].stem != FIRST):
        for name in [name for name in parameters if name not in own]:
            print(f"{source.stem} has no parameter {name}: it runs without it", flush=True)
        values = {"profile": profile} | {name: value for name, value in parameters.items() if name in own}
        known = source.stem in NOTEBOOKS
        figures = settings.load(source.stem, values).figures if known else paths.home() / "figures" / profile
        plan.append((source, values, figures))
    return plan


def _left(source: Path, profile: str, figures: Path, shown: "Progress") -> Result | None:
    """The result of a notebook that need not run; None where it has to."""
    runs = runs_of_unchanged(source, profile)
    if runs is None:
        return None
    shown.skip(source.stem)
    result = Result(source.stem, runs={"done": 0, "reused": runs, "failed": 0}, unchanged=True)
    _count(result, figures)
    return result


def _count(result: Result, figures: Path) -> None:
    """Put the numbers of figures and tables into a result."""
    made = [kind for notebook, kind in _index(figures / "index.json") if notebook == result.notebook]
    result.figures, result.tables = made.count("figure"), made.count("table")


def _run(source: Path, parameters: dict[str, Any], figures: Path, progress: "Progress") -> Result:
    """Execute one notebook. A failure is in the result, not raised."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from .progress import ENGINE

    place = f"build/{parameters['profile']}/{source.name}"
    target = paths.home() / place
    log = target.with_suffix(".runs.jsonl")
    result = Result(source.stem)
    start = time.monotonic()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        with _environment({RUN_LOG: str(log)}), progress.of(source.stem, log):
            options = {"kernel_name": "python3", "language": "python", "request_save_on_cell_execute": True}
            papermill.execute_notebook(source, target, parameters, engine_name=ENGINE, progress_bar=False, **options)
        result.failure = incomplete(read(target))
    except PapermillExecutionError as error:
        name, message = str(error.ename).rsplit(".", 1)[-1], str(error.evalue).strip() or "no message"
        result.failure = message
        if name != BeftError.__name__:  # whose message is already a sentence for the user
            result.failure = f"{name}: {message} (cell [{error.exec_count}] of {place})"
    except Exception as error:  # the kernel died, the disk is full: the other notebooks still run
        result.failure = f"{type(error).__name__}: {error}"
    result.seconds = time.monotonic() - start
    result.runs = count_runs(log)
    with contextlib.suppress(OSError):
        log.unlink(missing_ok=True)
    _count(result, figures)
    return result


def _index(path: Path) -> list[tuple[str, str]]:
    """(notebook, "figure" or "table") of each entry of the index of figures and tables; none where there is none."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return [(entry["notebook"], entry["kind"]) for entry in json.loads(path.read_text(encoding="utf-8"))]
    return []


@contextlib.contextmanager
def _kernel(offline: bool, scheduler: str | None = None) -> Iterator[None]:
    """The environment of the kernels: this interpreter and package, and offline no library that waits for a network.

    `python3` is this interpreter, whatever kernels the user or the system has under that name.
    """
    from ipykernel.kernelspec import write_kernel_spec

    with tempfile.TemporaryDirectory() as folder:
        # At this level the log leaves out warnings about transport and the traceback of a kernel that is interrupted.
        # What a notebook prints does not depend on it.
        write_kernel_spec(str(Path(folder) / "kernels" / "python3"), extra_arguments=["--log-level=CRITICAL"])
        values = {"TOKENIZERS_PARALLELISM": "false"}
        for variable, first in (("JUPYTER_PATH", folder), ("PYTHONPATH", str(paths.ROOT))):
            values[variable] = os.pathsep.join(filter(None, [first, os.environ.get(variable)]))
        if offline:
            values |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        if scheduler:
            values[SCHEDULER] = scheduler
        with _environment(values):
            yield


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the time of a block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
