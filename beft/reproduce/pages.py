"""README and the pages of docs/, written from docs/templates/ and the tables that the notebooks left in figures/.

A template is Markdown with places for numbers: `{{ value("laptop/table3", "b_v", task="sst2") }}` is the text of a cell
of a saved table, `{{ value(...) | mean }}` its mean alone, `{{ table("laptop/table3", ["task", "b_v"]) }}` the table or
some of its columns with its caption, `{{ paper("bert-base-cased", "sst2", "b_v") }}` a number that the paper prints,
`{{ bench("steps") }}` what a benchmark wrote, `{{ printed("00_quickstart", "beft.tune(") }}` what a cell of a saved
notebook printed, `{{ recorded("tests/data/swap_errors.json", "seen") }}` an entry of a JSON file,
`{{ minutes("embedded", "03_fine_tuning") }}` the minutes that notebooks took when their profile was timed, and
`{{ buttons("00_quickstart") }}` what opens a notebook in Binder and Colab, where the repository has an address.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from .. import paper as the_paper
from .. import paths
from ..errors import BeftError, reason_of, unknown
from ..records.folders import explained, write_whole
from ..report.write import as_text, markdown
from .notebooks import read
from .progress import timed

TEMPLATES = Path("docs/templates")
README = "README.md"
NOTE = "<!-- Written by `make publish` from {} and the tables in figures/: change it there. -->\n"


@dataclass(frozen=True)
class Tables:
    """The tables below a folder of figures, as templates ask for them; each name is "profile/table"."""

    folder: Path

    def frame(self, name: str) -> pd.DataFrame:
        """A saved table, every cell as its text. Raises BeftError: it has not been made."""
        path = self.folder / f"{name}.csv"
        if not path.exists():
            raise BeftError(
                f"{path.name} is not in {path.parent}: run the notebooks of profile {path.parent.name} first"
            )
        with explained(f"the table {path}"):
            return pd.read_csv(path, dtype=str, keep_default_na=False)

    def rows(self, name: str, where: Mapping[str, str]) -> pd.DataFrame:
        """The rows whose columns hold these texts. Raises BeftError: no such column, or no such row."""
        frame = self.frame(name)
        for column, text in where.items():
            if column not in frame:
                raise unknown(f"column of {name}", column, list(frame.columns))
            if text not in set(frame[column]):
                raise unknown(f"{column} in {name}", text, list(frame[column].unique()))
            frame = frame[frame[column] == text]
        return frame

    def value(self, name: str, column: str, **where: str) -> str:
        """The text of one cell. Raises BeftError: no such column, no such row, or more than one."""
        frame = self.rows(name, where)
        if column not in frame:
            raise unknown(f"column of {name}", column, list(frame.columns))
        if len(frame) != 1:
            raise BeftError(f"{name} has {len(frame)} rows with {where}: name one")
        return str(frame[column].iloc[0])

    def table(self, name: str, columns: Sequence[str] = (), **where: str) -> str:
        """A table as Markdown with its caption below: all columns or these, all rows or those with these texts."""
        frame = self.rows(name, where)
        for column in columns:
            if column not in frame:
                raise unknown(f"column of {name}", column, list(frame.columns))
        caption = (self.folder / f"{name}.md").read_text(encoding="utf-8").strip().rpartition("\n\n")[2]
        return f"{markdown(as_text(frame[list(columns) or list(frame.columns)]))}\n{caption}"

    def bench(self, name: str) -> str:
        """What a benchmark wrote: its table, its targets, and the machine. Raises BeftError: it was not run."""
        path = self.folder / "bench" / f"{name}.md"
        if not path.exists():
            raise BeftError(f"{path.name} is not in {path.parent}: run `make bench-{name}` first")
        return path.read_text(encoding="utf-8").strip()


def mean(text: str) -> str:
    """The mean of "89.3 [87.4, 91.1]": what stands in front of the interval. Raises BeftError: it is no number."""
    first = text.split()[0].rstrip(",") if text.split() else ""
    if not re.fullmatch(r"[+-]?[\d,]*\.?\d+%?", first):
        raise BeftError(f"{text!r} does not begin with a number")
    return first


def paper(model: str, task: str, method: str) -> str:
    """What the paper prints for a method of a model on a task, in percent. Raises BeftError: nothing."""
    for result in the_paper.data()["results"]:
        if (result["model"], result["task"]) == (model, task) and method in result["percent"]:
            return f"{result['percent'][method]:.1f}"
    raise BeftError(f"the paper prints no {method} of {model} on {task}")


def printed(notebook: str, source: str) -> str:
    """What the first cell of a saved notebook that has this in its source printed. Raises BeftError: no such cell."""
    path = paths.repository() / "notebooks" / f"{notebook}.ipynb"
    for cell in read(path).cells:
        if cell.cell_type == "code" and source in cell.source:
            return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout").strip()
    raise BeftError(f"no cell of {path.name} has {source!r} in it")


def recorded(file: str, *keys: str) -> Any:
    """The entry of a JSON file of the repository below these keys. Raises BeftError: no such file or entry."""
    path = paths.repository() / file
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BeftError(f"{file} cannot be read, {reason_of(error)}: restore it with git") from error
    for key in keys:
        if key not in content:
            raise unknown(f"entry of {file}", key, list(content))
        content = content[key]
    return content


def minutes(profile: str, *notebooks: str) -> int:
    """The minutes, to the next whole one, that these notebooks took when the profile was timed; without names, all.

    Raises BeftError: the profile was not timed, or not with that notebook.
    """
    known = timed().get(profile, {})
    for name in notebooks or [""] * (not known):
        if name not in known:
            raise unknown(f"timed notebook of {profile}", name, list(known))
    return math.ceil(sum(sum(known[name].values()) for name in notebooks or known) / 60)


def buttons(notebook: str) -> str:
    """Buttons that open a notebook in Binder and Colab; "" where CITATION.cff has no `repository-code` on GitHub.

    Raises BeftError: a CITATION.cff that cannot be read.
    """
    path = paths.repository() / "CITATION.cff"
    try:
        address = str((yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("repository-code", ""))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BeftError(f"{path.name} cannot be read, {reason_of(error)}: restore it with git") from error
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", address)
    if found is None:
        return ""
    binder = f"https://mybinder.org/v2/gh/{found[1]}/main?labpath=notebooks%2F{notebook}.ipynb"
    colab = f"https://colab.research.google.com/github/{found[1]}/blob/main/notebooks/{notebook}.ipynb"
    return (
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder}) "
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})\n\n"
    )


def rendered() -> dict[Path, str]:
    """Each page (path in the repository) -> its text; none without a folder of templates.

    Raises BeftError: a table that a page shows is missing, or a template asks for what is not in it.
    """
    folder, tables = paths.repository() / TEMPLATES, Tables(paths.home() / "figures")
    loader = jinja2.FileSystemLoader(folder)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.globals |= {"value": tables.value, "table": tables.table, "bench": tables.bench}
    environment.globals |= {"paper": paper, "printed": printed, "recorded": recorded, "buttons": buttons}
    environment.globals |= {"minutes": minutes}
    environment.filters["mean"] = mean
    pages = {}
    for template in sorted(folder.glob("*.md")):
        page = paths.repository() / (README if template.name == README else f"docs/{template.name}")
        try:
            text = environment.get_template(template.name).render()
        except jinja2.TemplateError as error:
            line = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
            raise BeftError(f"{TEMPLATES / template.name}{line}: {error}") from error
        except BeftError as error:
            raise BeftError(f"{TEMPLATES / template.name}: {error}") from error
        pages[page] = NOTE.format((TEMPLATES / template.name).as_posix()) + text
    return pages


def write_pages() -> list[Path]:
    """Write the pages whose text has changed, all or none; return them. Raises BeftError as `rendered`."""
    pages = rendered()
    changed = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in changed:
        with explained(f"the page {os.path.relpath(path)}"):
            write_whole(path, pages[path])
    return changed
