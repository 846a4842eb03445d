"""Writing tables and figures: files in the figure folder, an entry in its index, and what a notebook shows."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .. import paths
from ..errors import BeftError
from ..progress import tell
from ..records.folders import explained, write_whole
from .intervals import DRAWN_FROM
from .majority import NOT_LEARNED, UNKNOWN
from .names import MISSING, model_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..settings.profiles import Settings

Sources = Sequence[Mapping[str, Any] | str]
"""The records that something was made from, or their keys."""
DPI = 130
SHOWN_DPI = 100  # pixels of a notebook's page
WIDEST = 8  # columns of a table that is shown
SPARE = ("smallest possible p", "p", "seeds")
_SEEDED = ("run", "transfer", "patch", "debias")  # kinds of records over whose seeds figures have intervals
# The ends of intervals at which `intervals.cut_interval` cuts scores in percent and Kendall's tau, as they are printed.
_AT_AN_END = re.compile(r"\[(0\.0|-100\.0|-1\.00), |, (100\.0|\+1\.00)\]")
_OF_NO_WIDTH = re.compile(r"\[(\S+), \1\]")
_TEX = str.maketrans({c: "\\" + c for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"})


class TextFrame(pd.DataFrame):
    """A frame of text that a notebook shows in full: no row numbers, no cell cut short."""

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return self.to_html(index=False, border=0)

    def __repr__(self) -> str:
        return self.to_string(index=False)


def as_text(frame: pd.DataFrame) -> TextFrame:
    """`frame` with every cell as text; one row of `not run` where it has none."""
    # Cell by cell: a column of counts with one gap would otherwise turn into floats.
    cells = [[_text(v) for v in row] for row in frame.astype(object).to_numpy()] or [[MISSING] * frame.shape[1]]
    return TextFrame(cells, columns=[str(c) for c in frame.columns], dtype=object)


def _text(value: Any) -> str:
    """A cell as text: counts with thousands separators, other numbers to four digits, `not run` for what is missing."""
    if pd.isna(value):
        return MISSING
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return model_names(str(value))


def display(*frames: pd.DataFrame) -> None:
    """Show frames in a notebook, one below the other, without writing them.

    Of comparisons with more than eight columns some are left out: the smallest possible p, then p, then the seeds.
    """
    from IPython.display import display as show

    show(*(as_text(_narrowed(frame)) for frame in frames))


def _narrowed(frame: pd.DataFrame) -> pd.DataFrame:
    spare = [column for column in SPARE if column in frame]
    return frame.drop(columns=spare[: max(0, frame.shape[1] - WIDEST)])


def _lines(frame: pd.DataFrame) -> list[list[str]]:
    return [list(frame.columns), *frame.to_numpy().tolist()]


def markdown(frame: pd.DataFrame) -> str:
    """A GitHub table of a frame of text."""
    head, *rows = ["| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in _lines(frame)]
    return "\n".join([head, "|" + " --- |" * frame.shape[1], *rows]) + "\n"


def tex(frame: pd.DataFrame, caption: str, name: str) -> str:
    """A LaTeX table (booktabs) of a frame of text."""
    head, *rows = [" & ".join(c.translate(_TEX) for c in line) + r" \\" for line in _lines(frame)]
    start = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{'l' * frame.shape[1]}}}", r"\toprule"]
    end = [rf"\caption{{{caption.translate(_TEX)}}}", rf"\label{{tab:{name}}}", r"\end{table}"]
    return "\n".join([*start, head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", *end]) + "\n"


def full_caption(caption: str, s: Settings, measured: bool = True, records: Sources = ()) -> str:
    """The caption with the note that names a stand-in model or generated data, where `measured` on one.

    A table over cells may hold generated text beside a real main task: then its records say so.
    """
    note = s.substitute_note if measured else ""
    if not note and any(not isinstance(r, str) and r["data"].get("substitute") for r in records):
        note = "(Substitute: some of it is generated micro-world text.)"
    return model_names(f"{caption.rstrip()} {note}".rstrip())


def _notes(table: pd.DataFrame, caption: str) -> str:
    """What a caption must add: which Student t intervals are cut, which scores are not learned, or not known to be."""
    notes = []
    if "Student t" in caption and table.map(_is_cut).to_numpy().any():
        notes.append("Intervals are cut where a score can go no further.")
    if table.map(lambda text: NOT_LEARNED in text).to_numpy().any():
        notes.append("Not learned: the mean is at or below the score of the most frequent answer for every row.")
    if "majority" in table and (table["majority"] == UNKNOWN).any():
        notes.append("Majority unknown: no record of these rows holds it, so nothing is marked there.")
    return " ".join(notes)


def _is_cut(text: str) -> bool:
    return bool(_AT_AN_END.search(_OF_NO_WIDTH.sub("", text)))


def _seeds(records: Sources) -> list[int]:
    """How many of these runs there are of each kind: alike but for the seed."""
    runs = [{**r["settings"]} for r in records if not isinstance(r, str) and r["kind"] in _SEEDED]
    seeds: dict[str, set[Any]] = {}
    for settings in runs:
        seed = settings.pop("seed", None)
        settings.pop("patch", None)  # the key of the frozen patch, which is of the same seed
        seeds.setdefault(json.dumps(settings, sort_keys=True), set()).add(seed)
    return [len(those) for those in seeds.values()]


def _not_drawn(records: Sources) -> str:
    """What a caption that speaks of Student t intervals must add where some are over too few seeds to be drawn."""
    few = {n for n in _seeds(records) if n < DRAWN_FROM}
    if not few:
        return ""
    if few == {1}:
        return "Where there is one seed, there is no interval."
    only = " (of one seed there is none)" if 1 in few else ""
    return f"Where there are fewer than five seeds, they are drawn without an interval; the tables have it{only}."


def save_table(
    frame: pd.DataFrame,
    s: Settings,
    name: str,
    caption: str,
    records: Sources = (),
    measured: bool = True,
    shown: Sequence[str] = (),
) -> None:
    """Write a table to the figure folder as csv, md and tex, enter it in the index, show it with its caption.

    Args:
        frame: the table; a missing value is written as `not run`.
        s: the notebook's settings (folder, command, note on stand-ins).
        name: file name without an ending.
        caption: one or two sentences.
        records: the records the numbers come from, or their keys.
        measured: on the profile's model or data; False for what needs neither.
        shown: the columns that a notebook shows, those of them that the table has; the files have all.
    """
    table = as_text(frame)
    caption = full_caption(f"{caption.rstrip()} {_notes(table, caption)}".rstrip(), s, measured, records)
    texts = {
        f"{name}.csv": table.to_csv(index=False, lineterminator="\n"),
        f"{name}.md": f"{markdown(table)}\n{caption}\n",
        f"{name}.tex": tex(table, caption, name),
    }
    with explained(f"the folder of figures {s.figures}"):
        for file, text in texts.items():
            write_whole(s.figures / file, text)
        _register(s, "table", name, caption, list(texts), records)
    _tell(s.figures / f"{name}.md")
    columns = [column for column in shown if column in table] or list(table.columns)
    rest = len(table.columns) - len(columns)
    more = f" {rest} more {'column' if rest == 1 else 'columns'} in {name}.md." if rest else ""
    _show(as_text(table[columns]), f"**{name}.** {caption}{more}")


def save_figure(
    fig: Figure, s: Settings, name: str, caption: str, records: Sources = (), measured: bool = True
) -> None:
    """Write `name.pdf` and `name.png` into the figure folder, enter them in its index, show it with its caption.

    The caption ends with the note that names a stand-in model or generated data. The files carry no date and no
    host, so the same records give the same bytes. The arguments are those of `save_table`.
    """
    import matplotlib.pyplot as plt

    from .style import RC

    note = _not_drawn(records) if "Student t" in caption else ""
    caption = full_caption(f"{caption.rstrip()} {note}".rstrip(), s, measured, records)
    pdf, png = f"{name}.pdf", f"{name}.png"
    with explained(f"the folder of figures {s.figures}"), plt.rc_context(RC):
        s.figures.mkdir(parents=True, exist_ok=True)
        fig.savefig(s.figures / png, dpi=DPI, metadata={"Software": None})
        fig.set_layout_engine("none")  # the layout stands; finding it again would take as long as drawing
        fig.savefig(s.figures / pdf, metadata={"CreationDate": None, "Creator": None, "Producer": None})
        _register(s, "figure", name, caption, [pdf, png], records)
    plt.close(fig)
    _tell(s.figures / png)
    _show(_picture(s.figures / png), f"**{name}.** {caption}")


def _tell(file: Path) -> None:
    """Tell whoever runs this notebook of a new file, by its path below the folder of all results."""
    tell(file=str(file.relative_to(paths.home()) if file.is_relative_to(paths.home()) else file))


def _picture(png: Path) -> object:
    """What a notebook shows of a figure: the file, not a drawing of its own, at the size that it has on paper."""
    from IPython.display import Image

    data = png.read_bytes()
    return Image(data, format="png", width=round(int.from_bytes(data[16:20], "big") * SHOWN_DPI / DPI))  # type: ignore[no-untyped-call]


def _show(thing: object, caption: str) -> None:
    """A figure or table in a notebook, its caption below; nothing outside of one."""
    from IPython import get_ipython
    from IPython.display import Markdown, display

    if get_ipython() is not None:  # type: ignore[no-untyped-call]
        display(thing, Markdown(caption))  # type: ignore[no-untyped-call]


def _command(s: Settings, records: Sources) -> str:
    """The notebook's command, with the folder of real tasks in front where rows of one were read."""
    sources = {str((r.get("data") or {}).get("source")) for r in records if not isinstance(r, str)}
    return f"BEFT_DATA=FOLDER {s.command}" if any(x.startswith("data folder") for x in sources) else s.command


def _register(s: Settings, kind: str, name: str, caption: str, files: list[str], records: Sources) -> None:
    """Put one figure or table into `index.json`, the list that ties each file to its command and records."""
    path = s.figures / "index.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except ValueError as error:
        raise BeftError(f"{path} is not valid JSON: move it away and run the notebooks of this folder again") from error
    entry: dict[str, Any] = {"name": name, "kind": kind, "notebook": s.notebook, "caption": caption}
    entry |= {"files": files, "command": _command(s, records)}
    entry |= {"records": sorted({r if isinstance(r, str) else str(r["key"]) for r in records})}
    if not entry["records"]:
        entry["measured"] = f"in notebook {s.notebook} itself, by the cell that saves it: no run is behind it"
    place = operator.itemgetter("notebook", "kind", "name")
    entries = sorted([*(e for e in entries if place(e) != place(entry)), entry], key=place)
    write_whole(path, json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
