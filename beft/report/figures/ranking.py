"""Figures of the ranking scores: by layer, against the accuracies, by precision and over epochs.

`scores` are frames of `dataframes.scores`, `averages` their layer averages (`intervals.term_scores`).
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..intervals import cut_interval, finished
from ..majority import TOO_FEW, not_learned
from ..names import SCORE_NAMES
from ..style import (
    COLORS,
    MARKERS,
    TERM_NAMES,
    TERMS,
    majority_line,
    mean_bar,
    methods_as_points,
    panels,
    styled,
    with_legend,
)

GROWING = ("magnitude", "mag_angle")  # scores that grow with training
WIDE = 12  # layers; beyond, the cells of a heat map hold no numbers


def _layer_table(scores: pd.DataFrame, score: str) -> pd.DataFrame:
    """Terms x (layers, then their average) of one score, averaged over seeds."""
    part = scores[scores["score"] == score]
    table = part.pivot_table(index="term", columns="layer", values="value").reindex(list(TERMS))
    return table.assign(avg=table.mean(axis=1))


def _heat(ax: Axes, table: pd.DataFrame, title: str) -> None:
    """One heat map; a logarithmic colour scale where the values span more than a factor of 30."""
    values = table.to_numpy()
    top = float(np.nanmax(values)) or 1.0
    log = values[values > 0].min(initial=top) < top / 30
    # Four decades at most: a null b_k, at rounding noise, would otherwise use up the whole scale.
    floor = max(values[values > 0].min(initial=top), top / 1e4)
    norm = LogNorm(floor, top) if log else Normalize(0, top)
    few = table.shape[1] - 1 <= WIDE
    text = np.vectorize(lambda v: f"{v:.1e}".replace("e-0", "e-") if 0 < v < 1e-3 else f"{v:.2g}")(values)
    look = {"cmap": "crest", "annot_kws": {"size": 7.5}, "cbar_kws": {"pad": 0.01, "aspect": 12}}
    cells = table.clip(lower=floor) if log else table
    sns.heatmap(cells, ax=ax, norm=norm, annot=text if few else None, fmt="", **look)
    ax.axvline(table.shape[1] - 1, color="white", lw=4)
    ax.set_yticklabels([TERM_NAMES[t] for t in table.index], rotation=0)
    ax.set(title=title + (" (log colour)" if log else ""), xlabel="layer", ylabel="")


@styled
def heatmaps(scores: pd.DataFrame, runs: pd.DataFrame, names: Sequence[str], metric: str = "accuracy") -> Figure:
    """Fig. 2: a heat map (terms x layers, plus the average) per score, the terms' accuracies beside them.

    Every map has its own scale; values are means over seeds; a score without values has no map. `runs` holds one run
    per term and seed.
    """
    names = [name for name in names if (scores["score"] == name).any()]
    rows = -(-len(names) // 2)
    width = 2 * min(1.6 + 0.55 * scores["layer"].nunique(), 7.0)
    fig = plt.figure(figsize=(width + 3.0, 2.15 * rows + 0.3))
    grid = fig.add_gridspec(rows, 3, width_ratios=[width / 2, width / 2, 2.9])
    for n, name in enumerate(names):
        _heat(fig.add_subplot(grid[n // 2, n % 2]), _layer_table(scores, name), SCORE_NAMES[name])
    ax = fig.add_subplot(grid[:, 2])
    methods_as_points(ax, runs, [f"b_{t}" for t in TERMS])
    majority_line(ax, runs)
    ax.set(title="After tuning", ylabel=f"validation {metric} (%)")
    return fig


@styled
def rank_vs_accuracy(averages: pd.DataFrame, runs: pd.DataFrame, metric: str = "accuracy") -> Figure:
    """Fig. 1b: each term's rank under each score (1 = highest layer average) against its accuracy.

    Small points are seeds, large ones the term's mean accuracy at the rank of its mean score. A score that ranks
    rightly falls from left to right. A term that is not learned (`majority`) is an open point off the line.
    """
    names = list(dict.fromkeys(averages["score"]))
    unlearned = not_learned(runs)
    accuracy = 100 * finished(runs).set_index(["method", "seed"])["final"]
    fig, axes = panels(len(names), 2.3, 3.2, (0.8, 0.0), sharey=True)
    for ax, name in zip(axes, names, strict=True):
        part = averages[averages["score"] == name]
        table = part.pivot_table(index="seed", columns="term", values="value").reindex(columns=list(TERMS))
        ranks = table.rank(axis=1, ascending=False)
        overall = table.mean().rank(ascending=False)
        line = []
        for term in TERMS:
            seeds = [s for s in table.index if (f"b_{term}", s) in accuracy.index]
            y = [accuracy[f"b_{term}", s] for s in seeds]
            ax.plot(ranks.loc[seeds, term] - 0.2, y, "o", ms=4, mew=0, alpha=0.4, color=COLORS[term])
            if seeds:
                line.append((overall[term], float(np.mean(y)), term))
        line.sort()
        joined = [(rank, mean) for rank, mean, term in line if f"b_{term}" not in unlearned]
        ax.plot([r for r, _ in joined], [a for _, a in joined], "-", color="#999999", lw=1, zorder=1)
        for rank, mean, term in line:
            inside = "white" if f"b_{term}" in unlearned else COLORS[term]
            ax.plot(rank, mean, "o", ms=9, color=COLORS[term], mfc=inside)
            ax.annotate(TERM_NAMES[term], (rank, mean), (0, 8), textcoords="offset points", ha="center")
        ax.set(title=SCORE_NAMES[name], xlabel="rank by score", xticks=[1, 2, 3], xlim=(0.5, 3.5))
        ax.margins(y=0.18)
        majority_line(ax, runs, label=ax is axes[0])
    axes[0].set_ylabel(f"validation {metric} (%)")
    return fig


@styled
def agreement(taus: pd.DataFrame) -> Figure:
    """Kendall's tau of each score with the accuracies: a point per seed, mean and 95% interval (cut at -1 and 1).

    Where a view has fewer than two learned terms, its entry in the legend says so.
    """
    names = list(dict.fromkeys(taus["score"]))
    views = list(dict.fromkeys(taus["view"]))
    fig, ax = plt.subplots(figsize=(1.9 + 1.35 * len(names), 3.4))
    for n, view in enumerate(views):
        color = ("#56B4E9", "#CC79A7")[n % 2]
        few = (taus[taus["view"] == view]["learned"] < 2).all()
        name_of_view = f"{view}:\n{TOO_FEW}" if few else view
        for x, name in enumerate(names):
            values = taus[(taus["score"] == name) & (taus["view"] == view)]["tau"].dropna().to_numpy()
            place = x + (n - (len(views) - 1) / 2) * 0.32
            spread = np.linspace(-0.06, 0.06, len(values)) if len(values) > 1 else np.zeros(len(values))
            ax.plot(place - 0.05 + spread, values, "o", ms=3.5, mew=0, alpha=0.5, color=color)
            look = {"fmt": "D", "ms": 6, "capsize": 3, "color": color, "label": None if x else name_of_view}
            mean_bar(ax, place + 0.08, cut_interval(values, "tau"), 1, **look)
    ax.axhline(0, color="#999999", lw=1)
    ax.set_xticks(range(len(names)), [SCORE_NAMES[n].replace(" (", "\n(") for n in names])
    ax.set(ylim=(-1.12, 1.12), ylabel="Kendall's tau with accuracy")
    ax.set_title("Does the score order the terms rightly?")
    ax.grid(axis="x", visible=False)
    return with_legend(fig, ax)


def _look(term: str) -> dict[str, Any]:
    return {"color": COLORS[term], "marker": MARKERS[f"b_{term}"], "label": TERM_NAMES[term]}


@styled
def norms(scores: pd.DataFrame) -> Figure:
    """Euclidean norm of each pre-trained bias by layer, logarithmic: what Mag+Angle divides by (THEORY 6)."""
    part = scores[scores["score"] == "norms"].drop_duplicates(["term", "layer"])
    fig, ax = plt.subplots(figsize=(5.4, 3.4))
    for term in TERMS:
        mine = part[(part["term"] == term) & (part["value"] > 0)].sort_values("layer")
        ax.plot(mine["layer"], mine["value"], ms=5, **_look(term))
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="layer", ylabel="norm of the pre-trained bias", title="Size of the biases before tuning")
    ax.legend(ncols=3, loc="best")
    return fig


@styled
def ranking_by_precision(averages: pd.DataFrame) -> Figure:
    """The same scores from a float32 run and a lower-precision one: layer average, points are seeds, log scale."""
    dtypes = sorted(averages["dtype"].unique(), reverse=True)  # float32 before bfloat16
    fig, axes = panels(len(GROWING), 3.6, 3.3, (0.6, 0.0))
    for ax, name in zip(axes, GROWING, strict=True):
        part = averages[averages["score"] == name]
        floor = part.loc[part["value"] > 0, "value"].min()  # a score of exactly zero is drawn at the bottom
        for n, term in enumerate(TERMS):
            for m, dtype in enumerate(dtypes):
                values = part[(part["term"] == term) & (part["dtype"] == dtype)]["value"].clip(lower=floor)
                place = m + (n - 1) * 0.2
                ax.plot([place] * len(values), values, "o", ms=4, mew=0, alpha=0.4, color=COLORS[term])
                label = TERM_NAMES[term] if m == 0 else None
                ax.plot([place], [values.mean()], "_", ms=16, mew=2.5, color=COLORS[term], label=label)
        ax.set_yscale("log")
        ax.set_xticks(range(len(dtypes)), dtypes)
        ax.set(title=SCORE_NAMES[name], xlim=(-0.5, len(dtypes) - 0.5))
        ax.grid(axis="x", visible=False)
    axes[0].set_ylabel("layer average of the score")
    return with_legend(fig, axes[0])


@styled
def scores_over_epochs(averages: pd.DataFrame) -> Figure:
    """The layer average of the scores that grow with training, after every epoch: mean over seeds, range as a band."""
    fig, axes = panels(len(GROWING), 4.0, 3.3, (0.6, 0.0))
    for ax, name in zip(axes, GROWING, strict=True):
        for term in TERMS:
            part = averages[(averages["score"] == name) & (averages["term"] == term)]
            by = part.groupby("epoch")["value"]
            ax.plot(by.mean().index, by.mean(), ms=4, **_look(term))
            ax.fill_between(by.min().index, by.min(), by.max(), color=COLORS[term], alpha=0.15, lw=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_yscale("log")
        ax.set(title=SCORE_NAMES[name], xlabel="epoch")
    axes[0].set_ylabel("layer average of the score")
    return with_legend(fig, axes[0])
