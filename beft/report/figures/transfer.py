"""The figure of domain transfer: what each method keeps of its score on another domain."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .. import comparisons
from ..dataframes import by_trained_numbers
from ..intervals import finished, mean_interval
from ..names import MISSING, method_name
from ..style import look_of, mean_bar, nothing_to_draw, panels, styled, with_legend

SHIFT = 0.2  # of the two scores of a method from its place


@styled
def own_and_target(frame: pd.DataFrame) -> Figure:
    """From the task trained on to each target: a panel per cell and target, the methods by rising trained numbers.

    A method has its score on its own task at the left, in an open mark, and that on the target at the right, with 95%
    Student t intervals; a thin line is a seed. Above stands the mean change in points, the dotted line is the target's
    largest class. `frame` of `dataframes.transfers`, one run per cell, method and seed.
    """
    parts = [
        (cell, target, part)
        for cell, own in comparisons.by_cell(frame)
        for target, part in own.groupby("target", sort=False)
    ]
    columns = max(frame["target"].nunique(), 1)
    methods = by_trained_numbers(frame)
    fig, axes = panels(len(parts), 0.7 + 0.6 * len(methods), 3.7, (1.7, 0.0), columns=columns, sharey=True)
    if not parts:
        nothing_to_draw(axes[0])
        return fig
    for ax, (cell, target, part) in zip(axes, parts):
        for x, method in enumerate(methods):
            _slope(ax, x, part[part["method"] == method], method)
        ax.axhline(100 * part["largest"].iloc[0], color="#666666", lw=1.2, ls=":")
        sizes = part.drop_duplicates("method").set_index("method")["trained"]
        labels = [method_name(m) + (f"\n{_short(sizes[m])}" if m in sizes else "") for m in methods]
        ax.set_xticks(range(len(methods)), labels, fontsize=8)
        ax.set_xlim(-0.5, len(methods) - 0.5)
        ax.grid(axis="x", visible=False)
        several = "" if len(parts) <= columns else f"\n{cell['model']}, {part['train_size'].iloc[0]:,} rows"
        low, high = ax.get_ylim()
        ax.set_ylim(low, max(high, ax.dataLim.y1 + 0.12 * (high - low)))  # room for the changes
        ax.set_title(f"{cell['task']} to {target}{several}", fontsize=9.5)
        ax.set_xlabel("trained numbers")
    for ax in axes[::columns]:
        ax.set_ylabel(f"validation {parts[0][2]['metric'].iloc[0]} (%)")
    look: dict[str, Any] = {"color": "#4d4d4d", "ls": "", "marker": "s", "ms": 6}
    own = Line2D([], [], mfc="white", label="on its own task", **look)
    other = Line2D([], [], label="on the target", **look)
    largest = Line2D([], [], color="#666666", lw=1.2, ls=":", label="largest class\nof the target")
    return with_legend(fig, handles=[own, other, largest])


def _slope(ax: Axes, x: float, runs: pd.DataFrame, method: str) -> None:
    """One method in one panel."""
    ok, look = finished(runs).dropna(subset=["source", "final"]), look_of(method)
    note: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "ha": "center", "fontsize": 8}
    if not len(ok):
        ax.annotate("lost" if len(runs) else MISSING, (x, 0.5), **note)
        return
    ends = (x - SHIFT, x + SHIFT)
    ax.plot(ends, 100 * ok[["source", "final"]].to_numpy().T, color=look["color"], lw=0.9, alpha=0.4)
    for at, column, filled in zip(ends, ("source", "final"), (False, True)):
        face = look["color"] if filled else "white"
        mark: dict[str, Any] = {
            "color": look["color"],
            "fmt": look["marker"],
            "mfc": face,
            "ms": 6,
            "capsize": 2.5,
            "lw": 1.3,
        }
        mean_bar(ax, at, mean_interval(ok[column]), 100, **mark)
    ax.annotate(f"{100 * ok['change'].mean():+.1f}", (x, 0.94), weight="bold", color=look["color"], **note)
    if lost := len(runs) - len(ok):
        ax.annotate(f"{lost} lost", (x, 0.89), **note)


def _short(count: int) -> str:
    """A count in three digits: "3.5 k", "22.7 M"."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return str(count)
