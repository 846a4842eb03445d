"""Figures of the ranking scores: by layer, against the accuracies, by precision and over epochs.

`scores` are frames of `dataframes.scores`, `averages` their layer averages (`intervals.term_scores`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..intervals import cut_interval, finished
from ..majority import TOO_FEW, not_learned
from ..names import SCORE_NAMES, mathtext
from ..style import (
    COLORS,
    GREY,
    PALE_GREY,
    SEED_SIZE,
    SMALL,
    TERM_NAMES,
    TERMS,
    color_of,
    entry,
    look_of,
    majority_line,
    mark_of,
    marks,
    mean_bar,
    methods_as_points,
    panels,
    percent_axis,
    seed_points,
    styled,
    with_legend,
)

GROWING = ("magnitude", "mag_angle")  # scores that grow with training
WIDE = 6  # layers; beyond, the cells of a heat map hold no numbers, but for the average
MEAN: dict[str, Any] = {"color": "black", "marker": "_", "ms": 14, "mew": 2.5}  # the look of a mean tau


def _layer_table(scores: pd.DataFrame, score: str) -> pd.DataFrame:
    """Terms x (layers, then their average) of one score, averaged over seeds."""
    part = scores[scores["score"] == score]
    table = part.pivot_table(index="term", columns="layer", values="value").reindex(list(TERMS))
    return table.assign(avg=table.mean(axis=1))


def alike(frame: pd.DataFrame, by: str, rest: Sequence[str], value: str) -> dict[str, list[str]]:
    """Names of the column `by` in order of appearance, those with equal values in all `rest` under the first of them.

    Scores that agree in every cell, or rank the terms alike for every seed, need one place in a figure and not four.
    """
    groups: dict[str, list[str]] = {}
    values = {str(name): part.set_index(list(rest))[value].to_dict() for name, part in frame.groupby(by, sort=False)}
    for name, mine in values.items():
        same = next((first for first in groups if _equal(values[first], mine)), name)
        groups.setdefault(same, []).append(name)
    return groups


def _equal(a: Mapping[Any, float], b: Mapping[Any, float]) -> bool:
    return a.keys() == b.keys() and np.allclose([a[k] for k in a], [b[k] for k in a], equal_nan=True)


def names_of(scores: Sequence[str]) -> str:
    """The names of scores that share a place in a figure, a line each."""
    return "\n".join(SCORE_NAMES[name] for name in scores)


def _norm(values: np.ndarray) -> Normalize:
    """A colour scale from the smallest to the largest value; logarithmic where they span more than a factor of 30.

    A value of exactly zero is off a logarithmic scale, which begins at the smallest other one.
    """
    top = float(np.nanmax(values)) or 1.0
    least = float(values[values > 0].min(initial=top))
    return LogNorm(least, top) if least < top / 30 else Normalize(0, top)


def _ink(color: tuple[float, ...]) -> str:
    """Black or white, whichever has the higher contrast on this colour (relative luminance of WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return "black" if np.dot((0.2126, 0.7152, 0.0722), linear) > 0.179 else "white"


def _heat(ax: Axes, table: pd.DataFrame, title: str) -> None:
    """One heat map; its numbers are those of the average, and of every layer where these are few (`WIDE`)."""
    values, layers = table.to_numpy(), table.shape[1] - 1
    norm, cmap = _norm(values), mpl.colormaps["viridis"].with_extremes(bad="#e0e0e0")
    log, few = isinstance(norm, LogNorm), layers <= WIDE
    edges = [np.arange(layers + 1), layers + np.array([0.2, 1.2 if few else 2.8])]  # of the layers, of the average
    for x, part in zip(edges, (values[:, :-1], values[:, -1:])):
        cells = np.ma.masked_where(part <= 0, part) if log else part
        mesh = ax.pcolormesh(x, np.arange(len(table) + 1), cells, norm=norm, cmap=cmap)
    ax.figure.colorbar(mesh, ax=ax, pad=0.015, aspect=12)
    places = [*(np.arange(layers) + 0.5), float(edges[1].mean())]
    for (y, n), value in np.ndenumerate(values):
        if n == layers or few:
            color = cmap(norm(value)) if value > 0 or not log else cmap.get_bad()
            look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALL, "color": _ink(tuple(color))}
            ax.text(places[n], y + 0.5, _short(value), **look)
    ax.set_xticks(places, [str(n) for n in table.columns])
    ax.set_yticks(np.arange(len(table)) + 0.5, [TERM_NAMES[t] for t in table.index], fontsize=12)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set(title=title + (" (log colour)" if log else ""), xlabel="layer", ylim=(len(table), 0))


def _short(value: float) -> str:
    """A score in two digits: 0.022, 3.5e-6."""
    return f"{value:.1e}".replace("e-0", "e-") if 0 < value < 1e-3 else f"{value:.2g}"


@styled
def heatmaps(scores: pd.DataFrame, runs: pd.DataFrame, names: Sequence[str], metric: str = "accuracy") -> Figure:
    """Fig. 2: a heat map (terms x layers, plus the average) per score, and the terms' accuracies in the last panel.

    Every map has its own scale, which reaches its smallest and largest value; values are means over seeds; a score
    without values has no map. `runs` holds one run per term and seed.
    """
    names = [name for name in names if (scores["score"] == name).any()]
    layers = scores["layer"].nunique()
    width = 1.3 + (0.62 if layers <= WIDE else 0.3) * layers + 0.6
    fig, axes = panels(len(names) + 1, min(max(width, 4.2), 7.5), 2.7, columns=2)
    for ax, name in zip(axes, names):
        _heat(ax, _layer_table(scores, name), SCORE_NAMES[name])
    ax = axes[-1]
    methods_as_points(ax, runs, [f"b_{t}" for t in TERMS], "After tuning")
    handles = majority_line(ax, runs)
    ax.set_ylabel(f"{metric} (%)")
    percent_axis(ax, metric)
    if handles:
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    return fig


@styled
def rank_vs_accuracy(averages: pd.DataFrame, runs: pd.DataFrame, metric: str = "accuracy") -> Figure:
    """Fig. 1b: each term's rank under each score (1 = highest layer average) against its accuracy.

    Small points are seeds, large marks the term's mean accuracy at the rank of its mean score. A score that ranks
    rightly falls from left to right. A term that is not learned (`majority`) is an open mark off the line. Scores that
    rank the terms alike for every seed share a panel.
    """
    unlearned = not_learned(runs)
    accuracy = 100 * finished(runs).set_index(["method", "seed"])["final"]
    ranked = averages.assign(rank=averages.groupby(["score", "seed"])["value"].rank(ascending=False))
    groups = alike(ranked, "score", ("seed", "term"), "rank")
    lines = max(map(len, groups.values()), default=1)
    fig, axes = panels(len(groups), 2.9, 3.4 + 0.2 * lines, (1.2, 0.0), sharey=True)
    for ax, (name, names) in zip(axes, groups.items()):
        part = ranked[ranked["score"] == name]
        ranks = part.pivot_table(index="seed", columns="term", values="rank").reindex(columns=list(TERMS))
        overall = part.groupby("term")["value"].mean().rank(ascending=False)
        line = []
        for term in TERMS:
            seeds = [s for s in ranks.index if (f"b_{term}", s) in accuracy.index]
            y = [accuracy[f"b_{term}", s] for s in seeds]
            look: dict[str, Any] = {"ms": SEED_SIZE, "mew": 0, "alpha": 0.5, "ls": "", "marker": "o"}
            if len(seeds) > 1:
                marks(ax, ranks.loc[seeds, term] - 0.25, y, color=COLORS[term], **look)
            if seeds:
                line.append((overall[term], float(np.mean(y)), f"b_{term}"))
        joined = [(rank, mean) for rank, mean, method in sorted(line) if method not in unlearned]
        ax.plot([r for r, _ in joined], [a for _, a in joined], "-", color=PALE_GREY, lw=1.2, zorder=1)
        for rank, mean, method in line:
            inside = "white" if method in unlearned else color_of(method)
            marks(ax, [rank], [mean], mfc=inside, mew=1.4, **mark_of(method) | {"ms": 10, "ls": ""})
        ax.set(title=names_of(names), xlabel="rank by score", xticks=[1, 2, 3], xlim=(0.5, 3.5))
        ax.margins(y=0.1)
    handles = [entry(f"b_{t}") for t in TERMS]
    for ax in axes:
        handles += majority_line(ax, runs)
    axes[0].set_ylabel(f"validation {metric} (%)")
    percent_axis(axes[0], metric)
    return with_legend(fig, handles=handles)


@styled
def agreement(taus: pd.DataFrame) -> Figure:
    """Kendall's tau of each score with the accuracies, a panel per view: a point per seed and the mean.

    A mean over `DRAWN_FROM` seeds or more has its 95% interval (cut at -1 and 1). Scores that agree for every seed
    share a column. Where a view has fewer than two learned terms, its title says so.
    """
    groups = alike(taus, "score", ("view", "seed"), "tau")
    views = list(dict.fromkeys(taus["view"]))
    fig, axes = panels(len(views), 0.9 + 1.3 * max(len(groups), 2), 4.2, (1.9, 0.0), sharey=True)
    for ax, view in zip(axes, views):
        mine = taus[taus["view"] == view]
        for x, name in enumerate(groups):
            values = mine[mine["score"] == name]["tau"].dropna()
            seed_points(ax, x - 0.1, values, "black", 0.2)
            mean_bar(ax, x + 0.15, cut_interval(values, "tau"), 1, **MEAN)
        ax.set_title(mathtext(view) + (f":\n{TOO_FEW}" if (mine["learned"] < 2).all() else ""))
        tau_axis(ax, groups)
    axes[0].set_ylabel("Kendall's tau with accuracy")
    point = Line2D([], [], color="black", ls="", marker="o", mew=0, alpha=0.5, ms=SEED_SIZE, label="seed")
    return with_legend(fig, handles=[point, Line2D([], [], ls="", label="mean over seeds", **MEAN)])


def tau_axis(ax: Axes, groups: Mapping[str, Sequence[str]]) -> None:
    """The axes of a panel of Kendall's taus, with a column per group of scores (`alike`)."""
    ax.axhline(0, color=GREY, lw=1, zorder=0.8)
    ax.set_xticks(range(len(groups)), [names_of(names) for names in groups.values()])
    ax.set(ylim=(-1.12, 1.12), xlim=(-0.5, len(groups) - 0.5), yticks=np.arange(-1, 1.1, 0.5))
    ax.grid(axis="x", visible=False)


def _look(term: str) -> dict[str, Any]:
    return look_of(f"b_{term}") | {"ls": "-"}


@styled
def norms(scores: pd.DataFrame) -> Figure:
    """Euclidean norm of each pre-trained bias by layer, logarithmic: what Mag+Angle divides by (THEORY 6)."""
    part = scores[scores["score"] == "norms"].drop_duplicates(["term", "layer"])
    fig, ax = plt.subplots(figsize=(7.0, 3.7))
    for term in TERMS:
        mine = part[(part["term"] == term) & (part["value"] > 0)].sort_values("layer")
        ax.plot(mine["layer"], mine["value"], **_look(term))
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="layer", ylabel="norm of the pre-trained bias", title="Size of the biases before tuning")
    return with_legend(fig, ax)


@styled
def ranking_by_precision(averages: pd.DataFrame) -> Figure:
    """The same scores from a float32 run and a lower-precision one: layer average, log scale, points are seeds."""
    dtypes = sorted(averages["dtype"].unique(), reverse=True)  # float32 before bfloat16
    fig, axes = panels(len(GROWING), 3.8, 3.6, (0.8, 0.0))
    for ax, name in zip(axes, GROWING, strict=True):
        part = averages[averages["score"] == name]
        floor = part.loc[part["value"] > 0, "value"].min()  # a score of exactly zero is drawn at the bottom
        for n, term in enumerate(TERMS):
            for m, dtype in enumerate(dtypes):
                values = part[(part["term"] == term) & (part["dtype"] == dtype)]["value"].clip(lower=floor)
                place = m + (n - 1) * 0.26
                seed_points(ax, place - 0.09, values, COLORS[term])
                if len(values):
                    ax.plot([place], [values.mean()], ls="", **mark_of(f"b_{term}"))
        ax.set_yscale("log")
        ax.set_xticks(range(len(dtypes)), dtypes)
        ax.set(title=SCORE_NAMES[name], xlim=(-0.5, len(dtypes) - 0.5))
        ax.grid(axis="x", visible=False)
    axes[0].set_ylabel("layer average of the score")
    return with_legend(fig, handles=[entry(f"b_{t}") for t in TERMS])


@styled
def scores_over_epochs(averages: pd.DataFrame) -> Figure:
    """The layer average of the scores that grow with training, after every epoch: mean over seeds, range as a band."""
    fig, axes = panels(len(GROWING), 4.2, 3.6, (0.8, 0.0))
    for ax, name in zip(axes, GROWING, strict=True):
        for term in TERMS:
            part = averages[(averages["score"] == name) & (averages["term"] == term)]
            by = part.groupby("epoch")["value"]
            ax.plot(by.mean().index, by.mean(), **_look(term))
            ax.fill_between(by.min().index, by.min(), by.max(), color=COLORS[term], alpha=0.15, lw=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_yscale("log")
        ax.set(title=SCORE_NAMES[name], xlabel="epoch")
    axes[0].set_ylabel("layer average of the score")
    return with_legend(fig, axes[0])
