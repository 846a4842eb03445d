"""Figures of single layers: what each reaches alone beside its scores, and how few do what all of them do."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .. import layer_orders
from ..intervals import finished, score_interval
from ..majority import is_learned
from ..names import SCORE_NAMES, mathtext, method_name
from ..style import (
    GREY,
    SMALL,
    color_of,
    entry,
    level_line,
    look_of,
    majority_line,
    mark_of,
    mean_bar,
    methods_of,
    nothing_to_draw,
    percent_axis,
    seed_points,
    styled,
    with_legend_below,
)

LINES = ("-", (0, (5, 2)), (0, (1, 1.5)), "-.")  # one for each way to choose layers


@styled
def by_layer(scores: pd.DataFrame, runs: pd.DataFrame, metric: str, by: Sequence[str]) -> Figure:
    """Above, the metric of runs that tune a term in one layer alone; below, the scores of that term by layer.

    The score of the head alone, or zero-shot, is the dotted line, that of the term in all layers stands at the right,
    both over the seeds of the single layers; an open mark is not learned (`majority`). Each row of the map runs from
    its own smallest value to its own largest.

    Args:
        scores: of `dataframes.scores`, layers from 1.
        runs: of one cell, of `dataframes.frame`: head, terms, and terms in one layer; of a language model, of
            `tables.decoders.scores`, with zero-shot for the head.
        by: the scores to show.
    """
    ones = layer_orders.by_layer(runs)
    runs = runs[runs["seed"].isin(ones["seed"])]  # what has more seeds than single layers is not compared with them
    terms = methods_of(ones.assign(method=ones["term"]))
    shown = [name for name in by if (scores["score"] == name).any()]
    depth = int(ones["layer"].max()) + 1 if len(ones) else 1
    width = 2.2 + 0.55 * min(max(depth, 6), 12) + 0.2 * max(depth - 12, 0)
    fig, (top, below) = plt.subplots(
        2, 1, figsize=(width, 5.4), height_ratios=[3, 0.28 + 0.32 * len(terms) * len(shown)]
    )
    if not len(ones):
        nothing_to_draw(top)
        nothing_to_draw(below)
        return fig
    for n, term in enumerate(terms):
        _layers_of(top, ones[ones["term"] == term], term, 0.09 * (2 * n - len(terms) + 1))
        whole = runs[runs["method"] == term]
        mean_bar(top, depth + 1.2, score_interval(whole), 100, **_mark(whole, term))
    handles = [entry(term, ls="-", lw=1.8) for term in terms]
    handles += _untuned_line(top, runs)
    handles += majority_line(top, runs)
    top.set(ylabel=f"validation {metric} (%)", xlim=(0.4, depth + 1.7))
    top.set_xticks([*range(1, depth + 1), depth + 1.2], [*map(str, range(1, depth + 1)), "all"])
    percent_axis(top, metric)
    _map(below, scores, terms, shown, depth)
    return with_legend_below(fig, handles, columns=4)


def _untuned_line(ax: Axes, runs: pd.DataFrame) -> list[Line2D]:
    """A dotted line at the head alone, or zero-shot."""
    method = layer_orders.untuned_of(runs)
    return level_line(
        ax, 100 * score_interval(runs[runs["method"] == method]).mean, method_name(method), ":", far=False
    )


def _mark(runs: pd.DataFrame, term: str) -> dict[str, Any]:
    """The mark of a term; an open one where these runs are not learned."""
    return {**mark_of(term), "mfc": color_of(term) if is_learned(runs) else "white", "mew": 1.4}


def _layers_of(ax: Axes, own: pd.DataFrame, term: str, shift: float) -> None:
    """The runs of one term, a place per layer."""
    places, means = [], []
    for layer, part in finished(own).groupby("layer"):
        at = float(str(layer)) + 1 + shift
        seed_points(ax, at, 100 * part["final"], color_of(term))
        interval = score_interval(part)
        mean_bar(ax, at, interval, 100, **_mark(part, term))
        places.append(at)
        means.append(100 * interval.mean)
    ax.plot(places, means, color=color_of(term), lw=1.4)


def _map(ax: Axes, scores: pd.DataFrame, terms: Sequence[str], shown: Sequence[str], depth: int) -> None:
    """Score by layer, a row per score and term, each from its smallest to its largest value."""
    rows = [(name, term) for name in shown for term in terms]
    values = np.full((max(len(rows), 1), depth), np.nan)
    for n, (name, term) in enumerate(rows):
        mine = scores[(scores["score"] == name) & (scores["term"] == term.removeprefix("b_"))]
        means = mine.groupby("layer")["value"].mean().reindex(range(1, depth + 1)).to_numpy(dtype=float)
        spread = np.nanmax(means) - np.nanmin(means) if np.isfinite(means).any() else 0.0
        values[n] = (means - np.nanmin(means)) / spread if spread else 0.0 * means
    ax.pcolormesh(np.arange(0.5, depth + 1), np.arange(len(values) + 1), values, cmap="viridis", vmin=0, vmax=1)
    for n, row in enumerate(values):
        if np.isfinite(row).any():
            ax.plot(np.nanargmax(row) + 1, n + 0.5, marker="*", ms=9, color="white", mec="black", mew=0.7, ls="")
    ax.set_yticks(np.arange(len(rows)) + 0.5, [mathtext(f"{SCORE_NAMES.get(s, s)}, {t}") for s, t in rows])
    ax.set(xlim=(0.4, depth + 1.7), xlabel="layer (star: the layer with the highest score)")
    ax.set_xticks(range(1, depth + 1))
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.tick_params(axis="y", labelsize=SMALL + 0.5)


@styled
def few_layers(runs: pd.DataFrame, picked: pd.DataFrame, metric: str) -> Figure:
    """The metric against how many layers of a term are tuned: a panel per term, a line per way to choose them.

    Args:
        runs: of one cell, with the head, or zero-shot, and the terms in all layers.
        picked: of `report.layer_orders.picks`.
    """
    terms = methods_of(picked.assign(method=picked["term"]))
    fig, axes = plt.subplots(1, max(len(terms), 1), figsize=(4.2 * max(len(terms), 1), 3.9), squeeze=False, sharey=True)
    handles: list[Line2D] = []
    if not terms:
        nothing_to_draw(axes[0, 0])
        return fig
    for ax, term in zip(axes[0], terms):
        own = picked[picked["term"] == term]
        for n, (by, part) in enumerate(own.groupby("by", sort=False)):
            at = part.sort_values("layers")
            found = [score_interval(runs[runs["method"] == method]) for method in at["method"]]
            look = {**look_of(term), "ls": LINES[n % len(LINES)], "marker": "o^sD"[n % 4], "alpha": 0.9}
            look["label"] = SCORE_NAMES.get(str(by), str(by))
            ax.plot(at["layers"], [100 * i.mean for i in found], **look)
            handles.append(Line2D([], [], **{**look, "color": GREY}))
        handles += _untuned_line(ax, runs)
        ax.set(title=mathtext(term), xlabel="layers that are tuned")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_ylabel(f"validation {metric} (%)")
    percent_axis(axes[0, 0], metric)
    return with_legend_below(fig, handles, columns=2)
