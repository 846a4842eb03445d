"""The figure of domain transfer: what each method keeps of its score on another domain."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .. import comparisons
from ..dataframes import by_trained_numbers
from ..intervals import finished, score_interval
from ..majority import is_learned
from ..names import MISSING, lost_runs, method_name, short_name, task_name
from ..style import look_of, majority_line, mean_bar, nothing_to_draw, panels, styled, with_legend

SHIFT = 0.2  # of the two scores of a method from its place
PALE = 0.45


@styled
def own_and_target(frame: pd.DataFrame) -> Figure:
    """From the task trained on to each target: a panel per cell and target, the methods by rising trained numbers.

    A method has its score on its own task at the left, pale, and that on the target at the right, with 95% Student t
    intervals, an open mark where it is not learned (`majority`); a thin line is a seed. Above stands the mean change in
    points, the dashed line is the target's majority class. `frame` of `dataframes.transfers`, one run per cell, method
    and seed.
    """
    parts = [
        (cell, str(target), part)
        for cell, own in comparisons.by_cell(frame)
        for target, part in own.groupby("target", sort=False)
    ]
    columns, methods = max(frame["target"].nunique(), 1), by_trained_numbers(frame)
    fig, axes = panels(len(parts), 0.7 + 0.6 * len(methods), 3.7, (1.7, 0.0), columns=columns, sharey=True)
    if not parts:
        nothing_to_draw(axes[0])
        return fig
    for ax, (cell, target, part) in zip(axes, parts):
        _panel(ax, part, methods)
        several = "" if len(parts) <= columns else f"\n{short_name(cell['model'])}, {part['train_size'].iloc[0]:,} rows"
        ax.set_title(f"{task_name(cell['task'])} to {task_name(target)}{several}", fontsize=9.5)
    for ax in axes[::columns]:
        ax.set_ylabel(f"validation {parts[0][2]['metric'].iloc[0]} (%)")
    look: dict[str, Any] = {"color": "#4d4d4d", "ls": "", "marker": "s", "ms": 6}
    own = Line2D([], [], alpha=PALE, label="on its own task", **look)
    return with_legend(fig, handles=[own, Line2D([], [], label="on the target", **look)])


def _panel(ax: Axes, part: pd.DataFrame, methods: list[str]) -> None:
    """The runs of one cell on one target."""
    for x, method in enumerate(methods):
        _slope(ax, x, part[part["method"] == method], method)
    majority_line(ax, part)
    sizes = part.drop_duplicates("method").set_index("method")["trained"]
    labels = [method_name(m) + (f"\n{_short(sizes[m])}" if m in sizes else "") for m in methods]
    ax.set_xticks(range(len(methods)), labels, fontsize=8)
    ax.set(xlim=(-0.5, len(methods) - 0.5), xlabel="trained numbers")
    ax.grid(axis="x", visible=False)
    low, high = ax.get_ylim()
    ax.set_ylim(low, max(high, ax.dataLim.y1 + 0.12 * (high - low)))  # room for the changes


def _slope(ax: Axes, x: float, runs: pd.DataFrame, method: str) -> None:
    """One method in one panel."""
    ok, look = finished(runs).dropna(subset=["source", "final"]), look_of(method)
    note: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "ha": "center", "fontsize": 8}
    if lost := lost_runs(runs):
        ax.annotate(f"{lost} lost", (x, 0.89), **note)
    if not len(ok):
        ax.annotate("" if len(runs) else MISSING, (x, 0.5), **note)
        return
    own, target = x - SHIFT, x + SHIFT
    ax.plot((own, target), 100 * ok[["source", "final"]].to_numpy().T, color=look["color"], lw=0.9, alpha=0.4)
    mark: dict[str, Any] = {"color": look["color"], "fmt": look["marker"], "ms": 6, "capsize": 2.5, "lw": 1.3}
    mean_bar(ax, own, score_interval(ok, "source"), 100, alpha=PALE, **mark)
    inside = look["color"] if is_learned(runs) else "white"
    mean_bar(ax, target, score_interval(ok), 100, mfc=inside, **mark)
    ax.annotate(f"{100 * ok['change'].mean():+.1f}", (x, 0.94), weight="bold", color=look["color"], **note)


def _short(count: int) -> str:
    """A count in three digits: "3.46 k", "22.7 M"."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return str(count)
