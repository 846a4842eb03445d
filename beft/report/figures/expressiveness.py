"""Figures of what each bias term can do to an output: reachable points, sensitivity by layer, perturbations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.spatial import ConvexHull

from ..style import COLORS, DASHES, MARKERS, TERM_NAMES, TERMS, styled, with_legend

if TYPE_CHECKING:
    from ...theory.expressiveness import Sensitivity

_GREY = "#666666"


@styled
def reachable(reached: Mapping[str, np.ndarray]) -> Figure:
    """Fig. 1a: where b_v, b_q and b_k can take the output of one query of a head with 2-dimensional values.

    `reached` of `theory.attention.reached`.
    """
    titles = {"v": "direct, anywhere", "q": "limited, inside the hull", "k": "ineffective, stays"}
    fig, axes = plt.subplots(1, 3, figsize=(10.8, 3.6), sharex=True, sharey=True)
    for ax, (term, title) in zip(axes, titles.items(), strict=True):
        # The values with their hull, and the output of one query before any change.
        hull = reached["values"][ConvexHull(reached["values"]).vertices]
        ax.fill(*hull.T, facecolor="#f0f0f0", edgecolor=_GREY, lw=1, zorder=0, label="hull of the values")
        ax.plot(*reached["values"].T, "o", color=_GREY, ms=4, label=r"values $v_j$")
        ax.plot(*reached["output"], "k*", ms=11, zorder=5, label=r"output $o_i$")
        look: dict[str, Any] = {"color": COLORS[term], "lw": 1.1, "alpha": 0.85}
        if term == "k":
            look = {"marker": "o", "ls": "", "ms": 13, "mfc": "none", "mec": COLORS["k"], "mew": 1.4}
        for n, path in enumerate(reached[term]):
            ax.plot(*path.T, label="" if n else f"reached by {TERM_NAMES[term]}", **look)
        ax.set_title(f"{TERM_NAMES[term]}: {title}")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=8, ncols=2)
    return fig


@styled
def exceptions(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Change of the output when every b_k moves, per architecture; the colour says what the proof predicts."""
    ordered = sorted(rows, key=lambda row: row["change"])
    fig, ax = plt.subplots(figsize=(7.6, 0.6 + 0.27 * len(ordered)))
    for null, term, label in ((True, "k", "null, proven"), (False, "q", "not null, expected")):
        at = [n for n, row in enumerate(ordered) if row["null"] is null]
        # A change of exactly zero has no logarithm: draw it at the smallest float64 step.
        changes = [max(ordered[n]["change"], 2.2e-16) for n in at]
        ax.plot(changes, at, "D" if null else "o", color=COLORS[term], ms=6, label=label)
    ax.set_yticks(range(len(ordered)), [row["model"] for row in ordered])
    change = "relative change of the output when N(0, 1) is added to every $b_k$ (float64)"
    ax.set(xscale="log", xlabel=change, xlim=(1e-16, 3))
    ax.legend(loc="center")
    return fig


@styled
def layers(measured: Sensitivity) -> Figure:
    """Reach, spectral norm and entropy of the attention by layer."""
    ones = np.ones_like(measured.rms)
    x = np.arange(1, len(ones) + 1)
    fig, axes = plt.subplots(1, 3, figsize=(10.8, 3.2))
    for term, y in (("v", ones), ("q", measured.rms), ("k", 0 * ones)):
        look = {"color": COLORS[term], "ls": DASHES.get(f"b_{term}", "-"), "label": TERM_NAMES[term]}
        axes[0].plot(x, y, marker="o", ms=4, **look)
    axes[0].set(title="Reach", ylabel=r"rms of $\|\partial o/\partial b\|_F\,/\sqrt{d}$", ylim=(-0.05, 1.08))
    axes[0].legend(loc="center right")
    for term, y in (("v", ones), ("q", measured.spectral)):
        axes[1].plot(x, y, color=COLORS[term], marker="o", ms=4, label=TERM_NAMES[term])
    axes[1].set(title="Strongest direction", ylim=(0, None), ylabel=r"mean spectral norm of $\partial o/\partial b$")
    axes[1].legend(loc="lower right")
    axes[2].plot(x, measured.entropy, color="black", marker="o", ms=4, label="attention")
    axes[2].plot(x, measured.uniform, color=_GREY, ls=":", label="uniform attention")
    axes[2].set(title="Entropy", ylabel="nats", ylim=(0, None))
    axes[2].legend(loc="lower right")
    for ax in axes:
        ax.set_xlabel("layer")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return fig


@styled
def perturbation_by_precision(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Relative change of the output when N(0, 1) is added to every b_v, b_q or b_k, per precision."""
    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    fig, ax = plt.subplots(figsize=(6.2, 3.4))
    for n, term in enumerate(("v", "q", "k")):
        mine = {row["precision"]: row["relative"] for row in rows if row["term"] == f"b_{term}"}
        x = np.arange(len(precisions)) + 0.26 * (n - 1)
        ax.bar(x, [max(mine[p], 1e-17) for p in precisions], 0.24, color=COLORS[term], label=TERM_NAMES[term])
    ax.set_xticks(range(len(precisions)), precisions)
    ax.set(yscale="log", ylabel="relative change of the output", ylim=(1e-17, 30))
    ax.grid(axis="x", visible=False)
    return with_legend(fig)


@styled
def perturbation_by_model(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The relative change of the logits when numbers are added to each term's biases: a group per model, log scale.

    `rows` are {"model", "term", "relative"}, as `expressiveness.perturbation_table` gives them in one precision.
    """
    models = list(dict.fromkeys(r["model"] for r in rows))
    fig, ax = plt.subplots(figsize=(2.2 + 1.5 * len(models), 3.4))
    for n, term in enumerate(TERMS):
        mine = {r["model"]: max(r["relative"], 1e-17) for r in rows if r["term"] == f"b_{term}"}
        x = np.arange(len(models)) + 0.2 * (n - 1)
        look = {"color": COLORS[term], "label": TERM_NAMES[term]}
        ax.plot(x, [mine[m] for m in models], MARKERS[f"b_{term}"], ms=8, **look)
    ax.axhline(np.finfo(np.float64).eps, color="#999999", lw=1, ls=":")
    ax.annotate("rounding of float64", (0.01, 3e-16), xycoords=("axes fraction", "data"), fontsize=8)
    ax.set_yscale("log")
    ax.set_xticks(range(len(models)), models)
    ax.set(ylabel="relative change of the logits", xlim=(-0.5, len(models) - 0.5))
    ax.grid(axis="x", visible=False)
    return with_legend(fig)
