"""Figures of what each bias term can do to an output: reachable points, sensitivity by layer, perturbations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.spatial import ConvexHull

from ..style import (
    COLORS,
    GREY,
    MARKERS,
    SMALL,
    TERM_NAMES,
    TERMS,
    look_of,
    mark_of,
    styled,
    with_legend,
    with_legend_below,
)

if TYPE_CHECKING:
    from ...theory.expressiveness import Sensitivity

EPSILON = float(np.finfo(np.float64).eps)
_ROUNDING = {"float64": EPSILON, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}  # next number after 1


@styled
def reachable(reached: Mapping[str, np.ndarray]) -> Figure:
    """Fig. 1a: where b_q, b_k and b_v can take the output of one query of a head with 2-dimensional values.

    `reached` of `theory.attention.reached`.
    """
    titles = {"q": "limited, inside the hull", "k": "ineffective, stays", "v": "direct, anywhere"}
    fig, axes = plt.subplots(1, 3, figsize=(10.8, 4.0), sharex=True, sharey=True)
    for ax, (term, title) in zip(axes, titles.items(), strict=True):
        # The values with their hull, and the output of one query before any change; all of it over the grid.
        hull = reached["values"][ConvexHull(reached["values"]).vertices]
        ax.fill(*hull.T, facecolor="#ececec", edgecolor=GREY, lw=1.2, zorder=1.5, label="hull of the values")
        ax.plot(*reached["values"].T, ".", color=GREY, ms=10, zorder=2.5, label=r"values $v_j$")
        ax.plot(*reached["output"], marker=(8, 1, 0), ls="", color="black", ms=12, zorder=5, label=r"output $o_i$")
        look: dict[str, Any] = {"color": COLORS[term], "lw": 1.3, "alpha": 0.85, "zorder": 2}
        if term == "k":
            look = {"marker": MARKERS["b_k"], "ls": "", "ms": 17, "mfc": "none", "mec": COLORS["k"], "mew": 2}
        for path in reached[term]:
            ax.plot(*path.T, **look)
        ax.set_title(f"{TERM_NAMES[term]}: {title}")
        handles = ax.get_legend_handles_labels()[0]
        handles.append(
            Line2D([], [], label=f"reached by {TERM_NAMES[term]}", **look | ({"ms": 9} if term == "k" else {}))
        )
        ax.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.09), fontsize=SMALL, ncols=2, columnspacing=1.0
        )
    return fig


@styled
def exceptions(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Change of the output when every b_k moves, per architecture; above, those of which the proof says it is null.

    Every mark is b_k's: its side says what was measured, its half of the figure what the proof predicts.
    """
    halves = [sorted((r for r in rows if r["null"] is null), key=lambda r: r["change"]) for null in (True, False)]
    heights = [max(len(half), 1) for half in halves]
    fig, axes = plt.subplots(2, 1, figsize=(8.2, 1.4 + 0.27 * sum(heights)), sharex=True, height_ratios=heights)
    for ax, half, title in zip(axes, halves, ("Null by proof", "Not null: the proof does not hold"), strict=True):
        # A change of exactly zero has no logarithm: draw it at the smallest float64 step.
        changes = [max(row["change"], EPSILON) for row in half]
        ax.plot(changes, range(len(half)), ls="", **mark_of("b_k"))
        ax.set_yticks(range(len(half)), [row["model"] for row in half])
        ax.set(title=title, xscale="log", xlim=(1e-16, 3), ylim=(len(half) - 0.3, -0.7))
    axes[1].set_xlabel("relative change of the output when N(0, 1) is added to every $b_k$ (float64)")
    return fig


@styled
def layers(measured: Sensitivity) -> Figure:
    """Reach, spectral norm and entropy of the attention by layer."""
    ones = np.ones_like(measured.rms)
    x = np.arange(1, len(ones) + 1)
    fig, axes = plt.subplots(1, 3, figsize=(10.8, 3.8))
    for term, y in (("q", measured.rms), ("k", 0 * ones), ("v", ones)):
        axes[0].plot(x, y, clip_on=False, **look_of(f"b_{term}"))
    axes[0].set(title="Reach", ylabel=r"rms of $\|\partial o/\partial b\|_F\,/\sqrt{d}$", ylim=(0, 1.08))
    for term, y in (("q", measured.spectral), ("v", ones)):
        axes[1].plot(x, y, clip_on=False, **look_of(f"b_{term}"))
    axes[1].set(title="Strongest direction", ylim=(0, 1.08), ylabel=r"mean spectral norm of $\partial o/\partial b$")
    axes[2].plot(x, measured.entropy, color="black", lw=1.8, label="attention")
    axes[2].plot(x, measured.uniform, color=GREY, lw=1.8, ls=":", label="uniform attention")
    axes[2].set(title="Entropy", ylabel="nats", ylim=(0, None))
    for ax in axes:
        ax.set_xlabel("layer")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [h for ax in (axes[0], axes[2]) for h in ax.get_legend_handles_labels()[0]]
    return with_legend_below(fig, handles, columns=5)


@styled
def perturbation_by_precision(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The relative change of the logits when N(0, 1) is added to every bias of a term: a column per precision.

    `rows` as `expressiveness.perturbation_table` gives them. The dotted lines are the rounding of each precision.
    """
    return _perturbations(rows, "precision", {r["precision"]: _ROUNDING.get(r["precision"], np.nan) for r in rows})


@styled
def perturbation_by_model(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The relative change of the logits when numbers are added to each term's biases: a column per model.

    `rows` are {"model", "term", "relative"}, as `expressiveness.perturbation_table` gives them in float64, the rounding
    of which is the dotted line.
    """
    return _perturbations(rows, "model", {r["model"]: EPSILON for r in rows})


def _perturbations(rows: Sequence[Mapping[str, Any]], by: str, rounding: Mapping[str, float]) -> Figure:
    """A mark per term in every column of `by`, on a logarithmic axis, and the rounding of the numbers as a line."""
    columns = list(dict.fromkeys(row[by] for row in rows))
    fig, ax = plt.subplots(figsize=(2.6 + 1.7 * max(len(columns), 2), 3.9))
    for n, term in enumerate(TERMS):
        # A change of exactly zero has no logarithm: draw it at the bottom.
        mine = {row[by]: max(row["relative"], 1e-17) for row in rows if row["term"] == f"b_{term}"}
        places = [x + 0.22 * (n - 1) for x, column in enumerate(columns) if column in mine]
        ax.plot(places, [mine[c] for c in columns if c in mine], ls="", label=TERM_NAMES[term], **mark_of(f"b_{term}"))
    for x, column in enumerate(columns):
        label = None if x else "rounding"
        ax.plot([x - 0.4, x + 0.4], [rounding[column]] * 2, color=GREY, lw=1.4, ls=":", zorder=1.5, label=label)
    ax.set_xticks(range(len(columns)), [str(c).replace("-Instruct", "-\nInstruct") for c in columns])
    ax.set(yscale="log", ylabel="relative change of the logits", xlim=(-0.5, len(columns) - 0.5))
    ax.grid(axis="x", visible=False)
    return with_legend(fig, ax)
