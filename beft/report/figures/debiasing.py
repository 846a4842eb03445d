"""Figures of debiasing: what patches leave of a link, and the link that is planted against the one measured."""

import itertools
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..names import method_name
from ..style import COLORS, MARKERS, mean_bar, panels, styled, with_legend
from ..tables.debiasing import NOT_MEASURED, in_order, interval, measured


def _points(ax: Axes, sizes: pd.DataFrame, frame: pd.DataFrame, measure: str, scale: float) -> None:
    """A method's mean and interval of one measure against the size of its patch; without a patch, a line."""
    untouched = interval(frame, "none", measure)
    if untouched.n:
        ax.axhline(scale * untouched.mean, color=COLORS["none"], lw=1.2, ls=":")
        if untouched.n > 1:
            ax.axhspan(scale * untouched.low, scale * untouched.high, color="#000000", alpha=0.06, lw=0)
    taken: list[float] = []
    for method in in_order(frame["method"], untouched=False):
        mean = interval(frame, method, measure)
        size = sizes[sizes["method"] == method]["size"]
        if not mean.n or not len(size):
            continue
        place = float(size.iloc[0]) * 1.25 ** taken.count(size.iloc[0])  # beside another of its size
        taken.append(size.iloc[0])
        look = {"fmt": MARKERS[method], "color": COLORS[method], "label": method_name(method)}
        mean_bar(ax, place, mean, scale, ms=8, capsize=3, lw=1.2, **look)
    ax.set_xscale("log")
    ax.set_xlabel("numbers in the patch")


@styled
def size_against_bias(patches: pd.DataFrame, tuned: pd.DataFrame, axis: str) -> Figure:
    """What a patch of so many numbers leaves of the bias, and of the accuracy: three panels, log scale.

    `patches` of `tables.debiasing.upstream` (those of this axis are drawn) and `tuned` of `downstream`. The dotted line
    is the untouched model, and plain fine-tuning with its interval.
    """
    own = patches[patches["axis"].isin(("none", axis))]
    fig, axes = plt.subplots(1, 3, figsize=(11.5, 3.6))
    measures = ((own, f"nats {axis}", 1.0), (tuned, f"gap {axis}", 100.0), (tuned, "accuracy", 100.0))
    for ax, measure in zip(axes, measures, strict=True):
        _points(ax, own, *measure)
    axes[0].axhline(0, color="#999999", lw=0.8)
    axes[0].set(ylabel="stereotype likelier by (nats)", title="in the language model")
    axes[1].set(ylabel="TPR gap (x 100)", title="after fine-tuning: bias")
    axes[2].set(ylabel="accuracy (%)", title="after fine-tuning: task")
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels())}
    return with_legend(fig, handles=list(handles.values()), labels=list(handles))


@styled
def planted_and_measured(frames: Mapping[float, pd.DataFrame], curve: Mapping[float, float]) -> Figure:
    """The TPR gap against the strength of the planted link: the best classifier's as a line, measured ones as points.

    By strength, `frames` are models without a patch (`tables.debiasing.downstream`), `curve` many expected gaps.
    """
    fig, ax = plt.subplots(figsize=(5.2, 3.4))
    ax.plot(list(curve), [100 * v for v in curve.values()], color="#666666", lw=1.5, label="best classifier")
    for n, (strength, frame) in enumerate(frames.items()):
        mean = interval(frame, "none", "gap gender")
        if not mean.n:
            continue
        ax.plot([strength] * len(frame), 100 * frame["gap gender"], ".", color=COLORS["none"], alpha=0.4, ms=5)
        if mean.n > 1:
            label = None if n else "fine-tuned, 95% over seeds"
            mean_bar(ax, strength, mean, 100, fmt="o", color=COLORS["none"], capsize=3, label=label)
    ax.set(xlabel="strength of the planted link", ylabel="TPR gap (x 100)", ylim=(0, None))
    ax.legend(loc="upper left")
    return fig


@styled
def axes_of_patches(patches: pd.DataFrame) -> Figure:
    """What patches trained against one axis leave of each axis' link: a panel per axis that is measured."""
    names = measured(patches)
    trained = [a for a in dict.fromkeys(patches["axis"]) if a != "none"]
    methods = in_order(patches["method"], untouched=False)
    fig, axes = panels(len(names), 4, 3.4, (1.5, 0.0), sharey=True)
    if not names:
        axes[0].set_title(NOT_MEASURED)
        return fig
    places = 0.7 * (np.arange(len(methods)) - (len(methods) - 1) / 2) / max(1, len(methods))
    for ax, name in zip(axes, names, strict=True):
        ax.axhline(interval(patches, "none", f"nats {name}").mean, color=COLORS["none"], lw=1.2, ls=":")
        for (a, axis), (n, method) in itertools.product(enumerate(trained), enumerate(methods)):
            mean = interval(patches[patches["axis"] == axis], method, f"nats {name}")
            if mean.n:
                mean_bar(ax, a + places[n], mean, 1, fmt=MARKERS[method], color=COLORS[method], capsize=2)
        ax.set_xticks(range(len(trained)), [f"against {axis}" for axis in trained])
        ax.set(title=f"measured: {name}", xlim=(-0.6, len(trained) - 0.4))
        ax.grid(axis="x", visible=False)
    axes[0].set_ylabel("stereotype likelier by (nats)")
    looks = [{"marker": MARKERS[m], "color": COLORS[m], "label": method_name(m)} for m in methods]
    return with_legend(fig, handles=[plt.Line2D([], [], ls="", **look) for look in looks])
