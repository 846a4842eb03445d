"""Tables: read from records, written as csv, md and tex, and entered in the index of figures and tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ... import paper
from ...records.folders import write_whole
from .. import intervals as statistics
from .. import readings
from ..readings import MISSING, method_name

if TYPE_CHECKING:
    from ...settings.profiles import Settings

_TEX = str.maketrans(
    {c: "\\" + c for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
)


def _text(value: object) -> str:
    """A cell as text: counts with thousands separators, other numbers to four digits, `not run` for what is missing."""
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA:
        return MISSING
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return str(value)


class Shown(pd.DataFrame):
    """A frame of text that a notebook shows in full: no row numbers, no cell cut short."""

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return self.to_html(index=False, border=0)

    def __repr__(self) -> str:
        return self.to_string(index=False)


def display(frame: pd.DataFrame) -> Shown:
    """`frame` with every cell as text, ready to be shown."""
    # cell by cell: a column of counts with one gap would otherwise turn into floats
    cells = [[_text(v) for v in row] for row in frame.astype(object).to_numpy()]
    cells = cells or [[MISSING] * frame.shape[1]]
    return Shown(cells, columns=[str(c) for c in frame.columns], dtype=object)


def markdown(frame: pd.DataFrame) -> str:
    """A GitHub table of a frame of text."""
    escaped = [
        [c.replace("|", "\\|") for c in row] for row in [list(frame.columns), *frame.to_numpy().tolist()]
    ]
    lines = ["| " + " | ".join(row) + " |" for row in escaped]
    return "\n".join([lines[0], "|" + " --- |" * len(frame.columns), *lines[1:]]) + "\n"


def tex(frame: pd.DataFrame, caption: str, name: str) -> str:
    """A LaTeX table (booktabs) of a frame of text."""
    rows = [" & ".join(c.translate(_TEX) for c in row) + r" \\" for row in frame.to_numpy().tolist()]
    head = " & ".join(c.translate(_TEX) for c in frame.columns) + r" \\"
    body = [r"\begin{tabular}{" + "l" * len(frame.columns) + "}", r"\toprule", head, r"\midrule", *rows]
    body += [r"\bottomrule", r"\end{tabular}"]
    wrap = [
        r"\begin{table}",
        r"\centering",
        *body,
        rf"\caption{{{caption.translate(_TEX)}}}",
        rf"\label{{tab:{name}}}",
    ]
    return "\n".join([*wrap, r"\end{table}"]) + "\n"


def full_caption(
    caption: str, s: Settings, measured: bool = True, records: Sequence[Mapping | str] = ()
) -> str:
    """The caption with the note that names a stand-in model or generated data, where `measured` on one.

    A table over cells may hold generated text beside a real main task: then its records say so.
    """
    note = s.substitute_note if measured else ""
    if not note and any(not isinstance(r, str) and r["data"].get("substitute") for r in records):
        note = "(Substitute: some of it is generated micro-world text.)"
    return f"{caption.rstrip()} {note}".rstrip()


def register(
    s: Settings, kind: str, name: str, caption: str, files: Sequence[Path], records: Sequence[Mapping | str]
) -> None:
    """Put one figure or table into `index.json`, the list that ties each file to its command and records."""
    path = s.figures / "index.json"
    entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    entry: dict[str, Any] = {"name": name, "kind": kind, "notebook": s.notebook, "caption": caption}
    entry |= {"files": [f.name for f in files], "command": s.command}
    entry |= {"records": sorted({r if isinstance(r, str) else str(r["key"]) for r in records})}
    same = (s.notebook, name, kind)
    entries = [e for e in entries if (e["notebook"], e["name"], e["kind"]) != same] + [entry]
    entries.sort(key=lambda e: (e["notebook"], e["kind"], e["name"]))
    write_whole(path, json.dumps(entries, indent=1, ensure_ascii=False) + "\n")


def save(
    frame: pd.DataFrame,
    s: Settings,
    name: str,
    caption: str,
    records: Sequence[Mapping | str] = (),
    measured: bool = True,
) -> Shown:
    """Write a table to the figure folder as csv, md and tex, enter it in the index, return it ready for display.

    Args:
        frame: the table; a missing value is written as `not run`.
        s: the notebook's settings (folder, command, note on stand-ins).
        name: file name without an ending.
        caption: one or two sentences.
        records: the records the numbers come from, or their keys.
        measured: on the profile's model or data; False for what needs neither.
    """
    shown, caption = display(frame), full_caption(caption, s, measured, records)
    texts = {"csv": shown.to_csv(index=False, lineterminator="\n"), "tex": tex(shown, caption, name)}
    texts["md"] = f"{markdown(shown)}\n{caption}\n"
    files = [s.figures / f"{name}.{ending}" for ending in sorted(texts)]
    for file in files:
        write_whole(file, texts[file.suffix[1:]])
    register(s, "table", name, caption, files, records)
    return shown


# --- what the notebooks show ------------------------------------------------------------------------------


def percent(group: pd.DataFrame, value: str) -> str:
    """Mean and interval of one column of some runs, with the lost ones counted: "77.2 [75.9, 78.5], 1 lost"."""
    row = statistics.summary(group.assign(all=0), ("all",), value).iloc[0]
    text = statistics.Interval(row["mean"], row["low"], row["high"], int(row["n"])).percent()
    if not row["lost"]:
        return text
    lost = f"{int(row['lost'])} of {len(group)} diverged or failed"
    return f"{text}, {lost}" if row["n"] else lost


def fine_tuning(records: Sequence[dict[str, Any]], metric: str = "accuracy") -> pd.DataFrame:
    """One row per method and rate: seeds, last-epoch and best-epoch metric, parameter counts, the paper's number.

    The last epoch is what the paper prints. The best epoch was chosen on the split its column names; chosen on
    validation it is optimistic, since the same sentences choose and report.
    """
    from ..dataframes import frame

    runs = frame(records)
    rows = []
    for (method, rate), group in runs.groupby(["method", "rate"], sort=False):
        first = next(r for r in records if r["key"] == group["key"].iloc[0])
        row = {"method": method_name(str(method)), "rate": rate, "seeds": len(group)}
        row[f"last epoch, % {metric}"] = percent(group, "final")
        chosen = " or ".join(sorted(set(group["chosen_on"].dropna())))
        row[f"best epoch, % {metric}"] = (
            f"{percent(group, 'best')} (chosen on {chosen})" if chosen else MISSING
        )
        row |= {f"{part} parameters": first["parameters"].get(part, 0) for part in _parts(records)}
        row["paper, last epoch, %"] = paper.column(first["settings"])
        rows.append(row)
    return pd.DataFrame(rows)


def _parts(records: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The parts of a parameter count; `weights` where a run trains some."""
    trains_weights = any(r["parameters"].get("weights") for r in records)
    return ("bias", "head", "pooler", *(["weights"] if trains_weights else []))


def parameter_counts(records: Sequence[dict[str, Any]], total: int) -> pd.DataFrame:
    """Trained parameters of each method by part, what stays frozen of `total`, and the bias's share of it."""
    rows = []
    for method, r in {r["settings"]["method"]: r for r in records}.items():
        parts = {part: int(r["parameters"].get(part, 0)) for part in _parts(records)}
        trained = sum(parts.values())
        row = {"method": method_name(method), **parts, "trained": trained, "frozen": total - trained}
        rows.append(row | {"bias / model": f"{100 * parts['bias'] / total:.4f} %"})
    return pd.DataFrame(rows)


def rate_grid(grid: pd.DataFrame, value: str = "final") -> pd.DataFrame:
    """Methods x rates: mean and interval of `value` over seeds; `not run` where a cell is empty."""
    rows = []
    for method, part in grid.groupby("method", sort=False):
        cells = {f"{rate:g}": percent(group, value) for rate, group in part.groupby("rate")}
        rows.append({"method": method_name(str(method)), **cells})
    return pd.DataFrame(rows, columns=["method", *(f"{r:g}" for r in sorted(grid["rate"].unique()))])


def forms(plain: Sequence[dict[str, Any]], formed: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Single terms as they are and in other forms, over the seeds that both have (paper, Table 4).

    Columns: term and form, trained numbers of the bias, last-epoch metric with interval, the paper's number.
    """
    from ..dataframes import frame

    seeds = {r["settings"]["seed"] for r in formed}
    terms = {r["settings"]["method"].partition(":")[0] for r in formed}
    beside = [r for r in plain if r["settings"]["method"] in terms and r["settings"]["seed"] in seeds]
    rows = []
    for method, group in frame([*beside, *formed]).groupby("method", sort=False):
        first = next(r for r in (*beside, *formed) if r["key"] == group["key"].iloc[0])
        row = {"term": method_name(str(method)), "bias parameters": first["parameters"]["bias"]}
        row |= {"seeds": len(group), "last epoch, %": percent(group, "final")}
        rows.append(row | {"paper, last epoch, %": paper.column(first["settings"])})
    return pd.DataFrame(rows)


def two_views(equal: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """Each method at the common rate and at its own rate: rate, and last-epoch metric with interval, in percent."""
    rows = []
    for method in dict.fromkeys(equal["method"]):
        row = {"method": method_name(method)}
        for view, frame in (("equal rate", equal), ("own rate", own)):
            group = frame[frame["method"] == method]
            row[view] = f"{group['rate'].iloc[0]:g}" if len(group) else MISSING
            row[f"{view}: last epoch, %"] = percent(group, "final") if len(group) else MISSING
        rows.append(row)
    return pd.DataFrame(rows)


def ranking_orders(averages: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Per score: the terms in its order, and in how many seeds that is the order of the same seed's accuracies.

    Counted over all terms, and without a b_k that is null, whose place at the end is the anatomy's to say.
    """
    taus = statistics.agreement(averages, runs)
    rows = []
    for score, part in averages.groupby("score", sort=False):
        means = {f"b_{t}": v for t, v in part.groupby("term")["value"].mean().items()}
        row = {"score": score, "order of the terms (layer average)": readings.order(means)}
        for view, found in taus[taus["score"] == score].groupby("view", sort=False)["tau"]:
            row[f"accuracies in that order, {view}"] = f"{int((found == 1).sum())} of {len(found)} seeds"
        rows.append(row)
    return pd.DataFrame(rows)


def tau_table(taus: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau per score and view: mean and 95% interval over seeds."""
    groups = taus.groupby(["score", "view"], sort=False)["tau"]
    rows = [{"score": s, "terms": v, "Kendall's tau": readings.tau_text(found)} for (s, v), found in groups]
    return pd.DataFrame(rows, columns=["score", "terms", "Kendall's tau"])


def predictions(texts: Sequence[str], probabilities: np.ndarray, labels: Sequence[str]) -> Shown:
    """New texts with their predicted class and its probability, or value; `probabilities` (N, C), or values (N, 1)."""
    if not labels:
        return display(pd.DataFrame({"text": texts, "value": [f"{x:.2f}" for x in probabilities[:, 0]]}))
    best = probabilities.argmax(axis=1)
    chance = [f"{probabilities[i, c]:.2f}" for i, c in enumerate(best)]
    return display(pd.DataFrame({"text": texts, "class": [labels[c] for c in best], "probability": chance}))
