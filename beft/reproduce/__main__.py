"""Run the notebooks under a profile, strictly: `python -m beft.reproduce --profile embedded`. Or publish them, make
the website of their outputs, or keep the times that their cells took.

An unknown parameter, a notebook without its `parameters` cell and one that stops early are errors; see `run`.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import Any

from .. import paths
from ..errors import BeftError, exit_status
from ..settings.profiles import DEFAULT_PROFILE
from .notebooks import publish_outputs
from .pages import write_pages
from .run import Result, reproduce

INTERRUPTED = "finished runs are kept, the same command resumes"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status: 0, 1 (something failed), 2 (nothing was run), 130 (interrupted)."""
    parser = argparse.ArgumentParser(prog="python -m beft.reproduce", description=__doc__, allow_abbrev=False)
    option = parser.add_argument
    option("action", nargs="?", choices=("run", "publish", "pages", "site", "times"), default="run")
    option("--publish", action="store_const", dest="action", const="publish", help="the same as the action")
    option("--profile", help=f"default: {DEFAULT_PROFILE}; of the site, the profile that is committed")
    option("--only", action="append", default=[], metavar="NOTEBOOK")
    option("-p", action="append", default=[], nargs=2, metavar=("NAME", "VALUE"), dest="parameters")
    option("--again", action="store_true", help="run notebooks too for which nothing has changed since they ran")
    option("--scheduler", metavar="ADDRESS", help="tcp://host:8786 of a Dask cluster, or local:N")
    options = parser.parse_args(arguments)
    action = {"run": _reproduce, "publish": _publish, "pages": _pages, "site": _site, "times": _times}[options.action]
    return exit_status(lambda: action(options), INTERRUPTED)


def _publish(options: argparse.Namespace) -> int:
    if options.parameters:
        raise BeftError("publish takes no -p: it publishes what a run of the plain profile left in build/")
    profile = options.profile or DEFAULT_PROFILE
    for path in publish_outputs(profile, options.only):
        print(f"published {path.name} with the outputs of profile {profile}")
    return _pages(options)


def _pages(_: argparse.Namespace) -> int:
    for path in write_pages():
        print(f"wrote {path.relative_to(paths.repository())}")
    return 0


def _site(options: argparse.Namespace) -> int:
    from .website import build

    if options.parameters or options.only or options.scheduler:
        raise BeftError("site takes no -p, --only or --scheduler: it shows all that is saved of a profile")
    folder = build.build(options.profile or build.PROFILE)
    print(f"site: {folder / 'index.html'}")
    return 0


def _times(options: argparse.Namespace) -> int:
    from .progress import write_seconds

    print(f"wrote {write_seconds(options.profile or DEFAULT_PROFILE).relative_to(paths.repository())}")
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    parameters = {name: _value(text) for name, text in options.parameters}
    profile, how = options.profile or DEFAULT_PROFILE, {"scheduler": options.scheduler, "again": options.again}
    results = reproduce(profile, options.only, parameters, **how)
    print(summary(results))
    for result in [result for result in results if result.failure is not None]:
        print(f"{result.notebook}: {result.failure}", file=sys.stderr)
    return 1 if any(result.failed for result in results) else 0


def summary(results: Sequence[Result]) -> str:
    """The closing table: notebook, minutes, figures, tables, runs done / reused / failed, outcome."""
    rows = [("notebook", "minutes", "figures", "tables", "runs done / reused / failed", "outcome")]
    for r in results:
        runs = f"{r.runs['done']} / {r.runs['reused']} / {r.runs['failed']}"
        counts = f"{r.seconds / 60:.1f}", str(r.figures), str(r.tables), runs
        rows.append((r.notebook, *counts, "failed" if r.failed else "unchanged" if r.unchanged else "ok"))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows)


def _value(text: str) -> Any:
    """A value of the command line, read as papermill's own -p reads it; lists stay text for `settings`."""
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(text)
    return text


if __name__ == "__main__":
    sys.exit(main())
