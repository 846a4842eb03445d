"""Figures over cells: scores by task and by training size, agreement of ranking scores, paired differences."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .. import comparisons
from ..intervals import DRAWN_FROM, finished, summary
from ..majority import NOT_LEARNED
from ..names import MISSING, counted, mathtext, model_name, no_interval, short_name, task_name
from ..style import (
    GREY,
    SMALL,
    bars,
    color_of,
    entry,
    label_of,
    level_line,
    majority_line,
    mark_of,
    marks,
    methods_as_points,
    methods_of,
    nothing_to_draw,
    once,
    panels,
    percent_axis,
    reach,
    seed_points,
    styled,
    task_looks,
    with_legend,
    with_legend_below,
)
from .ranking import MEAN, alike, tau_axis


@styled
def by_task(scores: pd.DataFrame) -> Figure:
    """Every method's last-epoch metric: a panel per model and task, a point per seed.

    `scores` of `tables.decoders.scores`; the untuned model's zero-shot score is the dotted line, the majority class the
    dashed one, and open marks are means that are not above it.
    """
    cells = [part for _, part in comparisons.by_cell(scores)]
    methods = [m for m in methods_of(scores) if m != "zero_shot"]
    width = 0.8 + 0.62 * max(len(methods), 3)
    fig, axes = panels(len(cells), width, 3.5, (0.0, 0.6), columns=3 if width < 4 and len(cells) != 4 else 2)
    handles: list[Artist] = []
    for ax, part in zip(axes, cells):
        model, task, metric = (part[n].iloc[0] for n in ("model", "task", "metric"))
        methods_as_points(ax, part, methods, f"{_on_two_lines(short_name(model))}\n{task_name(task)}")
        zero = finished(part[part["method"] == "zero_shot"])["final"]
        handles += level_line(ax, 100 * zero.iloc[0] if len(zero) else np.nan, "zero-shot", ":", far=False)
        handles += majority_line(ax, part)
        ax.set_ylabel(f"{metric} (%)")
        percent_axis(ax, metric)
    return with_legend_below(fig, once(handles), columns=2)


@styled
def by_size(runs: pd.DataFrame) -> Figure:
    """The metric against the number of training rows (log): a panel per task and model, a line per method.

    Seeds as points, methods a little apart so that they do not cover each other, the mean with its 95% interval where
    there are seeds enough. The ticks say how many epochs were trained on so many rows; a line is dotted between
    numbers of rows with neither the same epochs nor, within a tenth, the same optimizer steps (rows x epochs, the batch
    being the same). `runs` holds one run per cell, method and seed.
    """
    places = list(runs[["model", "task"]].drop_duplicates().itertuples(index=False, name=None))
    fig, axes = panels(len(places), 4.6, 4.0, (0.0, 0.4), columns=2)
    if not places:
        nothing_to_draw(axes[0])
        return fig
    several = runs["model"].nunique() > 1
    handles: list[Artist] = [entry(m, ls="-", lw=1.8) for m in methods_of(finished(runs))]
    for ax, (model, task) in zip(axes, places):
        part = runs[(runs["model"] == model) & (runs["task"] == task)]
        epochs = {int(size): sorted(set(g["epochs"])) for size, g in part.groupby("train_size")}
        _sizes(ax, part, methods_of(runs), epochs)
        handles += majority_line(ax, part)
        ends = min(epochs), max(epochs)
        ax.set_xlim(ends[0] / 1.35, ends[1] * 1.35)
        ax.set_xticks(list(epochs), [f"{n:,}\n\u00d7 {' / '.join(map(str, e))}" for n, e in epochs.items()])
        ax.minorticks_off()
        metric = part["metric"].iloc[-1]
        ax.set(ylabel=f"validation {metric} (%)", xlabel="training rows \u00d7 epochs")
        ax.set_title(f"{task_name(task)}\n{model_name(model)}" if several else task_name(task))
        percent_axis(ax, metric)
        if not all(_alike_trained(epochs, *pair) for pair in itertools.pairwise(sorted(epochs))):
            handles.append(Line2D([], [], color=GREY, lw=1.8, ls=":", label="dotted: other epochs and steps"))
    return with_legend_below(fig, handles, columns=4)


def _alike_trained(epochs: Mapping[int, Sequence[int]], fewer: int, more: int) -> bool:
    """Whether two numbers of rows were trained for the same epochs, or for as many steps."""
    if epochs[fewer] == epochs[more]:
        return True
    seen = [size * e for size in (fewer, more) for e in epochs[size]]
    return max(seen) <= 1.1 * min(seen)


def _sizes(ax: Axes, part: pd.DataFrame, methods: Sequence[str], epochs: Mapping[int, Sequence[int]]) -> None:
    """The lines of the methods of one panel, on a logarithmic axis."""
    ax.set_xscale("log")
    for n, method in enumerate(methods):
        mine = part[part["method"] == method]
        shift = max(max(epochs) / min(epochs), 2) ** (0.014 * (n - (len(methods) - 1) / 2))
        table = summary(mine, ("train_size",)).sort_values("train_size")
        known, lost = table[table["n"] > 0], shift * table[table["lost"] > 0]["train_size"]
        for size, runs in finished(mine).groupby("train_size"):
            seed_points(ax, size * shift, 100 * runs["final"], color_of(method))
        points = list(zip(known["train_size"], 100 * known["mean"]))
        for (size, y), (larger, higher) in itertools.pairwise(points):
            ls = "-" if _alike_trained(epochs, size, larger) else ":"
            ax.plot([size * shift, larger * shift], [y, higher], color=color_of(method), lw=1.8, ls=ls)
        bars(ax, known["train_size"] * shift, known, 100, color_of(method))
        marks(ax, known["train_size"] * shift, 100 * known["mean"], ls="", **mark_of(method) | {"ms": 6.5})
        # A cross at the bottom: a run was lost.
        ax.plot(lost, [0.03] * len(lost), "x", color=color_of(method), transform=ax.get_xaxis_transform())


@styled
def tau_cells(taus: pd.DataFrame) -> Figure:
    """Kendall's tau of each score with the accuracies, over cells: a panel per view, a figure per cell.

    A cell's mean over seeds is drawn as the number of its task; the bar is the mean over cells with its 95% interval
    over tasks (`comparisons.cluster_interval`), without an interval below three tasks. Scores that agree in every cell
    share a column. `taus` from `comparisons.tau_by_cell`.
    """
    cells, means = comparisons.cell_taus(taus), comparisons.tau_overall(taus)
    views = list(dict.fromkeys(cells["view"]))
    groups = alike(cells, "score", (*comparisons.CELL, "view"), "tau")
    fig, axes = panels(len(views), 1.0 + 1.4 * max(len(groups), 2), 4.2, (1.4, 0.0), sharey=True)
    if not views:
        nothing_to_draw(axes[0])
        return fig
    looks = task_looks(cells["task"])
    for ax, view in zip(axes, views, strict=True):
        for x, name in enumerate(groups):
            part = cells[(cells["view"] == view) & (cells["score"] == name)]
            spread = np.linspace(-0.38, 0.1, len(part)) if len(part) > 1 else [-0.14]
            for at, (task, tau) in zip(spread, part[["task", "tau"]].itertuples(index=False, name=None)):
                ax.plot(x + at, tau, ms=7, ls="", **looks[task])
            for r in means[(means["view"] == view) & (means["score"] == name)].to_dict("records"):
                ax.errorbar([x + 0.32], [r["mean"]], reach(r), fmt="none", ecolor="black", elinewidth=1.6, capsize=3)
                ax.plot([x + 0.32], [r["mean"]], ls="", **MEAN)
        ax.set_title(mathtext(view))
        tau_axis(ax, groups)
    axes[0].set_ylabel("Kendall's tau with accuracy")
    handles = [Line2D([], [], ms=7, ls="", label=task_name(task), **style) for task, style in looks.items()]
    note = no_interval(len(looks)).replace(": ", ",\n")
    label = "mean over cells" + (f"\n({note})" if note else ",\n95% over tasks")
    handles.append(Line2D([], [], ls="", label=label, **MEAN))
    return with_legend(fig, handles=handles)


_APART = 4.0  # cells whose ends are so many times further from zero than those of others have a panel of their own


@styled
def differences(compared: pd.DataFrame, first: str, second: str) -> Figure:
    """The paired difference first - second in every cell, in points: seeds, mean, 95% Student t interval, p.

    Below the cells is the mean over them with its interval over tasks (`comparisons.overall`). Beside each cell stand
    its mean, its sign-flip p and Holm's over every row of `compared`. A cell in which one of the two is not learned is
    pale and counts in neither. Tasks whose differences are on another scale have a panel of their own.
    """
    part = compared[(compared["first"] == first) & (compared["second"] == second)]
    if not part["mean"].notna().any():
        fig, axes = panels(1, 8.0, 2.0)
        axes[0].set_title(f"{label_of(first)} - {label_of(second)}")
        nothing_to_draw(axes[0])
        return fig
    groups = _by_scale(part)
    over = comparisons.overall(part).to_dict("records")[0]
    heights = [len(g) + 0.6 for g in groups]
    heights, own = ([heights[0] + 1], False) if len(groups) == 1 else ([*heights, 1.6], True)
    size = (9.0, 0.8 + 0.36 * sum(heights) + 0.55 * len(heights))
    fig, grid = plt.subplots(len(heights), 1, figsize=size, squeeze=False, height_ratios=heights)
    axes = list(grid[:, 0])
    axes[0].set_title(f"{label_of(first)} - {label_of(second)}")
    several = part["model"].nunique() > 1
    rows = [[_cell_row(r, several) for r in g.to_dict("records")] for g in groups]
    note = no_interval(over["tasks"]) or f"p over tasks {over['p_tasks']:.2g}"
    rows[len(groups) :] = [[]] if own else []
    rows[-1].append((over, f"mean of {counted(over['cells'], 'cell')}", f"{_points(over['mean'])}{note}"))
    for ax, mine in zip(axes, rows, strict=True):
        _forest(ax, mine)
    if not own:
        axes[0].axhline(len(part) - 0.5, color=GREY, lw=0.8)
    axes[-1].set_xlabel("difference in points" + (", every panel on its own scale" if own else ""))
    return fig


def _by_scale(part: pd.DataFrame) -> list[pd.DataFrame]:
    """The cells in groups that can share an axis, task by task: those that reach the least far from zero first."""
    drawn = part[["mean", "low", "high"]].astype(float)
    drawn.loc[part["n"] < DRAWN_FROM, ["low", "high"]] = np.nan
    ends = drawn.abs().max(axis=1).groupby(part["task"], sort=False).max()
    groups: list[list[str]] = []
    least = 0.0
    for task, end in ends.fillna(ends.min()).sort_values(kind="stable").items():
        if not groups or end > _APART * max(least, 0.01):
            groups.append([])
            least = end
        groups[-1].append(str(task))
    return [part[part["task"].isin(tasks)] for tasks in groups]


def _points(mean: float) -> str:
    return f"{100 * mean:+.1f}, " if np.isfinite(mean) else ""


def _cell_row(r: Mapping[Any, Any], several: bool) -> tuple[Mapping[Any, Any], str, str]:
    """A row of the forest: its numbers, its name, and the note beside it."""
    model = f", {short_name(r['model'])}" if several else ""
    holm = NOT_LEARNED if r["not_learned"] else f"Holm {r['p_holm']:.2g}"
    p = f"p {r['p']:.2g}, {holm}" if r["n"] > 1 else "one seed" if r["n"] else MISSING
    return r, f"{task_name(r['task'])}, {r['regime']}{model}", f"{_points(r['mean'])}{p}"


def _forest(ax: Axes, rows: Sequence[tuple[Mapping[Any, Any], str, str]]) -> None:
    """Rows of differences in points with their notes at the right; no mark where there is no mean."""
    for y, (r, _, note) in enumerate(rows):
        ax.annotate(note, (1.015, y), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL)
        if not np.isfinite(r["mean"]):
            continue
        over_cells = "cells" in r
        color = GREY if r.get("not_learned") else "black"
        seed_points(ax, y, 100 * np.asarray(r.get("values", ()), dtype=float), color, across=True)
        if over_cells:
            ax.errorbar(
                [100 * r["mean"]], [y], xerr=100 * reach(r), fmt="none", ecolor=color, elinewidth=1.6, capsize=3
            )
        else:
            bars(ax, y, r, 100, color, across=True)
        look: dict[str, Any] = {"ls": "", "marker": "|", "ms": 17 if over_cells else 13, "mew": 2.5}
        ax.plot([100 * r["mean"]], [y], color=color, alpha=0.5 if r.get("not_learned") else None, **look)
    ax.axvline(0, color=GREY, lw=1, zorder=0.8)
    ax.set_yticks(range(len(rows)), [name for _, name, _ in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.margins(x=0.08)
    ax.grid(axis="y", visible=False)


def _on_two_lines(name: str) -> str:
    return name.replace(", ", ",\n", 1)
