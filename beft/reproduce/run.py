"""Run the notebooks under a profile, strictly: `python -m beft.reproduce --profile embedded`.

papermill only warns about a parameter that no cell declares and about a missing `parameters` cell, and takes
`sys.exit(0)` in a cell for success, with the later cells unrun. Here all three are errors.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import paths
from ..errors import BeftError, exit_status, unknown
from ..settings import profiles as settings
from ..settings.parameters import NOTEBOOKS
from .notebooks import find, incomplete, parameter_names, read

RUN_LOG = "BEFT_RUN_LOG"
"""Environment variable: a file to which `sweep` appends one line {"done": n, "reused": n, "failed": n} per sweep."""

SCHEDULER = "BEFT_SCHEDULER"
"""Environment variable: where `sweep` trains; see `sweep.run_all`."""

INTERRUPTED = "finished runs are kept, the same command resumes"


@dataclass
class Result:
    """What became of one notebook.

    Attributes:
        notebook: its name without ".ipynb".
        seconds: how long it ran.
        figures, tables: how many the profile's index has from it.
        runs: numbers of runs done, reused and failed.
        problem: why it failed, one sentence, or None.
    """

    notebook: str
    seconds: float = 0.0
    figures: int = 0
    tables: int = 0
    runs: dict[str, int] = field(default_factory=lambda: {"done": 0, "reused": 0, "failed": 0})
    problem: str | None = None

    @property
    def failed(self) -> bool:
        return self.problem is not None or self.runs["failed"] > 0


def reproduce(
    profile: str,
    only: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    progress: bool = True,
    scheduler: str | None = None,
) -> list[Result]:
    """Execute the notebooks in order; one that fails does not stop the others.

    Args:
        profile: name of a profile.
        only: names of notebooks; empty for all.
        parameters: values for the `parameters` cells. A notebook that does not declare one runs without it; one that
            no selected notebook declares is an error.
        progress: show papermill's progress bar.
        scheduler: a Dask scheduler whose workers train, or "local:N"; see `sweep.run_all`.

    Returns:
        One result per notebook. The executed notebooks are in build/<profile>/.

    Raises:
        BeftError: unknown profile, notebook or parameter, a bad value, or a notebook without its `parameters` cell;
            nothing has run then.
    """
    values = settings.read_profile(profile)
    offline = bool(values.get("common", {}).get("offline", False))
    plan = _plan(profile, only, parameters or {})
    results = []
    if scheduler:
        from ..experiments.cluster import reach

        reach(scheduler)
    with _kernel(), _environment(offline), _set(**({SCHEDULER: scheduler} if scheduler else {})):
        for source, given in plan:
            print(f"{source.stem}: running under profile {profile}", flush=True)
            result = _run(source, profile, given, progress)
            if result.problem is not None:
                print(f"{result.notebook} failed: {result.problem}", file=sys.stderr, flush=True)
            results.append(result)
    return results


def _plan(
    profile: str, only: Sequence[str], parameters: Mapping[str, Any]
) -> list[tuple[Path, dict[str, Any]]]:
    """Each notebook to run and the parameters it takes; everything that can be refused before running is."""
    sources = find(paths.repository() / "notebooks", only)
    declared = {source: parameter_names(source) for source in sources}
    if "profile" in parameters:
        raise BeftError("profile is given twice: use --profile NAME instead of -p profile NAME")
    for name in parameters:
        if not any(name in names for names in declared.values()):
            where = sources[0].stem if len(sources) == 1 else "the notebooks"
            raise unknown(
                f"parameter of {where}", name, dict.fromkeys(n for d in declared.values() for n in d)
            )
    plan = []
    for source, names in declared.items():
        given = {n: v for n, v in parameters.items() if n in names}
        for name in parameters.keys() - given.keys():
            print(f"{source.stem} has no parameter {name}: it runs without it", flush=True)
        if source.stem in NOTEBOOKS:
            settings.load(source.stem, {"profile": profile, **given})
        plan.append((source, {"profile": profile, **given}))
    return plan


def _run(source: Path, profile: str, given: dict[str, Any], progress: bool) -> Result:
    """Execute one notebook; a failure is in the result, not raised."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    target = paths.home() / "build" / profile / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    result = Result(source.stem)
    log = target.with_suffix(".runs.jsonl")
    log.unlink(missing_ok=True)
    os.environ[RUN_LOG] = str(log)
    start = time.monotonic()
    try:
        papermill.execute_notebook(
            source,
            target,
            given,
            kernel_name="python3",
            language="python",
            progress_bar=progress,
            request_save_on_cell_execute=True,
        )
        result.problem = incomplete(read(target))
    except PapermillExecutionError as error:
        name = str(error.ename).rsplit(".", 1)[-1]
        text = str(error.evalue).strip() or "no message"
        # A BeftError is already a sentence for the user; anything else needs its name and place.
        place = (
            ""
            if name == BeftError.__name__
            else f" (cell [{error.exec_count}] of build/{profile}/{source.name})"
        )
        result.problem = text if name == BeftError.__name__ else f"{name}: {text}{place}"
    except Exception as error:  # the kernel died, the disk is full: the other notebooks still run
        result.problem = f"{type(error).__name__}: {error}"
    result.seconds = time.monotonic() - start
    _count(result, log, _figures(source.stem, given))
    log.unlink(missing_ok=True)
    return result


def _figures(notebook: str, given: Mapping[str, Any]) -> Path:
    """The folder this notebook writes its figures and tables to."""
    if notebook in NOTEBOOKS:
        return settings.load(notebook, given).figures
    return paths.home() / "figures" / str(given["profile"])


def _count(result: Result, log: Path, figures: Path) -> None:
    """Fill in the numbers of runs from the kernel's log and of figures and tables from their index."""
    if log.exists():
        for line in log.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # a kernel killed while writing leaves half a line
                for name, number in json.loads(line).items():
                    result.runs[name] = result.runs.get(name, 0) + int(number)
    index = figures / "index.json"
    if index.exists():
        entries = [
            e for e in json.loads(index.read_text(encoding="utf-8")) if e["notebook"] == result.notebook
        ]
        result.figures = sum(e["kind"] == "figure" for e in entries)
        result.tables = sum(e["kind"] == "table" for e in entries)


@contextlib.contextmanager
def _kernel() -> Iterator[None]:
    """Let `python3` be this interpreter, whatever kernels the user or the system has under that name."""
    from ipykernel.kernelspec import write_kernel_spec

    with tempfile.TemporaryDirectory() as folder:
        # Folders of JUPYTER_PATH are searched first. What a notebook prints is not touched by the level of the log,
        # which holds warnings about transport and, at every interrupt, a traceback of the kernel's own shutdown.
        quiet = ["--log-level=CRITICAL"]
        write_kernel_spec(str(Path(folder) / "kernels" / "python3"), extra_arguments=quiet)
        path = os.pathsep.join(filter(None, [folder, os.environ.get("JUPYTER_PATH")]))
        with _set(JUPYTER_PATH=path):
            yield


@contextlib.contextmanager
def _environment(offline: bool) -> Iterator[None]:
    """What the kernels inherit: this package, and under an offline profile no library that waits for a network."""
    python_path = os.pathsep.join(filter(None, [str(paths.ROOT), os.environ.get("PYTHONPATH")]))
    values = {"PYTHONPATH": python_path, "TOKENIZERS_PARALLELISM": "false", RUN_LOG: ""}
    if offline:
        values |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    with _set(**values):
        yield


@contextlib.contextmanager
def _set(**values: str) -> Iterator[None]:
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


def summary(results: Sequence[Result]) -> str:
    """The closing table: notebook, minutes, figures, tables, runs done / reused / failed, outcome."""
    rows = [("notebook", "minutes", "figures", "tables", "runs done / reused / failed", "outcome")]
    for r in results:
        runs = f"{r.runs['done']} / {r.runs['reused']} / {r.runs['failed']}"
        outcome = "failed" if r.failed else "ok"
        rows.append((r.notebook, f"{r.seconds / 60:.1f}", str(r.figures), str(r.tables), runs, outcome))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows)


def _value(text: str) -> Any:
    """A value from the command line, read as papermill's own -p reads it; lists stay text for `settings`."""
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status: 0, 1 (something failed), 2 (nothing was run), 130 (interrupted)."""
    parser = argparse.ArgumentParser(prog="python -m beft.reproduce", description=__doc__, allow_abbrev=False)
    parser.add_argument("action", nargs="?", choices=("run", "publish"), default="run")
    parser.add_argument(
        "--publish", action="store_const", dest="action", const="publish", help="the same as the action"
    )
    parser.add_argument("--profile", default=settings.DEFAULT_PROFILE)
    parser.add_argument("--only", action="append", default=[], metavar="NOTEBOOK")
    parser.add_argument(
        "-p", action="append", default=[], nargs=2, metavar=("NAME", "VALUE"), dest="parameters"
    )
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="tcp://host:8786 of a Dask cluster, or local:N"
    )
    given = parser.parse_args(arguments)
    return exit_status(
        lambda: _publish(given) if given.action == "publish" else _reproduce(given), INTERRUPTED
    )


def _publish(given: argparse.Namespace) -> None:
    from .publish import publish

    if given.parameters:
        raise BeftError("publish takes no -p: it publishes what a run of the plain profile left in build/")
    for path in publish(given.profile, given.only):
        print(f"published {path.name} with the outputs of profile {given.profile}")


def _reproduce(given: argparse.Namespace) -> int:
    values = {name: _value(value) for name, value in given.parameters}
    results = reproduce(given.profile, given.only, values, scheduler=given.scheduler)
    print(summary(results))
    for result in results:
        if result.problem is not None:
            print(f"{result.notebook}: {result.problem}", file=sys.stderr)
    return 1 if any(result.failed for result in results) else 0
