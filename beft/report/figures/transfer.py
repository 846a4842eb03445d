"""The figure of domain transfer: what each method keeps of its score on another domain."""

from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .. import comparisons
from ..dataframes import by_trained_numbers
from ..intervals import finished, score_interval
from ..majority import is_learned
from ..names import MISSING, short_name, task_name
from ..style import (
    GREY,
    above,
    color_of,
    column_name,
    label_of,
    lost_note,
    majority_line,
    mark_of,
    mean_bar,
    nothing_to_draw,
    panels,
    percent_axis,
    styled,
    title_above,
    with_legend_below,
)

SHIFT = 0.2  # of the two scores of a method from its place
PALE = 0.45


@styled
def own_and_target(frame: pd.DataFrame) -> Figure:
    """From the task trained on to each target: a panel per cell and target, the methods by rising trained numbers.

    A method has its mean score on its own task at the left, pale, and that on the target at the right, with 95% Student
    t intervals where there are seeds enough, an open mark where it is not learned (`majority`); a thin line is a seed.
    Above the panel stands the mean change in points, the dashed line is the target's majority class. `frame` of
    `dataframes.transfers`, one run per cell, method and seed.
    """
    parts = [
        (cell, str(target), part)
        for cell, own in comparisons.by_cell(frame)
        for target, part in own.groupby("target", sort=False)
    ]
    methods, targets = by_trained_numbers(frame), max(frame["target"].nunique(), 1)
    width = 0.6 + 0.74 * max(len(methods), 2)
    columns = min(targets, max(int(13 / width), 1))
    fig, axes = panels(len(parts), width, 4.3, columns=columns, sharey=True)
    if not parts:
        nothing_to_draw(axes[0])
        return fig
    own: dict[str, Any] = {"facecolor": GREY, "edgecolor": "none"}
    handles: list[Artist] = [Patch(alpha=PALE, label="left, pale: on its own task", **own)]
    handles += [Patch(label="right: on the target", **own)]
    for ax, (cell, target, part) in zip(axes, parts):
        several = "" if len(parts) <= targets else f"\n{short_name(cell['model'])}, {part['train_size'].iloc[0]:,} rows"
        _panel(ax, part, methods, f"{task_name(cell['task'])}\nto {task_name(target)}{several}")
    for n, (ax, (_, _, part)) in enumerate(zip(axes, parts)):
        handles += majority_line(ax, part)
        if n % columns == 0:  # they share it
            ax.set_ylabel(f"{part['metric'].iloc[0]} (%)")
    percent_axis(axes[0], str(parts[0][2]["metric"].iloc[0]))
    return with_legend_below(fig, handles, columns=3)


def _panel(ax: Axes, part: pd.DataFrame, methods: list[str], title: str) -> None:
    """The runs of one cell on one target; above, the mean change."""
    changes = {float(x): _slope(ax, x, part[part["method"] == m], m) for x, m in enumerate(methods)}
    above(ax, changes, 0, "change")
    title_above(ax, title)
    sizes = part.drop_duplicates("method").set_index("method")["trained"]
    names = [column_name(m) + ("" if " " in label_of(m) else "\n") for m in methods]
    numbers = [(f"\n{_short(sizes[m])}" if m in sizes else "") + lost_note(part[part["method"] == m]) for m in methods]
    ax.set_xticks(range(len(methods)), [name + number for name, number in zip(names, numbers, strict=True)])
    ax.set(xlim=(-0.5, len(methods) - 0.5), xlabel="trained numbers")
    ax.grid(axis="x", visible=False)


def _slope(ax: Axes, x: float, runs: pd.DataFrame, method: str) -> str:
    """One method in one panel; returned is its mean change in points."""
    ok, color = finished(runs).dropna(subset=["source", "final"]), color_of(method)
    if not len(ok):
        return "" if len(runs) else MISSING
    places = x - SHIFT, x + SHIFT
    if len(ok) > 1:
        ax.plot(places, 100 * ok[["source", "final"]].to_numpy().T, color=color, lw=1.0, alpha=0.45)
    mark = mark_of(method)
    mean_bar(ax, places[0], score_interval(ok, "source"), 100, **mark | {"alpha": PALE, "mew": 0})
    mean_bar(ax, places[1], score_interval(ok), 100, mfc=color if is_learned(runs) else "white", mew=1.4, **mark)
    return f"{100 * ok['change'].mean():+.1f}"


def _short(count: int) -> str:
    """A count in three digits: "3.46 k", "22.7 M"."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return str(count)
