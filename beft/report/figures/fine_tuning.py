"""Figures of fine-tuning: scores by method, over epochs and over rates; b_k beside the head alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..intervals import DRAWN_FROM, cut_interval, finished, summary
from ..names import described, lost_runs, paper_described, paper_results
from ..style import (
    GREY,
    SEED_SIZE,
    TERMS,
    above,
    bars,
    color_of,
    label_of,
    look_of,
    majority_line,
    marks,
    methods_as_points,
    methods_of,
    nothing_to_draw,
    percent_axis,
    seed_points,
    styled,
    title_above,
    with_legend,
    with_legend_below,
)

_COLUMNS = (("train_loss", 1), ("validation", 100))  # of the curves, with the scale they are drawn in
_PAPER: dict[str, Any] = {"color": "black", "lw": 2.4}


def paper_marks(ax: Axes, runs: pd.DataFrame, methods: Sequence[str]) -> list[Artist]:
    """Short black lines with the paper's printed numbers, where it has them for the task and rows of these runs.

    `runs` are of one cell, a method per column as in `methods_as_points`, under a title with room for two rows of
    numbers. Returned are entries of a legend that say of which model, rows, epochs and seeds the lines and the coloured
    marks are; none where no line is drawn, as beside a stand-in (`paper.beside`).
    """
    results = paper_results(runs)
    percent = {m: x for r in results for m, x in r["percent"].items() if m in methods}
    if not percent:
        return []
    places = {float(list(methods).index(m)): value for m, value in percent.items()}
    for x, value in places.items():
        ax.hlines(value, x - 0.44, x - 0.26, **_PAPER)
    above(ax, {x: f"{value:.1f}" for x, value in places.items()}, 1, "paper")
    return [Line2D([], [], **_PAPER, label=f"paper: {paper_described(results[0])}"), *measured_marks(runs)]


def measured_marks(runs: pd.DataFrame) -> list[Artist]:
    """The entries of a legend that say of which model, rows, epochs and seeds the coloured marks are."""
    if not len(runs):
        return []
    seeds = runs["seed"].nunique()
    ours = Line2D([], [], color=GREY, alpha=0, label=f"coloured: {described(runs)}")
    return [ours, seeds_entry(seeds)] if seeds > 1 else [ours]


def seeds_entry(seeds: int) -> Line2D:
    """The entry of a legend that says what points, and bars where there are any, are."""
    bars = "; bars: 95% interval of the mean" if seeds >= DRAWN_FROM else ""
    look: dict[str, Any] = {"color": GREY, "alpha": 0.5, "ls": "", "marker": "o", "mew": 0, "ms": SEED_SIZE}
    return Line2D([], [], **look, label=f"points: seeds{bars}")


@styled
def accuracy_by_method(runs: pd.DataFrame, metric: str = "accuracy") -> Figure:
    """Last-epoch metric of each method: a point per seed, mean and 95% interval.

    With the paper's numbers as short lines, see `paper_marks`.
    """
    methods = methods_of(runs)
    fig, ax = plt.subplots(figsize=(1.8 + 1.0 * max(len(methods), 3), 5.2))
    rows = 2 if paper_results(runs) else 1
    methods_as_points(ax, runs, methods, "Last epoch", rows)
    handles = paper_marks(ax, runs, methods) or measured_marks(runs)
    handles += majority_line(ax, runs)
    ax.set_ylabel(f"validation {metric} (%)")
    percent_axis(ax, metric)
    return with_legend_below(fig, handles)


def _label_curves(axes: Sequence[Axes], metric: str) -> None:
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set(xlabel="epoch", ylabel="training loss", title="Training loss")
    axes[1].set(xlabel="epoch", ylabel=f"validation {metric} (%)", title="Validation")
    percent_axis(axes[1], metric)


@styled
def learning_curves(curves: pd.DataFrame, metric: str = "accuracy") -> Figure:
    """Training loss and validation metric per epoch: mean over seeds and 95% Student t band, a line per method.

    Over fewer than `DRAWN_FROM` seeds a pale line per seed stands in place of the band. Lost runs (`names.lost_runs`)
    are not drawn, and counted in the legend.
    """
    fig, axes = plt.subplots(1, 2, figsize=(10.0, 3.9))
    ended = curves.drop_duplicates("key", keep="last")
    for ax, (column, scale) in zip(axes, _COLUMNS, strict=True):
        for method in methods_of(curves):
            lost, look = lost_runs(ended[ended["method"] == method], "validation"), look_of(method) | {"ms": 5}
            look["label"] += f" ({lost} lost)" if lost else ""
            part = finished(curves[curves["method"] == method]).dropna(subset=[column])
            measure, color = metric if column == "validation" else column, color_of(method)
            means = {epoch: cut_interval(g[column], measure) for epoch, g in part.groupby("epoch")}
            ax.plot(list(means), [scale * i.mean for i in means.values()], **look)
            seeds = part["seed"].nunique()
            if seeds >= DRAWN_FROM:
                ends = scale * np.array([(i.low, i.high) for i in means.values()]).reshape(-1, 2)
                ax.fill_between(list(means), *ends.T, color=color, alpha=0.13, lw=0)
            elif seeds > 1:
                for _, g in part.groupby("seed"):
                    ax.plot(g["epoch"], scale * g[column], color=color, lw=0.9, alpha=0.4)
    _label_curves(axes, metric)
    return with_legend(fig, axes[0])


@styled
def moved_biases(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """How far tuning moved each bias, by layer: bars of the terms that moved, and beside them the size of every bias.

    `rows` of `bank.moved_biases`.
    """
    frame = pd.DataFrame(rows).sort_values("layer")
    by_term = {term: frame[frame["term"] == f"b_{term}"] for term in TERMS}
    moved = [term for term, mine in by_term.items() if mine["change"].any()]
    fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.2))
    for n, term in enumerate(moved):
        mine, width = by_term[term], 0.8 / len(moved)
        axes[0].bar(
            mine["layer"] + width * (n - (len(moved) - 1) / 2), mine["change"], 0.9 * width, color=color_of(f"b_{term}")
        )
    for term, mine in by_term.items():
        axes[1].plot(mine["layer"], mine["size"], **look_of(f"b_{term}"))
    for ax, column, title in zip(axes, ("change", "size"), ("Change by tuning", "Before tuning"), strict=True):
        ax.set(title=title, xlabel="layer", ylim=(0, 1.08 * frame[column].max() or 1))
        ax.set(xlim=(frame["layer"].min() - 0.6, frame["layer"].max() + 0.6))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(axis="x", visible=False)
    axes[0].set_ylabel(r"$\|\Delta b\|$")
    axes[1].set_ylabel(r"$\|b\|$")
    if not moved:
        axes[0].annotate("no bias moved", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center")
    return with_legend(fig, axes[1])


@styled
def coincidence(curves: pd.DataFrame, metric: str = "accuracy") -> Figure:
    """The curves of b_k and of the head alone over each other, a line per seed: the head broad and pale, b_k dashed.

    Where only one epoch was scored, a point in the place of a line, the head's large and pale.
    """
    fig, axes = plt.subplots(1, 2, figsize=(9.0, 3.7))
    for ax, (column, scale) in zip(axes, _COLUMNS, strict=True):
        for method, line, size in (("head", {"lw": 6, "alpha": 0.3, "ls": "-"}, 14), ("b_k", {"lw": 2}, 6)):
            part = curves[curves["method"] == method].dropna(subset=[column])
            look = look_of(method) | {"marker": ""} | line
            for n, (_, g) in enumerate(part.groupby(["seed", "rate"])):
                point = {"marker": "o", "ms": size} if len(g) == 1 else {}
                ax.plot(g["epoch"], scale * g[column], **look | {"label": None if n else look["label"]} | point)
    _label_curves(axes, metric)
    axes[0].legend(title="a line per seed")
    return fig


def _sweep(ax: Axes, grid: pd.DataFrame, chosen: Mapping[str, float], equal: float | None, value: str) -> list[Artist]:
    """Metric against rate on one pair of axes: seeds as points, means joined; a ring marks each method's chosen rate.

    A cross at the bottom is a lost run. Returned are the entries of lines in a legend.
    """
    methods, tables = methods_of(grid), summary(grid, ("method", "rate"), value).sort_values("rate")
    for n, method in enumerate(methods):
        runs, table, look = grid[grid["method"] == method], tables[tables["method"] == method], look_of(method)
        shift = 1.07 ** (n - (len(methods) - 1) / 2)  # so that marks of equal rates stay apart
        x, y = table["rate"] * shift, 100 * table["mean"]
        for rate, part in finished(runs).groupby("rate"):
            seed_points(ax, rate * shift, 100 * part[value], look["color"])
        marks(ax, x, y, **look)
        bars(ax, x, table, 100, look["color"])
        ring = np.isclose(table["rate"], chosen.get(method, np.nan))
        marks(ax, x[ring], y[ring], marker="o", ls="", ms=15, mfc="none", mec=look["color"], mew=1.6)
        lost = table[table["lost"] > 0]["rate"] * shift
        ax.plot(lost, [0.02] * len(lost), "x", color=look["color"], transform=ax.get_xaxis_transform())
    handles: list[Artist] = [*majority_line(ax, grid)] if value == "final" else []  # it is that of the validation split
    ax.set_xscale("log")
    rates = sorted(set(grid["rate"]))
    ax.set_xticks(rates, [f"{rate:g}" + ("\n(for all)" if rate == equal else "") for rate in rates])
    ax.minorticks_off()
    ax.set_xlabel("learning rate")
    return handles


@styled
def rate_sweep(
    grid: pd.DataFrame, chosen: Mapping[str, float], equal: float | None = None, metric: str = "accuracy"
) -> Figure:
    """Metric against rate per method (seeds and means), on the tuning split that chooses and on validation.

    `chosen`: method -> its own rate (a ring); `equal`: the common rate, named at its tick. A cross: a run was lost.
    """
    width = max(10.4, 1.6 * grid["rate"].nunique())  # so that the ticks' texts do not touch
    fig, axes = plt.subplots(1, 2, figsize=(width, 4.3), sharey=True)
    titles = {"final_tuning": "Tuning split: chooses", "final": "Validation: reports"}
    handles: list[Artist] = []
    for ax, (value, title) in zip(axes, titles.items(), strict=True):
        handles += _sweep(ax, grid, chosen, equal, value)
        ax.set_title(title)
    percent_axis(axes[0], metric)
    axes[0].set_ylabel(f"{metric} (%)")
    ring = Line2D([], [], ls="", marker="o", ms=15, mfc="none", mec=GREY, mew=1.6, label="ring: chosen rate")
    return with_legend(
        fig, axes[0], [ring, *handles], title=described(grid).replace(": ", ":\n", 1).replace(", ", ",\n")
    )


@styled
def two_views(equal: pd.DataFrame, own: pd.DataFrame, metric: str = "accuracy") -> Figure:
    """The same methods at one common rate and each at its own: a point per seed, mean and 95% interval.

    With the paper's numbers as short lines, see `paper_marks`.
    """
    methods = methods_of(pd.concat([equal, own]))
    fig, axes = plt.subplots(1, 2, figsize=(1.8 + 1.6 * max(len(methods), 3), 5.3), sharey=True)
    handles: list[Artist] = []
    rows = 2 if paper_results(equal) or paper_results(own) else 1
    for ax, runs, title in zip(axes, (equal, own), ("One rate for all", "Each at its own rate"), strict=True):
        methods_as_points(ax, runs, methods, title, rows)
        handles += paper_marks(ax, runs, methods) or measured_marks(runs)
    for ax, runs in zip(axes, (equal, own), strict=True):  # after both: they share their axis
        handles += majority_line(ax, runs)
    rates = {m: g["rate"].iloc[0] for m, g in own.groupby("method")}
    names = [tick.get_text() for tick in axes[1].get_xticklabels()]
    axes[1].set_xticks(
        range(len(methods)), [n + (f"\n{rates[m]:g}" if m in rates else "") for n, m in zip(names, methods)]
    )
    axes[1].set_xlabel("the method's learning rate")
    if len(equal):
        axes[0].set_xlabel(f"learning rate {equal['rate'].iloc[0]:g}")
    axes[0].set_ylabel(f"validation {metric} (%)")
    percent_axis(axes[0], metric)
    return with_legend_below(fig, handles)


@styled
def overview(runs: pd.DataFrame, metric: str = "accuracy") -> Figure:
    """The README's figure: b_q, b_k and b_v as measured at one rate, and beside them the paper's three printed numbers.

    Two panels on one scale, each under the model, rows, epochs and seeds that it is of; the left one alone where the
    paper has no number for the task and rows of these runs. `runs` are of one cell.
    """
    terms = [f"b_{t}" for t in TERMS]
    ours = runs[runs["method"].isin(terms)]
    results = [r for r in paper_results(ours) if set(r["percent"]) & set(terms)]
    width = 1 + bool(results)
    fig, axes = plt.subplots(1, width, figsize=(4.9 * width, 4.2), sharey=True, squeeze=False)
    left = axes[0, 0]
    if not len(ours):
        nothing_to_draw(left)
        return fig
    rates = " / ".join(f"{rate:g}" for rate in dict.fromkeys(ours["rate"]))
    methods_as_points(left, ours, terms, _in_two_lines("Measured here", f"{described(ours)}, rate {rates}"))
    left.set_ylabel(f"validation {metric} (%)")
    for ax, result in zip(axes[0, 1:], results):
        _printed(ax, {m: result["percent"][m] for m in terms if m in result["percent"]}, terms)
        title_above(ax, _in_two_lines("Printed in the paper", paper_described(result)))
    handles = majority_line(left, ours)
    percent_axis(left, metric)
    seeds = ours["seed"].nunique()
    if seeds > 1:
        handles.insert(0, seeds_entry(seeds))
    return with_legend_below(fig, handles, columns=2)


def _in_two_lines(what: str, described: str) -> str:
    """A title: what it is and the model, and below it the rows, epochs and seeds."""
    return f"{what}: " + described.replace(": ", "\n", 1).removesuffix(", as printed")


def _printed(ax: Axes, percent: Mapping[str, float], terms: Sequence[str]) -> None:
    """The paper's printed numbers as short black lines, a column per term."""
    for method, value in percent.items():
        ax.hlines(value, terms.index(method) - 0.2, terms.index(method) + 0.2, **_PAPER)
    above(ax, {float(terms.index(m)): f"{value:.1f}" for m, value in percent.items()}, 0, "printed")
    ax.set_xticks(range(len(terms)), [label_of(m) for m in terms])
    ax.set_xlim(-0.5, len(terms) - 0.5)
    ax.grid(axis="x", visible=False)
