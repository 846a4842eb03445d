"""Every figure in one style. A function takes frames read from records and returns a figure; `save` writes it.

Nothing here trains or scores: restyling a figure costs no training. Metrics come in as fractions and are drawn in
percent. Colours are the same everywhere and distinct for colour-blind readers (Okabe and Ito's palette); every
method also has its own marker and line, since b_k and the head alone are expected to lie on each other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from . import statistics, tables
from .readings import MISSING, method_name

if TYPE_CHECKING:
    from .settings import Settings

COLORS = {
    "head": "#4d4d4d",
    "b_q": "#0072B2",
    "b_k": "#E69F00",
    "b_v": "#D55E00",
    "all_biases": "#009E73",
    "q": "#0072B2",
    "k": "#E69F00",
    "v": "#D55E00",
}
MARKERS = {"head": "s", "b_q": "o", "b_k": "D", "b_v": "^", "all_biases": "P"}
DASHES = {"head": "-", "b_q": "-", "b_k": (0, (2, 1.5)), "b_v": "-", "all_biases": "-"}
TERMS = ("q", "k", "v")
TERM_NAMES = {"q": r"$b_q$", "k": r"$b_k$", "v": r"$b_v$"}
SCORE_NAMES = {
    "magnitude": "Magnitude",
    "fisher": "Fisher (per example)",
    "fisher_batch": "Fisher (batch)",
    "mag_angle": "Mag+Angle",
    "reach": "Reach",
    "norms": "Pre-trained norm",
}
DPI = 130
_RC = {
    **sns.axes_style("whitegrid"),
    **sns.plotting_context("paper", font_scale=1.15),
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "grid.color": "#e6e6e6",
    "axes.edgecolor": "#666666",
    "figure.dpi": 100,
    "savefig.bbox": "tight",
    "pdf.fonttype": 42,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def styled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run a figure function in the package's style, whatever the style of the session."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with plt.rc_context(_RC):
            return function(*args, **kwargs)

    return wrapper


@styled
def save(
    fig: Figure,
    s: Settings,
    name: str,
    caption: str,
    records: Sequence[Mapping | str] = (),
    measured: bool = True,
) -> Figure:
    """Write `name.pdf` and `name.png` into the figure folder, enter them in its index, print the caption.

    The caption ends with the note that names a stand-in model or generated data. The files carry no date and no
    host, so the same records give the same bytes. Returns the figure (closed, so a cell shows it once).

    Args:
        fig: the figure.
        s: the notebook's settings (folder, command, note on stand-ins).
        name: file name without an ending.
        caption: one or two sentences.
        records: the records the figure was drawn from, or their keys.
        measured: on the profile's model or data; False for what needs neither.
    """
    s.figures.mkdir(parents=True, exist_ok=True)
    caption = tables.full_caption(caption, s, measured)
    files = [s.figures / f"{name}.pdf", s.figures / f"{name}.png"]
    fig.savefig(files[0], metadata={"CreationDate": None, "Creator": None, "Producer": None})
    fig.savefig(files[1], dpi=DPI, metadata={"Software": None})
    plt.close(fig)
    tables.register(s, "figure", name, caption, files, records)
    print(f"{name}: {caption}")
    return fig


def _methods(frame: pd.DataFrame) -> list[str]:
    """The methods of a frame in the fixed order."""
    present = set(frame["method"])
    return [m for m in MARKERS if m in present] + sorted(present - set(MARKERS))


def _look(method: str, label: bool = True) -> dict[str, Any]:
    """Colour, marker, dashes and label of a method."""
    look = {
        "color": COLORS.get(method, "#CC79A7"),
        "marker": MARKERS.get(method, "o"),
        "ls": DASHES.get(method, "-"),
    }
    return {**look, "label": method_name(method)} if label else look


def methods_as_points(ax: Axes, frame: pd.DataFrame, methods: Sequence[str], value: str = "final") -> None:
    """One column per method: a small point per seed, the mean with its interval, the mean as text, lost runs named."""
    for x, method in enumerate(methods):
        rows = frame[frame["method"] == method]
        ok = 100 * statistics.finished(rows)[value].dropna().to_numpy()
        look = _look(method)
        jitter = np.linspace(-0.12, 0.12, len(ok)) if len(ok) > 1 else np.zeros(len(ok))
        ax.plot(x - 0.12 + jitter, ok, "o", ms=3.5, color=look["color"], alpha=0.45, mew=0)
        i = statistics.mean_interval(ok)
        if i.n:
            half = 0.0 if i.n == 1 else i.high - i.mean
            ax.errorbar(x + 0.17, i.mean, half, fmt=look["marker"], color=look["color"], ms=6, capsize=3)
            ax.annotate(f"{i.mean:.1f}", (x + 0.27, i.mean), va="center", fontsize=8.5)
        if not len(rows):
            ax.annotate(MISSING, (x, 0.5), xycoords=("data", "axes fraction"), ha="center", fontsize=8)
        lost = len(rows) - len(statistics.finished(rows))
        if lost:
            ax.annotate(
                f"{lost} lost", (x, 0.02), xycoords=("data", "axes fraction"), ha="center", fontsize=8
            )
    ax.set_xticks(range(len(methods)), [method_name(m) for m in methods])
    ax.set_xlim(-0.5, len(methods) - 0.3)
    ax.grid(axis="x", visible=False)


# --- fine-tuning ------------------------------------------------------------------------------------------


@styled
def accuracy_by_method(runs: pd.DataFrame, before: float | None = None, metric: str = "accuracy") -> Figure:
    """Last-epoch metric of each method: a point per seed, mean and 95% interval; `before`: the untuned model's."""
    methods = _methods(runs)
    fig, ax = plt.subplots(figsize=(1.6 + 1.1 * len(methods), 3.6))
    methods_as_points(ax, runs, methods)
    if before is not None:
        ax.axhline(100 * before, color="#999999", lw=1, ls=":")
        ax.annotate(
            "before tuning",
            (0.995, 100 * before),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
        )
    ax.set(ylabel=f"validation {metric} (%)", title="Last epoch: seeds, mean, 95% interval")
    return fig


@styled
def learning_curves(curves: pd.DataFrame, metric: str = "accuracy") -> Figure:
    """Training loss and validation metric per epoch: mean over seeds and 95% Student t band, a line per method."""
    fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.6))
    for ax, column, scale in zip(axes, ("train_loss", "validation"), (1, 100), strict=True):
        for method in _methods(curves):
            part = curves[curves["method"] == method].dropna(subset=[column])
            by_epoch = [(e, statistics.mean_interval(scale * g[column])) for e, g in part.groupby("epoch")]
            x = [e for e, _ in by_epoch]
            mean, low, high = (
                np.array([getattr(i, n) for _, i in by_epoch]) for n in ("mean", "low", "high")
            )
            ax.plot(x, mean, ms=3.5, lw=1.6, **_look(method))
            ax.fill_between(x, low, high, color=COLORS.get(method, "#CC79A7"), alpha=0.13, lw=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set(xlabel="epoch", ylabel="training loss", title="Training loss")
    axes[1].set(xlabel="epoch", ylabel=f"validation {metric} (%)", title="Validation")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return fig


@styled
def coincidence(
    curves: pd.DataFrame, first: str = "b_k", second: str = "head", metric: str = "accuracy"
) -> Figure:
    """The curves of two methods over each other, one thin line per seed: `second` broad and pale, `first` dashed."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.4))
    for ax, column, scale in zip(axes, ("train_loss", "validation"), (1, 100), strict=True):
        for method, line in ((second, {"lw": 5, "alpha": 0.3}), (first, {"lw": 1.5, "ls": (0, (2, 1.5))})):
            part = curves[curves["method"] == method].dropna(subset=[column])
            for n, (_, g) in enumerate(part.groupby(["seed", "rate"])):
                label = method_name(method) if n == 0 else None
                ax.plot(
                    g["epoch"], scale * g[column], color=COLORS.get(method, "#CC79A7"), label=label, **line
                )
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set(xlabel="epoch", ylabel="training loss", title="Training loss")
    axes[1].set(xlabel="epoch", ylabel=f"validation {metric} (%)", title="Validation")
    axes[0].legend(title="a line per seed")
    return fig


def _sweep(
    ax: Axes, grid: pd.DataFrame, chosen: Mapping[str, float], equal: float | None, value: str
) -> None:
    """Metric against rate on one pair of axes; a ring marks each method's chosen rate, a cross a lost run."""
    methods = _methods(grid)
    for n, method in enumerate(methods):
        table = statistics.summary(grid[grid["method"] == method], ("rate",), value).sort_values("rate")
        look = _look(method)
        shift = 1.03 ** (n - (len(methods) - 1) / 2)  # so that bars of equal rates stay apart
        x, y = table["rate"] * shift, 100 * table["mean"]
        ax.errorbar(
            x, y, (100 * (table["high"] - table["mean"])).fillna(0), ms=5, lw=1.5, capsize=2.5, **look
        )
        ring = np.isclose(table["rate"], chosen.get(method, np.nan))
        ax.plot(x[ring], y[ring], "o", ms=13, mfc="none", mec=look["color"], mew=1.4)
        lost = table[table["lost"] > 0]
        ax.plot(
            lost["rate"] * shift,
            [0.02 + 0.035 * n] * len(lost),
            "x",
            color=look["color"],
            transform=ax.get_xaxis_transform(),
        )
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
    for ax, value, title in zip(
        axes, ("final_tuning", "final"), ("Tuning split: chooses", "Validation: reports"), strict=True
    ):
        _sweep(ax, grid, chosen, equal, value)
        ax.set_title(title)
    axes[0].set_ylabel(f"{metric} (%)")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", title="ring: chosen rate")
    return fig


@styled
def two_views(equal: pd.DataFrame, own: pd.DataFrame, metric: str = "accuracy") -> Figure:
    """The same methods at one common rate and each at its own: a point per seed, mean and 95% interval."""
    methods = _methods(pd.concat([equal, own]))
    fig, axes = plt.subplots(1, 2, figsize=(2.4 + 1.9 * len(methods), 3.7), sharey=True)
    for ax, frame, title in zip(
        axes, (equal, own), ("One rate for all", "Each at its own rate"), strict=True
    ):
        methods_as_points(ax, frame, methods)
        ax.set_title(title)
    rates = {m: g["rate"].iloc[0] for m, g in own.groupby("method")}
    axes[1].set_xticks(
        range(len(methods)),
        [f"{method_name(m)}\n{rates[m]:g}" if m in rates else method_name(m) for m in methods],
    )
    if len(equal):
        axes[0].set_xlabel(f"learning rate {equal['rate'].iloc[0]:g}")
    axes[0].set_ylabel(f"validation {metric} (%)")
    return fig


@styled
def overview(
    runs: pd.DataFrame,
    grid: pd.DataFrame,
    chosen: Mapping[str, float],
    equal: float,
    metric: str = "accuracy",
) -> Figure:
    """The README's figure: every method at one rate, and the metric against the rate."""
    fig, axes = plt.subplots(1, 2, figsize=(11.5, 3.9), width_ratios=[1.0, 1.15])
    methods_as_points(axes[0], runs, _methods(runs))
    axes[0].set(title=f"One rate for all ({equal:g})", ylabel=f"validation {metric} (%)")
    _sweep(axes[1], grid, chosen, equal, "final")
    axes[1].set_ylabel(f"validation {metric} (%)")
    fig.legend(*axes[1].get_legend_handles_labels(), loc="outside right center")
    return fig
