"""The one style of all figures.

Figures take frames read from records, so that restyling one costs no training. Metrics come in as fractions and are
drawn in percent. Colours are the same everywhere and distinct for colour-blind readers (Okabe and Ito's palette);
every method also has its own marker and line, since b_k and the head alone are expected to lie on each other.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .intervals import Interval, finished, score_interval
from .majority import is_learned, majority_of
from .names import MISSING, NO_ROOM, lost_runs, method_name

_LOOKS = {  # method -> colour and marker, in the order in which methods are drawn
    "zero_shot": ("#bbbbbb", "_"),
    "in_context": ("#6a3d9a", "|"),
    "head": ("#4d4d4d", "s"),
    "b_q": ("#0072B2", "o"),
    "b_k": ("#E69F00", "D"),
    "b_v": ("#D55E00", "^"),
    "all_biases": ("#009E73", "P"),
    "lora": ("#56B4E9", "X"),
    "full": ("#CC79A7", "v"),
    "mask": ("#999999", "*"),
    "prefix": ("#8c6d31", "p"),
    "adapter": ("#F0C000", "<"),
    "prompt": ("#7a8b00", ">"),
    "sparse": ("#843c39", "h"),
    "none": ("#000000", "+"),
}
TERMS = ("q", "k", "v")
TERM_NAMES = {"q": r"$b_q$", "k": r"$b_k$", "v": r"$b_v$"}
MARKERS = {method: marker for method, (_, marker) in _LOOKS.items()}
COLORS = {method: color for method, (color, _) in _LOOKS.items()} | {t: _LOOKS[f"b_{t}"][0] for t in TERMS}
DASHES = {"b_k": (0, (2, 1.5))}
RC = {
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
# Runs a figure function in the package's style, whatever the style of the session.
styled = mpl.rc_context(RC)


def methods_of(frame: pd.DataFrame) -> list[str]:
    """The methods of a frame in the fixed order."""
    present = set(frame["method"])
    return [m for m in MARKERS if m in present] + sorted(present - set(MARKERS))


def color_of(method: str) -> str:
    """The colour of a method."""
    return COLORS.get(method, "#CC79A7")


def look_of(method: str) -> dict[str, Any]:
    """Colour, marker, dashes and label of a method."""
    look = {"color": color_of(method), "marker": MARKERS.get(method, "o"), "ls": DASHES.get(method, "-")}
    return {**look, "label": method_name(method)}


def reach(means: pd.DataFrame | Mapping[Any, Any]) -> np.ndarray:
    """How far intervals with `low` and `high` reach below and above their `mean`, (2, N); 0 where there is none."""
    mean, low, high = (np.atleast_1d(np.asarray(means[n], dtype=float)) for n in ("mean", "low", "high"))
    return np.nan_to_num(np.stack([mean - low, high - mean])).clip(min=0)


def mean_bar(ax: Axes, x: float, interval: Interval, scale: float, **look: Any) -> None:
    """A mean with its interval at x; of one value the mean alone."""
    spread = None if interval.n == 1 else scale * reach(vars(interval))
    ax.errorbar([x], [scale * interval.mean], yerr=spread, **look)


def methods_as_points(ax: Axes, frame: pd.DataFrame, methods: Sequence[str]) -> None:
    """One column per method: a small point per seed, the mean with its interval, the mean as text, lost runs named.

    `frame` holds runs of one cell. A mean that is not learned (`majority`) is an open mark, its number in brackets.
    """
    for x, method in enumerate(methods):
        runs = frame[frame["method"] == method]
        values = 100 * finished(runs)["final"].dropna().to_numpy()
        look = look_of(method)
        jitter = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(len(values))
        ax.plot(x - 0.12 + jitter, values, "o", ms=3.5, color=look["color"], alpha=0.45, mew=0)
        i = score_interval(runs)
        if i.n:
            inside, text = (look["color"], "{:.1f}") if is_learned(runs) else ("white", "({:.1f})")
            mean_bar(ax, x + 0.17, i, 100, fmt=look["marker"], color=look["color"], mfc=inside, ms=6, capsize=3)
            ax.annotate(text.format(100 * i.mean), (x + 0.27, 100 * i.mean), va="center", fontsize=8.5)
        note: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "ha": "center", "fontsize": 8}
        if not len(runs):
            ax.annotate(MISSING, (x, 0.5), **note)
        if len(runs) and (runs["outcome"] == NO_ROOM).all():
            ax.annotate(NO_ROOM, (x, 0.5), rotation=90, va="center", **note)
        if lost := lost_runs(runs):
            ax.annotate(f"{lost} lost", (x, 0.02), **note)
    ax.set_xticks(range(len(methods)), [method_name(m) for m in methods])
    ax.set_xlim(-0.5, len(methods) - 0.3)
    ax.grid(axis="x", visible=False)


def majority_line(ax: Axes, runs: pd.DataFrame, label: bool = True) -> None:
    """A dashed line at the majority class of the cell that these runs are of, where it is known; drawn last.

    Where it lies so far below everything else that it would squeeze that, a note at the bottom says so instead.
    """
    majority = 100 * majority_of(runs)
    low, high = ax.get_ylim()
    look: dict[str, Any] = {"ha": "left", "va": "bottom", "fontsize": 7.5, "color": "#666666"}
    if not np.isfinite(majority):
        return
    if majority < low - (high - low) / 2:
        ax.annotate(f"majority {majority:.1f}, below", (0.01, 0.01), xycoords="axes fraction", **look)
        return
    ax.axhline(majority, color="#999999", lw=1, ls="--", zorder=0)
    if label:
        ax.annotate("majority", (0.01, majority), xycoords=("axes fraction", "data"), **look)


def panels(
    count: int, width: float, height: float, margin: tuple[float, float] = (0.0, 0.0), columns: int = 99, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, at least one, in at most so many columns.

    Sizes are in inches, of a panel; `margin` is added to width and height of the figure; `options` of plt.subplots.
    """
    count = max(count, 1)
    columns = min(count, columns)
    rows = -(-count // columns)
    size = (width * columns + margin[0], height * rows + margin[1])
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **options)
    for ax in axes.flat[count:]:
        ax.set_visible(False)
    return fig, list(axes.flat[:count])


def with_legend(fig: Figure, ax: Axes | None = None, **options: Any) -> Figure:
    """`fig` with a legend at its right: of one of its panels, or of the `handles` given."""
    entries = () if ax is None else ax.get_legend_handles_labels()
    fig.legend(*entries, loc="outside right center", **options)
    return fig


def with_legend_below(fig: Figure, handles: Sequence[Any]) -> Figure:
    """`fig` with a legend below it, a line per entry; none without handles."""
    if handles:
        fig.legend(handles=list(handles), loc="outside lower center", fontsize=8.5)
    return fig


def nothing_to_draw(ax: Axes) -> None:
    """Say in the panel that there is nothing to draw."""
    ax.annotate(MISSING, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center")
    ax.set(xticks=[], yticks=[])
