"""Figures of tuned language models, in the style of `beft.report.style`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .. import comparisons
from .. import intervals as statistics
from ..style import COLORS, MARKERS, TERM_NAMES, TERMS, methods_as_points, methods_of, styled


@styled
def by_task(scores: pd.DataFrame) -> Figure:
    """Every method's last-epoch metric: a panel per model and task, a point per seed.

    Args:
        scores: of `tables_prompted.scores`; the untuned model's zero-shot score is the dotted line.
    """
    cells = [part for _, part in comparisons.by_cell(scores)]
    methods = [m for m in methods_of(scores) if m != "zero_shot"]
    columns = min(len(cells), 4)
    rows = -(-len(cells) // columns)
    size = (1.0 + (0.5 + 0.5 * len(methods)) * columns, 1.0 + 2.6 * rows)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for ax, part in zip(axes.flat, cells):
        methods_as_points(ax, part, methods)
        zero = statistics.finished(part[part["method"] == "zero_shot"])["final"]
        if len(zero):
            ax.axhline(100 * zero.iloc[0], color="#666666", lw=1.2, ls=":")
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, -5), min(high, 108))  # intervals of few seeds go beyond what a metric can be
        ax.tick_params(axis="x", rotation=60, labelsize=8)
        model, task, metric = (part[n].iloc[0] for n in ("model", "task", "metric"))
        ax.set_title(f"{model}\n{task} ({metric})", fontsize=9)
    for ax in axes.flat[len(cells) :]:
        ax.set_visible(False)
    for row in axes:
        row[0].set_ylabel("validation (%)")
    return fig


@styled
def perturbations(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The relative change of the logits when numbers are added to each term's biases: a group per model, log scale.

    Args:
        rows: {"model", "term", "relative"}, as `expressiveness.perturbation_table` gives them in one precision.
    """
    models = list(dict.fromkeys(r["model"] for r in rows))
    fig, ax = plt.subplots(figsize=(2.2 + 1.5 * len(models), 3.4))
    for n, term in enumerate(TERMS):
        mine = {r["model"]: max(r["relative"], 1e-17) for r in rows if r["term"] == f"b_{term}"}
        x = np.arange(len(models)) + 0.2 * (n - 1)
        ax.plot(
            x,
            [mine[m] for m in models],
            MARKERS[f"b_{term}"],
            color=COLORS[term],
            ms=8,
            label=TERM_NAMES[term],
        )
    ax.axhline(np.finfo(np.float64).eps, color="#999999", lw=1, ls=":")
    ax.annotate("rounding of float64", (0.01, 3e-16), xycoords=("axes fraction", "data"), fontsize=8)
    ax.set_yscale("log")
    ax.set_xticks(range(len(models)), models)
    ax.set(ylabel="relative change of the logits", xlim=(-0.5, len(models) - 0.5))
    ax.grid(axis="x", visible=False)
    fig.legend(loc="outside right center")
    return fig
