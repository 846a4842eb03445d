"""Figures of the real model in notebook 05: the log odds of pronouns, occupation by occupation, before and after."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..names import method_name
from ..style import COLORS, MARKERS, nothing_to_draw, panels, styled, with_legend

COLUMNS = 3
AXIS_LABEL = "log odds of she against he (nats)"


@styled
def before_and_after(odds: pd.DataFrame, method: str) -> Figure:
    """Every occupation by name: its log odds in the model as it is, and with a patch, joined by a line.

    `odds` of `tables.real.occupations`. Occupations run down the panels, from those of "he" to those of "she".
    """
    fig, axes = panels(COLUMNS, 3.9, 0.2 * (len(odds) // COLUMNS + 1) + 0.9, sharex=True)
    if method not in odds or "none" not in odds:
        nothing_to_draw(axes[0])
        return fig
    for ax, rows in zip(axes, np.array_split(np.arange(len(odds)), COLUMNS), strict=True):
        part = odds.iloc[rows]
        places = np.arange(len(part))
        ax.axvline(0, color="#999999", lw=0.9)
        ax.hlines(places, part["none"], part[method], color="#bbbbbb", lw=1.4, zorder=1)
        ax.plot(part["none"], places, "o", color=COLORS["none"], ms=4.5, mfc="white", label="without a patch")
        ax.plot(
            part[method], places, MARKERS[method], color=COLORS[method], ms=5.5, label=f"with {method_name(method)}"
        )
        ax.set_yticks(places, part["occupation"], fontsize=9)
        ax.set_ylim(len(part) - 0.4, -0.6)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel(AXIS_LABEL)
    return with_legend(fig, axes[0])


@styled
def every_patch(odds: pd.DataFrame) -> Figure:
    """A panel per patch: the log odds of every occupation with it, against those without.

    `odds` of `tables.real.occupations`. On the diagonal nothing has changed; on a level line occupations are alike.
    """
    methods = [name for name in map(str, odds) if name not in ("occupation", "none")]
    fig, axes = panels(len(methods), 2.9, 2.9, columns=4, sharex=True, sharey=True)
    if not methods or "none" not in odds:
        nothing_to_draw(axes[0])
        return fig
    before = odds["none"].to_numpy(dtype=float)
    ends = np.array([before.min(), before.max()])
    for ax, method in zip(axes, methods, strict=True):
        with_it = odds[method].to_numpy(dtype=float)
        ax.plot(ends, ends, color="#999999", lw=0.9)
        ax.axhline(with_it.mean(), color="#999999", lw=0.9, ls=":")
        ax.plot(before, with_it, MARKERS[method], color=COLORS[method], ms=4.5, alpha=0.7, mew=0)
        ax.set_title(method_name(method))
    for n, ax in enumerate(axes):
        if n + 4 >= len(methods):
            ax.set_xlabel("without a patch (nats)")
            ax.tick_params(labelbottom=True)
        if n % 4 == 0:
            ax.set_ylabel("with the patch (nats)")
    return fig
