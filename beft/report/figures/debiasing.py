"""Figures of debiasing: what patches leave of a link, and the link that is planted against the one measured."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..intervals import DRAWN_FROM
from ..style import (
    COLORS,
    GREY,
    color_of,
    entry,
    in_order,
    label_of,
    mark_of,
    mean_bar,
    panels,
    seed_points,
    styled,
    with_legend,
    with_legend_below,
)
from ..tables.debiasing import NOT_MEASURED, interval, measured

_LINE: dict[str, Any] = {"color": COLORS["none"], "lw": 1.4, "ls": ":"}  # the model without a patch


def _patches(frame: pd.DataFrame) -> list[str]:
    """The methods of a frame that are patches, in the order of all figures."""
    return [m for m in in_order(frame["method"]) if m != "none"]


def _untouched(ax: Axes, frame: pd.DataFrame, measure: str, scale: float) -> None:
    """A dotted line where the model without a patch is, with its interval over seeds as a band."""
    mean = interval(frame, "none", measure)
    if mean.n:
        ax.axvline(scale * mean.mean, **_LINE)
        if mean.n >= DRAWN_FROM:
            ax.axvspan(scale * mean.low, scale * mean.high, color="black", alpha=0.06, lw=0)


def _rows(ax: Axes, frame: pd.DataFrame, methods: Sequence[str], measure: str, scale: float) -> None:
    """A method's seeds, mean and interval of one measure, a row per method."""
    for y, method in enumerate(methods):
        mean = interval(frame, method, measure)
        if mean.n:
            values = scale * frame[frame["method"] == method][measure]
            seed_points(ax, y + 0.22, values, color_of(method), across=True)
            mean_bar(ax, y - 0.1, mean, scale, across=True, **mark_of(method))


@styled
def size_against_bias(patches: pd.DataFrame, tuned: pd.DataFrame, axis: str) -> Figure:
    """What a patch of so many numbers leaves of the bias, and of the accuracy: three panels, a row per patch.

    The smallest patch is at the top, patches of one size are in the order of all figures. `patches` of
    `tables.debiasing.upstream` (those of this axis are drawn) and `tuned` of `downstream`. The dotted line is the
    untouched model, and plain fine-tuning with its interval.
    """
    own = patches[patches["axis"].isin(("none", axis))]
    sizes = {m: int(own[own["method"] == m]["size"].max()) for m in _patches(own)}  # of a run that diverged it is 0
    methods = sorted(sizes, key=lambda m: sizes[m])
    fig, axes = plt.subplots(1, 3, figsize=(11.0, 1.5 + 0.42 * max(len(methods), 3)), sharey=True)
    measures = ((own, f"nats {axis}", 1.0), (tuned, f"gap {axis}", 100.0), (tuned, "accuracy", 100.0))
    for ax, (frame, measure, scale) in zip(axes, measures, strict=True):
        _rows(ax, frame, methods, measure, scale)
        _untouched(ax, frame, measure, scale)
        ax.grid(axis="y", visible=False)
    axes[0].axvline(0, color=GREY, lw=1)
    axes[0].set(xlabel="stereotype likelier by (nats)", title="In the language model")
    axes[1].set(xlabel="TPR gap (x 100)", title="After fine-tuning: bias")
    axes[2].set(xlabel="accuracy (%)", title="After fine-tuning: task")
    axes[0].set_yticks(range(len(methods)), [f"{label_of(m)}: {sizes[m]:,}" for m in methods])
    axes[0].set(ylabel="patch: numbers in it", ylim=(max(len(methods), 1) - 0.4, -0.6))
    return with_legend_below(fig, [Line2D([], [], label="without a patch", **_LINE)])


@styled
def planted_and_measured(frames: Mapping[float, pd.DataFrame], curve: Mapping[float, float]) -> Figure:
    """The TPR gap against the strength of the planted link: the best classifier's as a line, measured ones as points.

    By strength, `frames` are models without a patch (`tables.debiasing.downstream`), `curve` many expected gaps.
    """
    fig, ax = plt.subplots(figsize=(6.4, 4.2))
    line = ax.plot(list(curve), [100 * v for v in curve.values()], color=GREY, lw=1.8, label="best classifier")
    handles: list[Artist] = [*line]
    for strength, frame in frames.items():
        mean = interval(frame, "none", "gap gender")
        if mean.n:
            seed_points(ax, strength - 0.015, 100 * frame["gap gender"], COLORS["none"])
            mean_bar(ax, strength + 0.015, mean, 100, **mark_of("none"))
    drawn = {interval(frame, "none", "gap gender").n >= DRAWN_FROM for frame in frames.values()}
    handles.append(entry("none", label="fine-tuned" + (", 95% over seeds" if True in drawn else "")))
    ax.set(xlabel="strength of the planted link", ylabel="TPR gap (x 100)", ylim=(0, None))
    return with_legend_below(fig, handles, columns=2)


@styled
def axes_of_patches(patches: pd.DataFrame) -> Figure:
    """What patches trained against one axis leave of each axis' link: a panel per axis that is measured."""
    names = measured(patches)
    trained = [a for a in dict.fromkeys(patches["axis"]) if a != "none"]
    methods = _patches(patches)
    fig, axes = panels(len(names), 4.2, 3.9, (1.9, 0.0), sharey=True)
    if not names:
        axes[0].set_title(NOT_MEASURED)
        return fig
    places = 0.8 * (np.arange(len(methods)) - (len(methods) - 1) / 2) / max(1, len(methods))
    for ax, name in zip(axes, names, strict=True):
        measure = f"nats {name}"
        ax.axhline(interval(patches, "none", measure).mean, **_LINE)
        for (a, axis), (n, method) in itertools.product(enumerate(trained), enumerate(methods)):
            mine = patches[patches["axis"] == axis]
            mean = interval(mine, method, measure)
            if mean.n:
                place = a + places[n]
                if mean.n < DRAWN_FROM:
                    seed_points(ax, place - 0.03, mine[mine["method"] == method][measure], color_of(method))
                mean_bar(ax, place, mean, 1, **mark_of(method))
        ax.set_xticks(range(len(trained)), [f"against {axis}" for axis in trained])
        ax.set(title=f"measured: {name}", xlim=(-0.6, len(trained) - 0.4))
        ax.grid(axis="x", visible=False)
    axes[0].set_ylabel("stereotype likelier by (nats)")
    handles: list[Artist] = [entry(m) for m in methods]
    return with_legend(fig, handles=[*handles, Line2D([], [], label="without a patch", **_LINE)])
