"""Sentences computed from comparisons over cells: where b_v stops paying, which term, which score.

At one size, a difference is "shown" where its 95% interval excludes 0. Over cells the interval is over tasks
(`comparisons.cluster_interval`); with fewer than three tasks there is none, and the sentence says so. Few tasks that
all lie on one side always give an interval that excludes 0, so there a difference is shown only where the sign-flip p
over tasks is at most 0.05 too; it stands beside each answer with the smallest value that so few tasks allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from . import comparisons
from . import intervals as statistics
from .readings import MISSING, SCORE_NAMES, method_name

ALPHA = 0.05


def points(mean: float, low: float, high: float, scale: float = 100, form: str = "+.1f") -> str:
    """Points by default: "+1.3 [+0.2, +2.4]", without an interval where it is nan; `not run` without a mean."""
    if not np.isfinite(mean):
        return MISSING
    text = f"{scale * mean:{form}}"
    return f"{text} [{scale * low:{form}}, {scale * high:{form}}]" if np.isfinite(low) else text


def tasks_text(count: int) -> str:
    """ "one task", "4 tasks"."""
    return "one task" if count == 1 else f"{count} tasks"


def cells_text(count: int) -> str:
    """ "1 cell", "4 cells"."""
    return f"{count} cell{'' if count == 1 else 's'}"


def no_interval(tasks: int) -> str:
    """Why there is no interval over tasks, e.g. "one task: no interval"; "" where there is one."""
    return "" if tasks >= comparisons.LEAST else f"{tasks_text(tasks)}: no interval"


def side(low: float, high: float) -> str:
    """The sign a difference was shown to have: "+", "-", or "" where its interval holds 0 or is not there."""
    return "+" if low > 0 else "-" if high < 0 else ""


# --- training sizes ---------------------------------------------------------------------------------------


def by_size(runs: pd.DataFrame, methods: Sequence[str] = ("full", "lora"), base: str = "b_v") -> str:
    """Where `base` stops paying: the smallest size at which each of `methods` is ahead of it, and by how much at the
    largest, where that lead need not be there any more; a line per task.

    Ahead: the Student t interval of the paired difference over seeds is above 0, at that size alone (a size is one of
    several looked at, and nothing corrects for that).
    """
    several = runs["model"].nunique() > 1
    lines = []
    for (model, task), part in runs.groupby(["model", "task"], sort=False):
        place = f"{task}, {model}" if several else str(task)
        lines.append(f"{place}: " + "; ".join(_first_ahead(part, m, base) for m in methods) + ".")
    return "\n".join(lines) or f"Training sizes: {MISSING}."


def _first_ahead(part: pd.DataFrame, method: str, base: str) -> str:
    """One method against `base`, e.g. "full is first ahead of b_v at 5,000 rows (+1.2 [+0.4, +2.0] points)"."""
    name = method_name(method)
    sizes = sorted(set(part["train_size"]))
    found = {n: statistics.paired(part[part["train_size"] == n], method, base).interval for n in sizes}
    tried = [n for n, i in found.items() if i.n]
    if not tried:
        return f"{name} against {method_name(base)}: {MISSING}"
    known = [n for n in tried if found[n].n > 1]
    if not known:
        return f"{name} against {method_name(base)}: one seed at each size, so no interval"
    gaps = {n: points(found[n].mean, found[n].low, found[n].high) for n in known}
    largest = known[-1]
    for n in known:
        if found[n].low > 0:
            text = f"{name} is first ahead of {method_name(base)} at {n:,} rows ({gaps[n]} points"
            return text + (f"; at {largest:,} {gaps[largest]})" if n < largest else ")")
    text = f"{name} is ahead of {method_name(base)} at no size tried ({_sizes(known)} rows; "
    return text + f"at the largest {gaps[largest]} points)"


def _sizes(sizes: Sequence[int]) -> str:
    return f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"


# --- terms ------------------------------------------------------------------------------------------------


def terms_over_cells(overall: pd.DataFrame) -> str:
    """Each pair of methods over all cells, a line each, from `comparisons.overall`."""
    lines = []
    for r in overall.to_dict("records"):
        first, second = method_name(r["first"]), method_name(r["second"])
        if not r["cells"]:
            lines.append(f"{first} - {second}: {MISSING} with a common seed.")
            continue
        text = f"{first} - {second}: ahead in {r['ahead']} of {cells_text(r['cells'])}, mean "
        text += f"{points(r['mean'], r['low'], r['high'])} points over {tasks_text(r['tasks'])}"
        answers = {"+": f"{first} is ahead", "-": f"{second} is ahead", "": "no difference is shown"}
        lines.append(f"{text}; {_verdict(r, answers)}.")
    return "\n".join(lines) or f"Pairs of terms: {MISSING}."


def _verdict(row: Mapping[Any, Any], answers: Mapping[str, str]) -> str:
    """The answer for the side that was shown, with p over tasks; or why there is none."""
    if not np.isfinite(row["low"]):
        return no_interval(row["tasks"])
    p = f"p over tasks {row['p_tasks']:.2g}, smallest possible {comparisons.least_p(row['tasks']):.2g}"
    beyond = side(row["low"], row["high"])
    if beyond and row["p_tasks"] > ALPHA:
        return f"{answers['']}, though the interval excludes 0: it is too narrow for few tasks ({p})"
    return f"{answers[beyond]} ({p})"


# --- scores -----------------------------------------------------------------------------------------------


def scores_over_cells(overall: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Which score is the better guide, from `comparisons.tau_overall` and `tau_differences`; a few lines per view.

    `differences` may hold several first scores one below the other (Mag+Angle, reach); each is asked about in turn.
    """
    lines = []
    for view, part in overall.groupby("view", sort=False):
        ranked = part.sort_values("mean", ascending=False, kind="stable").to_dict("records")
        taus = [f"{_name(r['score'])} {points(r['mean'], r['low'], r['high'], 1, '+.2f')}" for r in ranked]
        cells, tasks = max(r["cells"] for r in ranked), max(r["tasks"] for r in ranked)
        over = f"{cells_text(cells)}, {no_interval(tasks) or tasks_text(tasks)}"
        lines.append(f"Mean tau, {view}: {', '.join(taus)} ({over}).")
        here = differences[differences["view"] == view]
        for first, asked in here.groupby("first", sort=False):
            lines.append(f"  Is {_name(str(first))} the better guide?")
            lines += [f"    {_against(r)}." for r in asked.to_dict("records")]
    return "\n".join(lines) or f"Scores over cells: {MISSING}."


def _against(row: Mapping[Any, Any]) -> str:
    """E.g. "against Magnitude +0.20 [-0.10, +0.50]: not shown"."""
    gap = points(row["mean"], row["low"], row["high"], 1, "+.2f")
    answers = {"+": "yes", "-": "no, it is the worse one", "": "not shown"}
    return f"against {_name(row['second'])} {gap}: {_verdict(row, answers)}"


def _name(score: str) -> str:
    return SCORE_NAMES.get(score, score)
