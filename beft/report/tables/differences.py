"""Paired differences as text: over the cells of a table, and with the verdict on each (`beft.report.verdict`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .. import comparisons, verdict
from ..names import MISSING, counted, interval_text, method_name, number, score_name

Row = Mapping[Any, Any]


def comparison_table(compared: pd.DataFrame) -> pd.DataFrame:
    """`comparisons.compare`: difference in points with both intervals, p, the smallest possible p, Holm's p."""
    rows = []
    for r in compared.to_dict("records"):
        row = {n: str(r[n]) for n in comparisons.CELL} | {"comparison": _pair(r), "seeds": str(r["n"])}
        row["difference, points"] = interval_text(r["mean"], r["low"], r["high"])
        boot = f"[{100 * r['boot_low']:+.1f}, {100 * r['boot_high']:+.1f}]"
        row["bootstrap"] = boot if np.isfinite(r["boot_low"]) else "fewer than 3 seeds"
        rows.append(row | _p_values(r, r["p"]))
    columns = ["model", "task", "regime", "comparison", "seeds", "difference, points", "bootstrap"]
    return pd.DataFrame(rows, columns=[*columns, "p", "smallest possible p", "p, Holm"])


def _pair(row: Row) -> str:
    return f"{method_name(row['first'])} - {method_name(row['second'])}"


def _p_values(row: Row, p: float) -> dict[str, str]:
    named = {"p": p, "smallest possible p": row["p_least"], "p, Holm": row["p_holm"]}
    return {name: number(value) for name, value in named.items()}


def over_seeds(
    labels: Sequence[str],
    compared: pd.DataFrame,
    scale: float = 100,
    form: str = "+.1f",
    missing: str = MISSING,
) -> pd.DataFrame:
    """Differences within cells, with the verdict on each in this table.

    Columns: `labels`, columns of the frame that name a row; seeds, difference with its 95% Student t interval, p, the
    smallest p that so many seeds allow, Holm's p over the rows, verdict.

    Args:
        compared: as `verdict.over_seeds` takes it.
        scale, form: of the difference; by default signed points.
        missing: what stands for a difference of no seed.
    """
    rows = []
    for r in verdict.over_seeds(compared).to_dict("records"):
        row = {label: r[label] for label in labels} | {"seeds": str(r["n"])}
        row["difference"] = interval_text(r["mean"], r["low"], r["high"], form, scale, missing)
        rows.append(row | _p_values(r, r["p"]) | {"verdict": r["verdict"] if r["n"] else missing})
    columns = ["seeds", "difference", "p", "smallest possible p", "p, Holm", "verdict"]
    return pd.DataFrame(rows, columns=[*labels, *columns])


def within(views: Mapping[str, pd.DataFrame], pairs: comparisons.Pairs) -> pd.DataFrame:
    """Every pair of methods in one or more frames of runs of one cell: a row per frame and pair, in points."""
    compared = comparisons.compare_views(views, pairs)
    return over_seeds(["runs", "comparison"], _compared(compared).rename(columns={"view": "runs"}))


def _compared(compared: pd.DataFrame) -> pd.DataFrame:
    return compared.assign(comparison=[_pair(r) for r in compared.to_dict("records")])


def by_size(runs: pd.DataFrame, methods: Sequence[str] = ("full", "lora"), base: str = "b_v") -> pd.DataFrame:
    """`methods` against `base` at every training size: a row per model, task, size and method, in points."""
    sized = runs.assign(regime=runs["train_size"])
    compared = comparisons.compare(sized, [(m, base) for m in methods], absent=True)
    compared = compared.sort_values(["model", "task", "first", "regime"], kind="stable")
    table = _compared(compared).assign(rows=[f"{size:,}" for size in compared["regime"]])
    return over_seeds(["model", "task", "comparison", "rows"], table)


def over_cells(compared: pd.DataFrame) -> pd.DataFrame:
    """Every pair of a frame of `comparisons.compare` over its cells, in points, with the verdict over tasks."""
    overall = comparisons.overall(compared)
    return _over_tasks(
        ["comparison"], overall.assign(comparison=[_pair(r) for r in overall.to_dict("records")])
    )


def tau_differences(taus: pd.DataFrame, firsts: Sequence[str] = ("mag_angle", "reach")) -> pd.DataFrame:
    """Whether a score agrees better with the accuracies than another: differences of Kendall's tau over cells.

    Each of `firsts` against every other score, in either view; a pair of scores has one row per view. `taus` of
    `comparisons.tau_by_cell`.
    """
    frames = []
    for n, first in enumerate(firsts):
        rows = comparisons.tau_differences(taus, first)
        frames.append(rows[~rows["second"].isin(firsts[:n])])
    table = pd.concat(frames, ignore_index=True)
    names = [f"{score_name(r['first'])} - {score_name(r['second'])}" for r in table.to_dict("records")]
    return _over_tasks(
        ["terms", "comparison"], table.assign(terms=table["view"], comparison=names), 1, "+.2f"
    )


def _over_tasks(
    labels: Sequence[str], overall: pd.DataFrame, scale: float = 100, form: str = "+.1f"
) -> pd.DataFrame:
    """Differences over cells, with the verdict on each in this table.

    Columns: `labels`; "higher in", the cells in which the first is higher; tasks; difference with its 95% interval
    over tasks; p over tasks, the smallest that so many tasks allow, Holm's p over the rows; verdict.
    """
    rows = []
    for r in verdict.over_tasks(overall).to_dict("records"):
        row = {label: r[label] for label in labels}
        row |= {"higher in": f"{r['higher']} of {counted(r['cells'], 'cell')}", "tasks": str(r["tasks"])}
        row["difference"] = interval_text(r["mean"], r["low"], r["high"], form, scale)
        rows.append(row | _p_values(r, r["p_tasks"]) | {"verdict": r["verdict"]})
    columns = ["higher in", "tasks", "difference", "p", "smallest possible p", "p, Holm", "verdict"]
    return pd.DataFrame(rows, columns=[*labels, *columns])
