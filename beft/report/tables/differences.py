"""Paired differences as text: over the cells of a table, and with the verdict on each (`beft.report.verdict`)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .. import comparisons, verdict
from ..names import MISSING, counted, interval_text, method_name, number, score_name


def comparison_table(compared: pd.DataFrame) -> pd.DataFrame:
    """`comparisons.compare`: difference in points with both intervals, p, the smallest possible p, Holm's p."""
    rows = []
    for r in _named(compared).to_dict("records"):
        row = {n: str(r[n]) for n in (*comparisons.CELL, "comparison")} | {"seeds": str(r["n"])}
        row["difference, points"] = interval_text(r["mean"], r["low"], r["high"])
        boot = f"[{100 * r['boot_low']:+.1f}, {100 * r['boot_high']:+.1f}]"
        row["bootstrap"] = boot if np.isfinite(r["boot_low"]) else "fewer than 3 seeds"
        rows.append(row | _p_values(r, r["p"]))
    columns = ["model", "task", "regime", "comparison", "seeds", "difference, points", "bootstrap"]
    return pd.DataFrame(rows, columns=[*columns, "p", "smallest possible p", "p, Holm"])


def _named(compared: pd.DataFrame, name: Callable[[str], str] = method_name) -> pd.DataFrame:
    """A frame with columns first and second, with `comparison`: "b_v - b_q"."""
    pairs = zip(compared["first"], compared["second"])
    return compared.assign(comparison=[f"{name(first)} - {name(second)}" for first, second in pairs])


def _p_values(row: Mapping[Any, Any], p: float) -> dict[str, str]:
    values = {"p": p, "smallest possible p": row["p_least"], "p, Holm": row["p_holm"]}
    return {name: number(value) for name, value in values.items()}


def over_seeds(
    labels: Sequence[str],
    compared: pd.DataFrame,
    scale: float = 100,
    form: str = "+.1f",
    missing: str = MISSING,
) -> pd.DataFrame:
    """Differences within cells, with the verdict on each in this table.

    Columns: `labels`, columns of the frame that name a row; seeds; difference with its 95% Student t interval; p, the
    smallest p that so many seeds allow, Holm's p over the rows; verdict.

    Args:
        compared: as `verdict.over_seeds` takes it.
        scale, form: of the difference; by default signed points.
        missing: what stands for a difference of no seed.
    """
    judged = verdict.over_seeds(compared).assign(seeds=compared["n"])
    return _text(judged, [*labels, "seeds"], "p", scale, form, missing)


def over_tasks(labels: Sequence[str], overall: pd.DataFrame, scale: float = 100, form: str = "+.1f") -> pd.DataFrame:
    """Differences over cells, with the verdict on each in this table.

    Columns: `labels`; "higher in", the cells in which the first is higher; tasks; difference with its 95% interval
    over tasks; p over tasks, the smallest that so many tasks allow, Holm's p over the rows; verdict.
    """
    judged = verdict.over_tasks(overall)
    higher = [f"{n} of {counted(cells, 'cell')}" for n, cells in zip(judged["higher"], judged["cells"])]
    labels = [*labels, "higher in", "tasks"]
    return _text(judged.assign(**{"higher in": higher}), labels, "p_tasks", scale, form, MISSING)


def _text(judged: pd.DataFrame, labels: Sequence[str], p: str, scale: float, form: str, missing: str) -> pd.DataFrame:
    rows = []
    for r in judged.to_dict("records"):
        row = {label: r[label] for label in labels}
        row["difference"] = interval_text(r["mean"], r["low"], r["high"], form, scale, missing)
        word = missing if r["verdict"] == MISSING else r["verdict"]
        rows.append(row | _p_values(r, r[p]) | {"verdict": word})
    columns = ["difference", "p", "smallest possible p", "p, Holm", "verdict"]
    return pd.DataFrame(rows, columns=[*labels, *columns])


def within(views: Mapping[str, pd.DataFrame], pairs: comparisons.Pairs) -> pd.DataFrame:
    """Every pair of methods in one or more frames of runs of one cell: a row per frame and pair, in points."""
    compared = _named(comparisons.compare_views(views, pairs)).rename(columns={"view": "runs"})
    return over_seeds(["runs", "comparison"], compared)


def by_size(runs: pd.DataFrame, methods: Sequence[str] = ("full", "lora"), base: str = "b_v") -> pd.DataFrame:
    """`methods` against `base` at every training size: a row per model, task, size and method, in points."""
    sized = runs.assign(regime=runs["train_size"])
    compared = comparisons.compare(sized, [(m, base) for m in methods], absent=True)
    compared = _named(compared.sort_values(["model", "task", "first", "regime"], kind="stable"))
    return over_seeds(["model", "task", "comparison", "rows"], compared.rename(columns={"regime": "rows"}))


def over_cells(compared: pd.DataFrame) -> pd.DataFrame:
    """Every pair of a frame of `comparisons.compare` over its cells, in points, with the verdict over tasks."""
    return over_tasks(["comparison"], _named(comparisons.overall(compared)))


def tau_differences(taus: pd.DataFrame, firsts: Sequence[str] = ("mag_angle", "reach")) -> pd.DataFrame:
    """Whether a score agrees better with the accuracies than another: differences of Kendall's tau over cells.

    Each of `firsts` against every other score; a pair of scores has one row per view. `taus` of
    `comparisons.tau_by_cell`.
    """
    tables = [comparisons.tau_differences(taus, first) for first in firsts]
    once = [table[~table["second"].isin(firsts[:n])] for n, table in enumerate(tables)]
    overall = _named(pd.concat(once, ignore_index=True), score_name).rename(columns={"view": "terms"})
    return over_tasks(["terms", "comparison"], overall, 1, "+.2f")
