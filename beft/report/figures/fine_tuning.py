"""Figures of fine-tuning: scores by method, over epochs and over rates; b_k beside the head alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..intervals import cut_interval, summary
from ..names import described, method_name, paper_described, paper_results
from ..style import (
    COLORS,
    DASHES,
    MARKERS,
    TERM_NAMES,
    TERMS,
    color_of,
    look_of,
    majority_line,
    methods_as_points,
    methods_of,
    reach,
    styled,
    with_legend,
    with_legend_below,
)

_COLUMNS = (("train_loss", 1), ("validation", 100))  # of the curves, with the scale they are drawn in


def paper_marks(ax: Axes, runs: pd.DataFrame, methods: Sequence[str]) -> list[Line2D]:
    """Short black lines with the paper's printed numbers, where it has them for the task and rows of these runs.

    `runs` are of one cell, a method per column as in `methods_as_points`. Returned are entries of a legend that say of
    which model, rows, epochs and seeds the lines and the coloured marks are; none where no line is drawn, as beside a
    stand-in (`paper.beside`).
    """
    results = paper_results(runs)
    percent = {m: x for r in results for m, x in r["percent"].items() if m in methods}
    if not percent:
        return []
    ax.margins(y=0.1)  # room for the number of the highest
    for method, value in percent.items():
        x = list(methods).index(method)
        ax.hlines(value, x - 0.36, x + 0.1, color="black", lw=1.6)
        ax.annotate(f"{value:.1f}", (x - 0.36, value), (0, 1.5), textcoords="offset points", va="bottom", fontsize=7.5)
    look: dict[str, Any] = {"color": "#4d4d4d", "ls": "", "marker": "o", "ms": 6}
    return [
        Line2D([], [], color="black", lw=1.6, label=paper_described(results[0])),
        Line2D([], [], **look, label=f"{described(runs)} (points: seeds)"),
    ]


@styled
def accuracy_by_method(runs: pd.DataFrame, before: float | None = None, metric: str = "accuracy") -> Figure:
    """Last-epoch metric of each method: a point per seed, mean and 95% interval; `before`: the untuned model's.

    With the paper's numbers as short lines, see `paper_marks`.
    """
    methods = methods_of(runs)
    fig, ax = plt.subplots(figsize=(1.6 + 1.1 * len(methods), 3.6))
    methods_as_points(ax, runs, methods)
    if before is not None:
        ax.axhline(100 * before, color="#999999", lw=1, ls=":")
        look = {"ha": "right", "va": "bottom", "fontsize": 8}
        ax.annotate("before tuning", (0.995, 100 * before), xycoords=("axes fraction", "data"), **look)
    ax.set(ylabel=f"validation {metric} (%)", title="Last epoch: seeds, mean, 95% interval")
    handles = paper_marks(ax, runs, methods)
    majority_line(ax, runs)
    return with_legend_below(fig, handles)


def _label_curves(axes: Sequence[Axes], metric: str) -> None:
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set(xlabel="epoch", ylabel="training loss", title="Training loss")
    axes[1].set(xlabel="epoch", ylabel=f"validation {metric} (%)", title="Validation")


@styled
def learning_curves(curves: pd.DataFrame, metric: str = "accuracy") -> Figure:
    """Training loss and validation metric per epoch: mean over seeds and 95% Student t band, a line per method."""
    fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.6))
    for ax, (column, scale) in zip(axes, _COLUMNS, strict=True):
        for method in methods_of(curves):
            part = curves[curves["method"] == method].dropna(subset=[column])
            measure = metric if column == "validation" else column
            means = {epoch: cut_interval(g[column], measure) for epoch, g in part.groupby("epoch")}
            band = scale * np.array([(i.mean, i.low, i.high) for i in means.values()]).reshape(-1, 3)
            ax.plot(list(means), band[:, 0], ms=3.5, lw=1.6, **look_of(method))
            ax.fill_between(list(means), band[:, 1], band[:, 2], color=color_of(method), alpha=0.13, lw=0)
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
        axes[0].bar(mine["layer"] + width * (n - (len(moved) - 1) / 2), mine["change"], 0.9 * width, color=COLORS[term])
    for term, mine in by_term.items():
        look = {"color": COLORS[term], "marker": MARKERS[f"b_{term}"], "label": TERM_NAMES[term]}
        axes[1].plot(mine["layer"], mine["size"], **look)
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
    """The curves of b_k and of the head alone over each other, a line per seed: the head broad and pale, b_k dashed."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.4))
    for ax, (column, scale) in zip(axes, _COLUMNS, strict=True):
        for method, line in (("head", {"lw": 5, "alpha": 0.3}), ("b_k", {"lw": 1.5, "ls": DASHES["b_k"]})):
            part = curves[curves["method"] == method].dropna(subset=[column])
            for n, (_, g) in enumerate(part.groupby(["seed", "rate"])):
                label = None if n else method_name(method)
                ax.plot(g["epoch"], scale * g[column], color=color_of(method), label=label, **line)
    _label_curves(axes, metric)
    axes[0].legend(title="a line per seed")
    return fig


def _sweep(ax: Axes, grid: pd.DataFrame, chosen: Mapping[str, float], equal: float | None, value: str) -> None:
    """Metric against rate on one pair of axes; a ring marks each method's chosen rate, a cross a lost run."""
    methods = methods_of(grid)
    for n, method in enumerate(methods):
        table = summary(grid[grid["method"] == method], ("rate",), value).sort_values("rate")
        look = look_of(method)
        shift = 1.03 ** (n - (len(methods) - 1) / 2)  # so that bars of equal rates stay apart
        x, y = table["rate"] * shift, 100 * table["mean"]
        ax.errorbar(x, y, 100 * reach(table), ms=5, lw=1.5, capsize=2.5, **look)
        ring = np.isclose(table["rate"], chosen.get(method, np.nan))
        ax.plot(x[ring], y[ring], "o", ms=13, mfc="none", mec=look["color"], mew=1.4)
        lost = table[table["lost"] > 0]["rate"] * shift
        ax.plot(lost, [0.02 + 0.035 * n] * len(lost), "x", color=look["color"], transform=ax.get_xaxis_transform())
    if value == "final":  # the majority is that of the validation split
        majority_line(ax, grid)
    if equal is not None:
        ax.axvline(equal, color="#999999", lw=1, ls=":", zorder=0)
        ax.annotate(" equal rate", (equal, 0.97), xycoords=("data", "axes fraction"), fontsize=8, va="top")
    ax.set_xscale("log")
    rates = sorted(set(grid["rate"]))
    ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
    ax.minorticks_off()
    ax.set(xlabel="learning rate", title="Every rate (ring: chosen on tuning data)")


@styled
def rate_sweep(
    grid: pd.DataFrame, chosen: Mapping[str, float], equal: float | None = None, metric: str = "accuracy"
) -> Figure:
    """Metric against rate per method (mean, 95% interval), on the tuning split that chooses and on validation.

    `chosen`: method -> its own rate (a ring); `equal`: the common rate (a dotted line). A cross: a run was lost.
    """
    fig, axes = plt.subplots(1, 2, figsize=(10.4, 3.9), sharey=True)
    titles = {"final_tuning": "Tuning split: chooses", "final": "Validation: reports"}
    for ax, (value, title) in zip(axes, titles.items(), strict=True):
        _sweep(ax, grid, chosen, equal, value)
        ax.set_title(title)
    axes[0].set_ylabel(f"{metric} (%)")
    return with_legend(fig, axes[0], title="ring: chosen rate")


@styled
def two_views(equal: pd.DataFrame, own: pd.DataFrame, metric: str = "accuracy") -> Figure:
    """The same methods at one common rate and each at its own: a point per seed, mean and 95% interval.

    With the paper's numbers as short lines, see `paper_marks`.
    """
    methods = methods_of(pd.concat([equal, own]))
    fig, axes = plt.subplots(1, 2, figsize=(2.4 + 1.9 * len(methods), 3.7), sharey=True)
    handles: list[Line2D] = []
    for ax, runs, title in zip(axes, (equal, own), ("One rate for all", "Each at its own rate"), strict=True):
        methods_as_points(ax, runs, methods)
        handles = paper_marks(ax, runs, methods) or handles
        ax.set_title(title)
    for ax, runs in zip(axes, (equal, own), strict=True):  # after both: they share their axis
        majority_line(ax, runs)
    rates = {m: g["rate"].iloc[0] for m, g in own.groupby("method")}
    names = [method_name(m) + (f"\n{rates[m]:g}" if m in rates else "") for m in methods]
    axes[1].set_xticks(range(len(methods)), names)
    if len(equal):
        axes[0].set_xlabel(f"learning rate {equal['rate'].iloc[0]:g}")
    axes[0].set_ylabel(f"validation {metric} (%)")
    return with_legend_below(fig, handles)


@styled
def overview(
    runs: pd.DataFrame, grid: pd.DataFrame, chosen: Mapping[str, float], equal: float, metric: str = "accuracy"
) -> Figure:
    """The README's figure: every method at one rate, and the metric against the rate.

    With the paper's numbers as short lines, see `paper_marks`.
    """
    fig, axes = plt.subplots(1, 2, figsize=(11.5, 3.9), width_ratios=[1.0, 1.15])
    methods_as_points(axes[0], runs, methods_of(runs))
    axes[0].set(title=f"One rate for all ({equal:g})", ylabel=f"validation {metric} (%)")
    _sweep(axes[1], grid, chosen, equal, "final")
    axes[1].set_ylabel(f"validation {metric} (%)")
    handles = paper_marks(axes[0], runs, methods_of(runs))
    majority_line(axes[0], runs)
    return with_legend_below(with_legend(fig, axes[1]), handles)
