"""The figures of what each bias term can do, in the style of `beft.report.style`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.spatial import ConvexHull
from torch import Tensor

from ...theory.attention import Head, diameter, reachable_by_q
from ...theory.expressiveness import Sensitivity
from ..style import COLORS, DASHES, styled

TERM_NAMES = {"q": r"$b_q$", "k": r"$b_k$", "v": r"$b_v$"}
_GREY = "#666666"


def _scene(ax: Axes, values: np.ndarray, output: np.ndarray) -> None:
    """The values with their hull, and the output of one query before any change."""
    hull = values[ConvexHull(values).vertices]
    ax.fill(*hull.T, facecolor="#f0f0f0", edgecolor=_GREY, lw=1, zorder=0, label="hull of the values")
    ax.plot(*values.T, "o", color=_GREY, ms=4, label=r"values $v_j$")
    ax.plot(*output, "k*", ms=11, zorder=5, label=r"output $o_i$")


def _steps(ax: Axes, x: np.ndarray, y: np.ndarray, term: str, label: str) -> None:
    ax.plot(x, y, color=COLORS[term], lw=1.1, alpha=0.85, label=label)


@styled
def reachable(head: Head, x: Tensor, query: int = 0, largest: float = 40.0, rays: int = 24) -> Figure:
    """Fig. 1a: where b_v, b_q and b_k can take the output of one query of a head with 2-dimensional values.

    Args:
        head: size 2, value size 2.
        x: inputs (n, D).
        query: which token's output is drawn.
        largest: length of the longest shift of b_q; every ray grows to it from zero.
        rays: directions drawn.
    """
    outputs, weights = head(x)
    values, keys = head.values(x), head.keys(x)
    start = outputs[query].numpy()
    angles = torch.linspace(0, 2 * torch.pi, rays + 1, dtype=x.dtype)[:-1]
    directions = torch.stack([angles.cos(), angles.sin()], dim=-1)  # (rays, 2)
    lengths = torch.linspace(0, largest**0.5, 200, dtype=x.dtype) ** 2
    shifts = directions[:, None] * lengths[None, :, None]  # (rays, lengths, 2)
    reached = {
        "v": start + float(0.6 * diameter(values)) * shifts.numpy() / largest,
        "q": reachable_by_q(weights[query], keys, values, shifts).numpy(),
        "k": np.stack([head.shifted("k", 10 * d)(x)[0][query].numpy() for d in directions])[:, None],
    }
    titles = {
        "v": r"$b_v$: direct, anywhere",
        "q": r"$b_q$: limited, inside the hull",
        "k": r"$b_k$: ineffective, stays",
    }
    fig, axes = plt.subplots(1, 3, figsize=(10.8, 3.6), sharex=True, sharey=True)
    for ax, (term, paths) in zip(axes, reached.items(), strict=True):
        _scene(ax, values.numpy(), start)
        for n, path in enumerate(paths):
            label = f"reached by {TERM_NAMES[term]}" if n == 0 else ""
            if term == "k":
                ax.plot(*path.T, "o", ms=13, mfc="none", mec=COLORS["k"], mew=1.4, label=label)
            else:
                _steps(ax, path[:, 0], path[:, 1], term, label)
        ax.set_title(titles[term])
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=8, ncols=2)
    return fig


@styled
def exceptions(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Change of the output when every b_k moves, per architecture; the colour says what the proof predicts."""
    ordered = sorted(rows, key=lambda row: row["change"])
    fig, ax = plt.subplots(figsize=(7.6, 0.6 + 0.27 * len(ordered)))
    for null, color, label in (
        (True, COLORS["k"], "null, proven"),
        (False, COLORS["q"], "not null, expected"),
    ):
        at = [n for n, row in enumerate(ordered) if row["null"] is null]
        # A change of exactly zero has no logarithm: draw it at the smallest float64 step.
        change = [max(ordered[n]["change"], 2.2e-16) for n in at]
        ax.plot(change, at, "D" if null else "o", color=color, ms=6, label=label)
    ax.set_yticks(range(len(ordered)), [row["model"] for row in ordered])
    ax.set(
        xscale="log", xlabel="relative change of the output when N(0, 1) is added to every $b_k$ (float64)"
    )
    ax.set_xlim(1e-16, 3)
    ax.legend(loc="center")
    return fig


@styled
def layers(measured: Sensitivity) -> Figure:
    """Reach, spectral norm and entropy of the attention by layer."""
    x = np.arange(1, len(measured.rms) + 1)
    fig, axes = plt.subplots(1, 3, figsize=(10.8, 3.2))
    for term, y in (
        ("v", np.ones_like(measured.rms)),
        ("q", measured.rms),
        ("k", np.zeros_like(measured.rms)),
    ):
        axes[0].plot(
            x, y, marker="o", ms=4, color=COLORS[term], ls=DASHES[f"b_{term}"], label=TERM_NAMES[term]
        )
    axes[0].set(title="Reach", ylabel=r"rms of $\|\partial o/\partial b\|_F\,/\sqrt{d}$", ylim=(-0.05, 1.08))
    axes[0].legend(loc="center right")
    axes[1].plot(x, np.ones_like(x), color=COLORS["v"], marker="o", ms=4, label=TERM_NAMES["v"])
    axes[1].plot(x, measured.spectral, color=COLORS["q"], marker="o", ms=4, label=TERM_NAMES["q"])
    axes[1].set(
        title="Strongest direction", ylabel=r"mean spectral norm of $\partial o/\partial b$", ylim=(0, None)
    )
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
def perturbation(rows: Sequence[Mapping[str, Any]]) -> Figure:
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
    fig.legend(loc="outside right center")
    return fig
