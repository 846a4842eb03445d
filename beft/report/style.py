"""The one style of all figures.

Figures take frames read from records, so that restyling one costs no training. Metrics come in as fractions and are
drawn in percent. A method has one colour and one marker in every figure, and nothing else has its colour: b_q, b_k and
b_v, in this order, are Okabe and Ito's blue, orange and vermilion; what is no method is grey or black. A small pale
point is a seed. An interval is drawn over `DRAWN_FROM` seeds or more; over fewer the seeds' points stand alone.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..study import split_method
from .intervals import DRAWN_FROM, RANGES, Interval, finished, score_interval
from .majority import is_learned, majority_of
from .names import MISSING, NO_ROOM, lost_runs, mathtext, method_name

_LOOKS = {  # method -> colour and marker, in the order in which methods are drawn
    "zero_shot": ("#8a8a8a", "_"),
    "in_context": ("#6a3d9a", (4, 1, 0)),
    "head": ("#4d4d4d", "s"),
    "b_q": ("#0072B2", "o"),
    "b_k": ("#E69F00", "D"),
    "b_v": ("#D55E00", "^"),
    "all_biases": ("#009E73", "P"),
    "lora": ("#56B4E9", "X"),
    "full": ("#CC79A7", "v"),
    "mask": ("#9ACD5A", "*"),
    "prefix": ("#8c6d31", "p"),
    "adapter": ("#F0C000", "<"),
    "prompt": ("#7a8b00", ">"),
    "sparse": ("#843c39", "h"),
    "none": ("#000000", "d"),
}
_OTHER = ("#17becf", (6, 1, 0))  # a method without an entry
_FORMS = {"lora": "8", "vera": (3, 1, 0), "vera1d": (6, 1, 0), "dora": (5, 1, 36)}  # a form has a darker colour too
TERMS = ("q", "k", "v")
MARKERS = {method: marker for method, (_, marker) in _LOOKS.items()}
COLORS = {method: color for method, (color, _) in _LOOKS.items()} | {t: _LOOKS[f"b_{t}"][0] for t in TERMS}
TERM_NAMES = {t: mathtext(f"b_{t}") for t in TERMS}
DASHES = {"b_k": (0, (2, 1.5))}  # b_k and the head alone are expected to lie on each other
GREY, PALE_GREY = "#666666", "#b3b3b3"
SMALL = 9.5  # points: no text is smaller, so that figures can be read at half their size
SEED_SIZE, MEAN_SIZE = 4.5, 8.0  # of markers, in points
CAP = 3.0
RC = {
    **sns.axes_style("whitegrid"),
    **sns.plotting_context("paper", font_scale=1.25),
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "legend.fontsize": 10.5,
    "legend.title_fontsize": 10.5,
    "legend.frameon": False,
    "grid.color": "#e6e6e6",
    "axes.edgecolor": GREY,
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "savefig.transparent": False,  # text is black: on a dark page the figure brings its own light ground
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.12,
    "pdf.fonttype": 42,
}
# Runs a figure function in the package's style, whatever the style of the session.
styled = mpl.rc_context(RC)


def methods_of(frame: pd.DataFrame) -> list[str]:
    """The methods of a frame in the fixed order: a form of a term behind its term, others last."""
    return in_order(frame["method"])


def in_order(methods: Any) -> list[str]:
    """Names of methods, each once, in the order in which all figures have them."""
    fixed = {name: place for place, name in enumerate(MARKERS)}

    def place(method: str) -> tuple[int, str, list[int], str]:
        term, layers, _ = split_method(method)
        return fixed.get(term, len(fixed)), term, [int(n) for n in re.findall(r"\d+", layers)], method

    return sorted(set(methods), key=place)


def label_of(method: str) -> str:
    """The name of a method in a figure: `method_name` with its terms as mathematics."""
    return mathtext(method_name(method))


def column_name(method: str) -> str:
    """The name of a method below its column: on two lines if it has two words."""
    return label_of(method).replace(" ", "\n", 1)


def color_of(method: str) -> str:
    """The colour of a method; of a form of a term, a darker one than the term's."""
    term, _, form = split_method(method)
    color = COLORS.get(term, _OTHER[0])
    return mpl.colors.to_hex(0.6 * np.array(mpl.colors.to_rgb(color))) if form else color


def marker_of(method: str) -> Any:
    """The marker of a method."""
    term, _, form = split_method(method)
    return _FORMS.get(form, _OTHER[1]) if form else MARKERS.get(term, _OTHER[1])


def mark_of(method: str) -> dict[str, Any]:
    """Colour and marker of a method: what its means are drawn with."""
    return {"color": color_of(method), "marker": marker_of(method), "ms": MEAN_SIZE}


def look_of(method: str) -> dict[str, Any]:
    """Colour, marker, dashes and label of a method: what a line is drawn with."""
    return {**mark_of(method), "ms": 6.5, "lw": 1.8, "ls": DASHES.get(method, "-"), "label": label_of(method)}


def entry(method: str, **changed: Any) -> Line2D:
    """The entry of a method in a legend: its mark; its line too where an `ls` is given."""
    return Line2D([], [], **{**mark_of(method), "ls": "", "label": label_of(method), **changed})


def reach(means: pd.DataFrame | Mapping[Any, Any]) -> np.ndarray:
    """How far intervals with `low` and `high` reach below and above their `mean`, (2, N); 0 where there is none."""
    mean, low, high = (np.atleast_1d(np.asarray(means[n], dtype=float)) for n in ("mean", "low", "high"))
    return np.nan_to_num(np.stack([mean - low, high - mean])).clip(min=0)


def bars(
    ax: Axes, at: Any, means: pd.DataFrame | Mapping[Any, Any], scale: float, color: str, across: bool = False
) -> None:
    """The intervals of means (N,) at the places `at` (N,), where they are over enough values (`DRAWN_FROM`) to draw.

    `means` has mean, low, high and n. `across`: the places are on the y axis and the intervals lie.
    """
    mean, low, n = (np.atleast_1d(np.asarray(means[c], dtype=float)) for c in ("mean", "low", "n"))
    drawn = (n >= DRAWN_FROM) & np.isfinite(low)
    if not drawn.any():
        return
    place, middle, spread = np.atleast_1d(np.asarray(at, dtype=float))[drawn], scale * mean[drawn], scale * reach(means)
    look: dict[str, Any] = {"fmt": "none", "ecolor": color, "elinewidth": 1.6, "capsize": CAP}
    if across:
        ax.errorbar(middle, place, xerr=spread[:, drawn], **look)
    else:
        ax.errorbar(place, middle, yerr=spread[:, drawn], **look)


def marks(ax: Axes, x: Any, y: Any, **look: Any) -> None:
    """Marks that are not cut where they lie on the frame of a panel, at 0 or 100 percent; nothing where there are none.

    A line of no point that is not cut would count as one at the corner of the figure and take away room.
    """
    if np.isfinite(np.asarray(x, dtype=float) * np.asarray(y, dtype=float)).any():
        ax.plot(x, y, clip_on=False, **look)


def mean_bar(ax: Axes, at: float, interval: Interval, scale: float, across: bool = False, **look: Any) -> None:
    """A mean with its interval, if it is over enough values to draw one (`bars`)."""
    bars(ax, at, vars(interval), scale, look["color"], across)
    place, mean = [at], [scale * interval.mean]
    marks(ax, *((mean, place) if across else (place, mean)), ls="", **look)


def seed_points(ax: Axes, at: float, values: Any, color: str, width: float = 0.0, across: bool = False) -> None:
    """Small pale points, one per seed, at a place and so far apart; a single one is its mean and is left out."""
    points = np.asarray(values, dtype=float)
    points = points[np.isfinite(points)]
    if len(points) < 2:
        return
    places = at + np.linspace(-width / 2, width / 2, len(points))
    look: dict[str, Any] = {"ls": "", "marker": "o", "ms": SEED_SIZE, "alpha": 0.5, "mew": 0}
    marks(ax, *((points, places) if across else (places, points)), color=color, **look)


def above(ax: Axes, texts: Mapping[float, str], row: int = 0, name: str = "", color: str = "black") -> None:
    """Numbers above the panel, each over its place on the x axis, so that none lies on a mark; `name` at their left.

    Row 0 is the lowest. `above` is called before the title is set with `title_above`.
    """
    look: dict[str, Any] = {"textcoords": "offset points", "va": "bottom", "fontsize": SMALL + 0.5, "color": color}
    for x, text in texts.items():
        ax.annotate(text, (x, 1), (0, 3 + 13 * row), xycoords=ax.get_xaxis_transform(), ha="center", **look)
    if name:
        ax.annotate(name, (0, 1), (-6, 3 + 13 * row), xycoords="axes fraction", ha="right", **{**look, "color": GREY})


def title_above(ax: Axes, title: str, rows: int = 1) -> None:
    """A title over so many rows of numbers (`above`)."""
    ax.set_title(title, pad=6 + 13 * rows)


def lost_note(runs: pd.DataFrame) -> str:
    """What stands below the name of a method: how many of its runs were lost, or that its prompt does not fit."""
    if len(runs) and (runs["outcome"] == NO_ROOM).all():
        return f"\n{NO_ROOM}"
    lost = lost_runs(runs)
    return f"\n{lost} lost" if lost else ""


def methods_as_points(ax: Axes, frame: pd.DataFrame, methods: Sequence[str], title: str = "", rows: int = 1) -> None:
    """One column per method: a small point per seed, the mean with its interval, and above the panel the mean as text.

    `frame` holds runs of one cell. A mean that is not learned (`majority`) is an open mark, its number in brackets;
    lost runs are counted below the name. The title leaves room for so many rows of numbers.
    """
    texts = {}
    for x, method in enumerate(methods):
        runs = frame[frame["method"] == method]
        mark, i = mark_of(method), score_interval(runs)
        seed_points(ax, x - 0.1, 100 * finished(runs)["final"].dropna(), mark["color"], 0.26)
        texts[float(x)] = MISSING if not len(runs) else ""
        if i.n:
            learned = is_learned(runs)
            texts[float(x)] = ("{:.1f}" if learned else "({:.1f})").format(100 * i.mean)
            mean_bar(ax, x + 0.2, i, 100, mfc=mark["color"] if learned else "white", mew=1.4, **mark)
    above(ax, texts, 0, "mean")
    title_above(ax, title, rows)
    ax.set_xticks(range(len(methods)), [column_name(m) + lost_note(frame[frame["method"] == m]) for m in methods])
    ax.set_xlim(-0.5, len(methods) - 0.5)
    ax.grid(axis="x", visible=False)


def percent_axis(ax: Axes, metric: str = "accuracy") -> None:
    """Keep a y axis in percent within what the metric can be: 0 to 100, of a correlation -100 to 100."""
    least, most = (100 * end for end in RANGES.get(metric, (0.0, 1.0)))
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, least), min(high, most))


def level_line(ax: Axes, value: float, name: str, ls: Any = "--", far: bool = True) -> list[Line2D]:
    """A grey line at one value of the y axis, drawn after everything else, and its entry in a legend.

    Where it lies so far below everything else that it would squeeze that, only the legend says where it is. No entry
    without a value.
    """
    if not np.isfinite(value):
        return []
    low, high = ax.get_ylim()
    look: dict[str, Any] = {"color": GREY, "lw": 1.2, "ls": ls}
    if far and value < low - (high - low) / 2:
        return [Line2D([], [], **{**look, "alpha": 0}, label=f"{name} {value:.1f}: below the axis")]
    ax.axhline(value, zorder=0.8, **look)
    return [Line2D([], [], **look, label=name)]


def majority_line(ax: Axes, runs: pd.DataFrame) -> list[Line2D]:
    """`level_line` of the majority class of the cell that these runs are of, where it is known."""
    return level_line(ax, 100 * majority_of(runs), "majority")


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


def once(handles: Sequence[Artist]) -> list[Artist]:
    """The entries of a legend, each label once."""
    return list({str(h.get_label()): h for h in reversed(handles)}.values())[::-1]


def with_legend(fig: Figure, ax: Axes | None = None, handles: Sequence[Artist] = (), **options: Any) -> Figure:
    """`fig` with a legend at its right: of one of its panels, or of the `handles` given; none without either."""
    entries = [*([] if ax is None else ax.get_legend_handles_labels()[0]), *handles]
    if entries:
        fig.legend(handles=once(entries), loc="outside right center", **options)
    return fig


def with_legend_below(fig: Figure, handles: Sequence[Artist], columns: int = 1, **options: Any) -> Figure:
    """`fig` with a legend below it, in so many columns; none without handles."""
    if handles:
        fig.legend(handles=once(handles), loc="outside lower center", ncols=columns, **options)
    return fig


def nothing_to_draw(ax: Axes) -> None:
    """Say in the panel that there is nothing to draw."""
    ax.annotate(MISSING, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center")
    ax.set(xticks=[], yticks=[])


def task_looks(tasks: Any) -> dict[str, dict[str, Any]]:
    """A mark per task, in order of appearance: black figures 1, 2, ..., since colours and shapes are the methods'."""
    numbers = zip(dict.fromkeys(tasks), itertools.count(1))
    return {task: {"color": "black", "marker": f"${n}$", "mew": 0.3} for task, n in numbers}
