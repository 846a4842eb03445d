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

from . import intervals as statistics
from .readings import MISSING, method_name
from .tables import tables

if TYPE_CHECKING:
    from ..settings.profiles import Settings

COLORS = {
    "head": "#4d4d4d",
    "b_q": "#0072B2",
    "b_k": "#E69F00",
    "b_v": "#D55E00",
    "all_biases": "#009E73",
    "lora": "#56B4E9",
    "full": "#CC79A7",
    "mask": "#999999",
    "prefix": "#8c6d31",
    "adapter": "#F0C000",
    "prompt": "#7a8b00",
    "sparse": "#843c39",
    "none": "#000000",
    "zero_shot": "#bbbbbb",
    "in_context": "#6a3d9a",
    "q": "#0072B2",
    "k": "#E69F00",
    "v": "#D55E00",
}
MARKERS = {
    "zero_shot": "_",
    "in_context": "|",
    "head": "s",
    "b_q": "o",
    "b_k": "D",
    "b_v": "^",
    "all_biases": "P",
    "lora": "X",
    "full": "v",
    "mask": "*",
    "prefix": "p",
    "adapter": "<",
    "prompt": ">",
    "sparse": "h",
    "none": "+",
}
DASHES = {"head": "-", "b_q": "-", "b_k": (0, (2, 1.5)), "b_v": "-", "all_biases": "-"}
TERMS = ("q", "k", "v")
TERM_NAMES = {"q": r"$b_q$", "k": r"$b_k$", "v": r"$b_v$"}
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
    caption = tables.full_caption(caption, s, measured, records)
    files = [s.figures / f"{name}.pdf", s.figures / f"{name}.png"]
    fig.savefig(files[0], metadata={"CreationDate": None, "Creator": None, "Producer": None})
    fig.savefig(files[1], dpi=DPI, metadata={"Software": None})
    plt.close(fig)
    tables.register(s, "figure", name, caption, files, records)
    print(f"{name}: {caption}")
    return fig


def methods_of(frame: pd.DataFrame) -> list[str]:
    """The methods of a frame in the fixed order."""
    present = set(frame["method"])
    return [m for m in MARKERS if m in present] + sorted(present - set(MARKERS))


def look_of(method: str, label: bool = True) -> dict[str, Any]:
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
        look = look_of(method)
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
