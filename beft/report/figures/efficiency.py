"""The figures of what a run costs: by way, by size, and what the time goes to."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..names import mathtext, method_name
from ..style import COLORS, GREY, PALE_GREY, SMALL, nothing_to_draw, panels, styled, with_legend_below

GROWN = {"R": "runs in the bank", "length": "tokens of a row", "layers": "layers", "width": "width"}
SHADES = ("#252525", "#636363", "#969696", "#bdbdbd", "#d9d9d9", "#f0f0f0")  # kinds of work are no methods


@styled
def cost_by_way(by_model: Mapping[str, pd.DataFrame], method: str = "b_v") -> Figure:
    """Seconds a run of one method by the way it is run: a panel per model, a bar per way and precision.

    `by_model` has a frame of `tables.efficiency.ways` by the title of its panel. The black line in a bar of the bank is
    the time that the operations of its training would take at the machine's full matrix rate.
    """
    drawn = {title: frame[frame["method"] == method].dropna(subset=["seconds"]) for title, frame in by_model.items()}
    drawn = {title: frame for title, frame in drawn.items() if len(frame)}
    most = max((len(frame) for frame in drawn.values()), default=1)
    fig, axes = panels(len(drawn), 5.6, 0.9 + 0.42 * most)
    if not drawn:
        nothing_to_draw(axes[0])
    for ax, (title, frame) in zip(axes, drawn.items()):
        frame = frame.sort_values("seconds", ascending=False)
        bank = frame["way"] == "bank"
        places = np.arange(len(frame))[::-1]
        colors = [COLORS[method] if own else PALE_GREY for own in bank]
        ax.barh(places, frame["seconds"], color=colors, height=0.68)
        for place, seconds in zip(places, frame["seconds"]):
            ax.annotate(
                f"{seconds:.1f}", (seconds, place), (4, 0), textcoords="offset points", va="center", fontsize=SMALL
            )
        names = [_name(row) for row in frame.to_dict("records")]
        ax.set_yticks(places, names)
        ax.set(xlabel="seconds a run", title=title, xlim=(0, 1.14 * frame["seconds"].max()))
        ax.grid(axis="y", visible=False)
    return fig


def _name(row: Mapping[Any, Any]) -> str:
    """A bar's name: the way, its runs and its precision."""
    precision = "bfloat16" if row["dtype"] == "bfloat16" else "float32"
    if row["way"] != "bank":
        return f"{row['way']}{', best' if row['best'] else ''}, {precision}"
    return f"bank of {row['runs']}, {precision}" if row["runs"] != 1 else f"bank, one run, {precision}"


@styled
def growth(frame: pd.DataFrame) -> Figure:
    """Seconds of a step against runs, length, layers and width, on log axes, with a power law fitted to each."""
    grown = [name for name in GROWN if (frame["grown"] == name).any()]
    fig, axes = panels(len(grown), 3.1, 3.2, sharey=True)
    if not grown:
        nothing_to_draw(axes[0])
    for ax, name in zip(axes, grown):
        part = frame[frame["grown"] == name].sort_values("value")
        ax.plot(part["value"], part["fitted"], color=GREY, lw=1.4, zorder=1)
        ax.plot(part["value"], part["seconds"], "k.", ms=10)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(part["value"], [str(v) for v in part["value"]])
        ax.set(xlabel=GROWN[name], title=f"exponent {part['exponent'].iloc[0]:.2f}")
        ax.minorticks_off()
    axes[0].set_ylabel("seconds a step" if grown else "")
    return fig


@styled
def where_time_goes(frame: pd.DataFrame, method: str = "b_v") -> Figure:
    """What the time of a bank goes to by kind of operator, in percent: a bar per precision (`efficiency.breakdown`)."""
    fig, (ax,) = panels(1, 8.2, 0.9 + 0.55 * max(len(frame), 1))
    if not len(frame):
        nothing_to_draw(ax)
        return fig
    places, left = np.arange(len(frame))[::-1], np.zeros(len(frame))
    kinds = list(frame.columns)
    for kind, shade in zip(kinds, SHADES):
        share = 100 * frame[kind].to_numpy()
        ax.barh(places, share, left=left, color=shade, edgecolor="white", height=0.62)
        for place, at, value in zip(places, left, share):
            if value >= 4:
                color = "white" if shade in SHADES[:2] else "black"
                ax.text(at + value / 2, place, f"{value:.0f}", ha="center", va="center", color=color, fontsize=SMALL)
        left += share
    ax.set_yticks(places, list(frame.index))
    ax.set(xlim=(0, 100), xlabel=f"% of the time of an epoch, {mathtext(method_name(method))}, nine runs")
    ax.grid(axis="y", visible=False)
    entries = [Patch(facecolor=shade, label=kind) for kind, shade in zip(kinds, SHADES)]
    return with_legend_below(fig, entries, columns=3)
