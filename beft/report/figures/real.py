"""Figures of the real model in notebook 05: the log odds of pronouns, occupation by occupation, before and after."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..style import GREY, PALE_GREY, label_of, mark_of, nothing_to_draw, panels, styled, with_legend_below

COLUMNS = 3
AXIS_LABEL = "log odds of she against he (nats)"


@styled
def before_and_after(odds: pd.DataFrame, method: str) -> Figure:
    """Every occupation by name: its log odds in the model as it is, and with a patch, joined by a line.

    `odds` of `tables.real.occupations`. Occupations run down the panels, from those of "he" to those of "she".
    """
    fig, axes = panels(COLUMNS, 3.5, 0.22 * (len(odds) // COLUMNS + 1) + 1.2, sharex=True)
    if method not in odds or "none" not in odds:
        nothing_to_draw(axes[0])
        return fig
    for ax, rows in zip(axes, np.array_split(np.arange(len(odds)), COLUMNS), strict=True):
        part = odds.iloc[rows]
        places = np.arange(len(part))
        ax.axvline(0, color=GREY, lw=0.9)
        ax.hlines(places, part["none"], part[method], color=PALE_GREY, lw=1.6, zorder=1)
        marks = {"none": "without a patch", method: f"with {label_of(method)}"}
        for name, label in marks.items():
            ax.plot(part[name], places, ls="", label=label, **mark_of(name) | {"ms": 6})
        ax.set_yticks(places, part["occupation"], fontsize=10)
        ax.set_ylim(len(part) - 0.4, -0.6)
        ax.grid(axis="y", visible=False)
    axes[1].set_xlabel(AXIS_LABEL)
    return with_legend_below(fig, axes[0].get_legend_handles_labels()[0], columns=2)


@styled
def every_patch(odds: pd.DataFrame) -> Figure:
    """A panel per patch: the log odds of every occupation with it, against those without.

    `odds` of `tables.real.occupations`. On the diagonal nothing has changed; on a level line occupations are alike.
    """
    methods = [name for name in map(str, odds) if name not in ("occupation", "none")]
    fig, axes = panels(len(methods), 3.2, 3.2, columns=COLUMNS, sharex=True, sharey=True)
    if not methods or "none" not in odds:
        nothing_to_draw(axes[0])
        return fig
    before = odds["none"].to_numpy(dtype=float)
    ends = np.array([before.min(), before.max()])
    for ax, method in zip(axes, methods, strict=True):
        with_it = odds[method].to_numpy(dtype=float)
        ax.plot(ends, ends, color=GREY, lw=0.9)
        ax.axhline(with_it.mean(), color=GREY, lw=0.9, ls=":")
        ax.plot(before, with_it, ls="", alpha=0.7, mew=0, **mark_of(method) | {"ms": 6})
        ax.set_title(label_of(method))
    for n, ax in enumerate(axes):
        if n + COLUMNS >= len(methods):
            ax.set_xlabel("without a patch (nats)")
            ax.tick_params(labelbottom=True)
        if n % COLUMNS == 0:
            ax.set_ylabel("with the patch (nats)")
    return fig
