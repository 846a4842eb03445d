"""Figures over cells: scores by task and by training size, agreement of ranking scores, paired differences."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .. import comparisons
from ..intervals import finished, summary
from ..majority import NOT_LEARNED
from ..names import MISSING, SCORE_NAMES, counted, method_name, model_name, no_interval, short_name, task_name
from ..style import (
    color_of,
    look_of,
    majority_line,
    methods_as_points,
    methods_of,
    nothing_to_draw,
    panels,
    reach,
    styled,
    with_legend,
)

_TASKS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4d4d4d", "#8c6d31")
_TASK_MARKERS = "o^sDvPX*<>"


def task_looks(tasks: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A colour and a marker per task, in order of appearance."""
    looks = zip(dict.fromkeys(tasks), itertools.cycle(_TASKS), itertools.cycle(_TASK_MARKERS))
    return {task: {"color": color, "marker": marker} for task, color, marker in looks}


@styled
def by_task(scores: pd.DataFrame) -> Figure:
    """Every method's last-epoch metric: a panel per model and task, a point per seed.

    `scores` of `tables.decoders.scores`; the untuned model's zero-shot score is the dotted line, the majority class the
    dashed one, and open marks are means that are not above it.
    """
    cells = [part for _, part in comparisons.by_cell(scores)]
    methods = [m for m in methods_of(scores) if m != "zero_shot"]
    fig, axes = panels(len(cells), 0.5 + 0.5 * len(methods), 2.6, (1.0, 1.0), columns=4)
    for ax, part in zip(axes, cells):
        methods_as_points(ax, part, methods)
        zero = finished(part[part["method"] == "zero_shot"])["final"]
        if len(zero):
            ax.axhline(100 * zero.iloc[0], color="#666666", lw=1.2, ls=":")
        majority_line(ax, part, label=False)
        ax.set_xlim(right=len(methods) - 0.1)  # room for the last mean in words
        ax.tick_params(axis="x", rotation=60, labelsize=8)
        model, task, metric = (part[n].iloc[0] for n in ("model", "task", "metric"))
        ax.set_title(f"{short_name(model)}\n{task_name(task)} ({metric})", fontsize=9)
    for ax in axes[::4]:
        ax.set_ylabel("validation (%)")
    return fig


@styled
def by_size(runs: pd.DataFrame) -> Figure:
    """The metric against the number of training rows (log): a panel per task and model, a line per method.

    Means over seeds with 95% Student t intervals, methods a little apart so that bars do not cover each other.
    `runs` holds one run per cell, method and seed.
    """
    places = list(runs[["model", "task"]].drop_duplicates().itertuples(index=False, name=None))
    fig, axes = panels(len(places), 3.5, 3.2, (1.5, 0.0), columns=2 if len(places) == 4 else 3)
    if not places:
        nothing_to_draw(axes[0])
        return fig
    methods = methods_of(runs)
    several = runs["model"].nunique() > 1
    for ax, (model, task) in zip(axes, places):
        part = runs[(runs["model"] == model) & (runs["task"] == task)]
        sizes = sorted(set(part["train_size"]))
        for n, method in enumerate(methods):
            shift = max(sizes[-1] / sizes[0], 2) ** (0.012 * (n - (len(methods) - 1) / 2))
            table = summary(part[part["method"] == method], ("train_size",)).sort_values("train_size")
            known, lost = table[table["n"] > 0], shift * table[table["lost"] > 0]["train_size"]
            x, y = known["train_size"] * shift, 100 * known["mean"]
            ax.errorbar(x, y, 100 * reach(known), ms=5, lw=1.5, capsize=2.5, **look_of(method))
            # A cross at the bottom: a run was lost.
            ax.plot(lost, [0.03] * len(lost), "x", color=color_of(method), transform=ax.get_xaxis_transform())
        majority_line(ax, part)
        ax.set_xscale("log")
        ax.set_xlim(sizes[0] / 1.25, sizes[-1] * 1.25)
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8.5)
        ax.minorticks_off()
        ax.set(ylabel=f"validation {part['metric'].iloc[-1]} (%)", xlabel="training rows")
        ax.set_title(f"{task_name(task)}\n{model_name(model)}" if several else task_name(task))
    drawn = set(finished(runs)["method"])
    handles = [Line2D([], [], ms=5, lw=1.5, **look_of(m)) for m in methods if m in drawn]
    return with_legend(fig, handles=handles)


@styled
def tau_cells(taus: pd.DataFrame) -> Figure:
    """Kendall's tau of each score with the accuracies, over cells: a panel per view, a point per cell.

    A point is a cell's mean over seeds, coloured by task; the bar is the mean over cells with its 95% interval over
    tasks (`comparisons.cluster_interval`), without an interval below three tasks. `taus` from
    `comparisons.tau_by_cell`.
    """
    cells, means = comparisons.cell_taus(taus), comparisons.tau_overall(taus)
    views = list(dict.fromkeys(cells["view"]))
    names = list(dict.fromkeys(cells["score"]))
    fig, axes = panels(len(views), 0.9 + 0.85 * len(names), 3.6, (1.9, 0.0), sharey=True)
    if not views:
        nothing_to_draw(axes[0])
        return fig
    looks = task_looks(cells["task"])
    for ax, view in zip(axes, views, strict=True):
        for x, name in enumerate(names):
            part = cells[(cells["view"] == view) & (cells["score"] == name)]
            spread = np.linspace(-0.3, 0.12, len(part)) if len(part) > 1 else [-0.09]
            for at, (task, tau) in zip(spread, part[["task", "tau"]].itertuples(index=False, name=None)):
                ax.plot(x + at, tau, ms=5, mew=0, alpha=0.75, ls="", **looks[task])
            for r in means[(means["view"] == view) & (means["score"] == name)].to_dict("records"):
                ax.errorbar([x + 0.3], [r["mean"]], reach(r), fmt="_", ms=11, mew=2, capsize=3, color="black")
        ax.axhline(0, color="#999999", lw=1)
        labels = [SCORE_NAMES[n].replace(" (", "\n(") for n in names]
        ax.set_xticks(range(len(names)), labels, fontsize=8.5)
        ax.set(ylim=(-1.12, 1.12), xlim=(-0.5, len(names) - 0.5), title=view)
        ax.grid(axis="x", visible=False)
    axes[0].set_ylabel("Kendall's tau with accuracy")
    handles = [Line2D([], [], ms=5, mew=0, ls="", label=task_name(task), **style) for task, style in looks.items()]
    note = no_interval(len(looks)).replace(": ", ",\n")
    label = "mean over cells" + (f"\n({note})" if note else ",\n95% over tasks")
    handles.append(Line2D([], [], color="black", marker="_", ms=11, mew=2, ls="", label=label))
    return with_legend(fig, handles=handles)


@styled
def differences(compared: pd.DataFrame, first: str, second: str) -> Figure:
    """The paired difference first - second in every cell, in points: mean over seeds, 95% Student t interval, p.

    Below the cells, in black, the mean over them with its interval over tasks (`comparisons.overall`). Beside each
    cell its sign-flip p, and Holm's over every row of `compared`. A cell in which one of the two is not learned is pale
    and counts in neither.
    """
    part = compared[(compared["first"] == first) & (compared["second"] == second)]
    fig, ax = plt.subplots(figsize=(8.0, 1.4 + 0.32 * (len(part) + 1)))
    ax.set_title(f"{method_name(first)} - {method_name(second)}")
    if not part["mean"].notna().any():
        nothing_to_draw(ax)
        return fig
    several = part["model"].nunique() > 1
    looks = task_looks(part["task"])
    labels = []
    for y, r in enumerate(part.to_dict("records")):
        model = f", {short_name(r['model'])}" if several else ""
        labels.append(f"{task_name(r['task'])}, {r['regime']}{model}")
        holm = NOT_LEARNED if r["not_learned"] else f"Holm {r['p_holm']:.2g}"
        p = f"p {r['p']:.2g}, {holm}"
        pale = {"alpha": 0.35} if r["not_learned"] else {}
        _forest_row(ax, y, r, p if r["n"] > 1 else "one seed" if r["n"] else MISSING, **looks[r["task"]] | pale)
    over = comparisons.overall(part).to_dict("records")[0]
    note = no_interval(over["tasks"]) or f"p over tasks {over['p_tasks']:.2g}"
    _forest_row(ax, len(part), over, note, color="black", marker="D")
    ax.axhline(len(part) - 0.5, color="#999999", lw=0.8)
    ax.axvline(0, color="#999999", lw=1)
    ax.set_yticks(range(len(part) + 1), [*labels, f"mean of {counted(over['cells'], 'cell')}"])
    ax.set(ylim=(len(part) + 0.6, -0.6), xlabel="difference in points")
    ax.grid(axis="y", visible=False)
    return fig


def _forest_row(ax: Axes, y: float, row: Mapping[Any, Any], note: str, **look: Any) -> None:
    """A mean with its interval, in points, and a note beside it; no mark where there is no mean."""
    if np.isfinite(row["mean"]):
        ax.errorbar([100 * row["mean"]], [y], xerr=100 * reach(row), ms=6, capsize=3, ls="", **look)
    ax.annotate(note, (1.015, y), xycoords=("axes fraction", "data"), va="center", fontsize=8)
