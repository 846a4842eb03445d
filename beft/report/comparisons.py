"""Comparisons over cells, where a cell is model x task x regime: paired differences and Kendall's taus, tested.

Cells of one task share its rows and its validation split and are not independent, so numbers over cells are resampled
by task: a task is drawn with all its cells (cluster bootstrap). Numbers of one cell are those of `intervals`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from ..errors import BeftError
from . import dataframes
from .intervals import FLIPS, LEVEL, agreement, finished, mean_interval, paired_differences, sign_flip_p, term_scores
from .majority import not_learned

Pairs = Sequence[tuple[str, str]]
CELL = ("model", "task", "regime")
DRAWS = 9_999
LEAST = 3  # values, or tasks, that a bootstrap needs: from two it can only draw the one, the other or both
_OVER = ("cells", "tasks", "higher", "mean", "low", "high", "p", "p_tasks")
_NUMBERS = ("n", "mean", "low", "high", "boot_low", "boot_high", "p", "p_least", "p_holm")
_COMPARED = ("first", "second", "not_learned", "values", *_NUMBERS)


def holm(p: ArrayLike) -> np.ndarray:
    """Holm's step-down p-values (n,), in the order given; nan stays nan and does not count as a test.

    The i-th smallest of m values is multiplied by m - i + 1, never below the one before it, at most 1: valid
    whatever the dependence between the tests.
    """
    values = np.asarray(p, dtype=float)
    out = np.full(values.shape, np.nan)
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    out[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)), 1.0)
    return out


def bootstrap_interval(values: ArrayLike) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of values (n,), seeded; (nan, nan) below three values.

    Shown beside Student's t because it assumes no shape; at three to five seeds it is known to be too narrow. Equal
    values give an interval of no width.
    """
    x = np.asarray(values, dtype=float)
    if len(x) < LEAST:
        return math.nan, math.nan
    draws = {"n_resamples": DRAWS, "confidence_level": LEVEL, "rng": np.random.default_rng(0)}
    low, high = stats.bootstrap((x,), np.mean, method="percentile", **draws).confidence_interval
    return float(low), float(high)


def cluster_interval(values: ArrayLike, clusters: Sequence[Any]) -> tuple[float, float]:
    """Percentile interval of the mean of values (n,) when whole `clusters` (n,) are drawn with replacement, seeded.

    (nan, nan) below three clusters. With few clusters it is too narrow, and never wider than from the smallest to the
    largest mean of a cluster: read the sign-flip p over tasks beside it.
    """
    sums = pd.Series(np.asarray(values, dtype=float)).groupby(list(clusters)).agg(["sum", "size"])
    if len(sums) < LEAST:
        return math.nan, math.nan
    picks = np.random.default_rng(0).integers(0, len(sums), (DRAWS, len(sums)))
    means = sums["sum"].to_numpy()[picks].sum(axis=1) / sums["size"].to_numpy()[picks].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def by_cell(frame: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Every cell, {"model", "task", "regime"}, with its rows, in order of appearance."""
    for names, part in frame.groupby(list(CELL), sort=False, dropna=False):
        yield dict(zip(CELL, names, strict=True)), part


def one_run_each(runs: pd.DataFrame) -> None:
    """Raise BeftError where a cell has several runs of one method and seed: a mean would mix settings."""
    twice = runs[runs.duplicated([*CELL, "method", "seed"])]
    if len(twice):
        r = twice.iloc[0]
        raise BeftError(
            f"{r['method']} has several runs for seed {r['seed']} in {r['task']}, {r['regime']}, {r['model']}: "
            "keep one rate, one number of epochs and one precision per method and cell"
        )


def least_p(n: int) -> float:
    """The smallest value `sign_flip_p` can take for n differences; nan for none."""
    return 2 / min(2**n, FLIPS + 1) if n else math.nan


def difference(differences: ArrayLike) -> dict[str, Any]:
    """Paired differences (n,) as the columns of `compare` from `values` to `p_least`."""
    d = np.asarray(differences, dtype=float)
    row: dict[str, Any] = (
        {"values": tuple(d)} | vars(mean_interval(d)) | dict(zip(("boot_low", "boot_high"), bootstrap_interval(d)))
    )
    return row | {"p": sign_flip_p(d), "p_least": least_p(len(d))}


def compare(runs: pd.DataFrame, pairs: Pairs, absent: bool = False) -> pd.DataFrame:
    """The paired difference first - second in every cell in which both methods have finished runs.

    Columns: model, task, regime, first, second; not_learned (those of the two that are not, see `majority`); values
    (the differences, a tuple by seed); n (common seeds), mean, low, high (Student t), boot_low, boot_high
    (`bootstrap_interval`), p (sign-flip, exact up to 16 seeds), p_least (the smallest p that n allows), p_holm
    (Holm over all rows with a p of which both methods are learned, so over every cell and pair of this call).

    Where `absent`, a pair of which a method has no finished run has a row too, without numbers. Raises BeftError where
    a method has several finished runs for one seed in a cell.
    """
    rows = []
    for cell, part in by_cell(runs):
        methods = set(finished(part)["method"])
        rows += [cell | _pair(part, *pair) for pair in pairs if absent or methods >= {*pair}]
    return _corrected(pd.DataFrame(rows, columns=[*CELL, *_COMPARED]))


def _corrected(compared: pd.DataFrame) -> pd.DataFrame:
    return compared.assign(p_holm=holm(compared["p"].astype(float).where(judged(compared))))


def judged(compared: pd.DataFrame) -> pd.Series:
    """Which differences count in agreements and verdicts: those of two methods that are both learned."""
    unlearned = compared.get("not_learned")
    return pd.Series(True, compared.index) if unlearned is None else unlearned.map(len).astype(int) == 0


def compare_views(views: Mapping[str, pd.DataFrame], pairs: Pairs) -> pd.DataFrame:
    """The paired difference of every pair in several frames of one cell: `compare` with `view` in place of the cell.

    Every pair has a row, without numbers where a method was not run. Raises as `compare`.
    """
    rows = [{"view": view} | _pair(runs, *pair) for view, runs in views.items() for pair in pairs]
    return _corrected(pd.DataFrame(rows, columns=["view", *_COMPARED]))


def _pair(runs: pd.DataFrame, first: str, second: str) -> dict[str, Any]:
    """`first` minus `second` in the runs of one cell."""
    unlearned = not_learned(runs[runs["method"].isin([first, second])])
    row = {"first": first, "second": second, "not_learned": tuple(m for m in (first, second) if m in unlearned)}
    return row | difference(paired_differences(runs, first, second))


def overall(compared: pd.DataFrame) -> pd.DataFrame:
    """The rows of `compare` over cells: one row per pair. Points of different metrics are averaged as they are.

    Cells in which one of the two is not learned are left out. Columns: first, second; left_out (such cells); cells
    (with a difference), tasks, higher (cells in which the first has the higher mean); mean over cells, low, high
    (`cluster_interval` over tasks); p (sign-flip over the cells' means, which does take them as independent), p_tasks
    (the same, each task's cells flipped together).
    """
    rows = []
    for (first, second), part in compared.groupby(["first", "second"], sort=False):
        known = part.dropna(subset=["mean"])
        counts = judged(known)
        row = {"first": first, "second": second, "left_out": int((~counts).sum())}
        rows.append(row | _over_cells(known[counts]["mean"], known[counts]["task"]))
    return pd.DataFrame(rows, columns=["first", "second", "left_out", *_OVER])


def _over_cells(values: pd.Series, tasks: pd.Series) -> dict[str, Any]:
    """Differences, one per cell, with their tasks: the columns of `overall` after the pair."""
    low, high = cluster_interval(values, list(tasks))
    sums = values.groupby(tasks).sum()  # flipping a task flips its sum, and the mean is made of the sums
    row: dict[str, Any] = {"cells": len(values), "tasks": tasks.nunique(), "higher": int((values > 0).sum())}
    row |= {"mean": float(values.mean()), "low": low, "high": high}
    return row | {"p": sign_flip_p(values), "p_tasks": sign_flip_p(sums)}


def tau_by_cell(rankings: dataframes.Records, runs: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau of each score with the terms' accuracies, seed by seed (`agreement`), in every cell.

    Columns: model, task, regime, score, view, seed, tau (nan below two learned terms). A cell without a finished
    ranking, or without accuracies, has no rows. Raises as `scored_cells`.
    """
    cells = scored_cells(rankings, runs)
    frames = [agreement(averages, part).assign(**cell) for cell, averages, part in cells]
    columns = [*CELL, "score", "view", "seed", "tau"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def scored_cells(
    rankings: dataframes.Records, runs: pd.DataFrame
) -> Iterator[tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]]:
    """Every cell that has a finished ranking and finished runs: names, `term_scores`, runs.

    Raises BeftError where a cell has several rankings, or several runs of one term, for one seed.
    """
    for cell, part in by_cell(runs):
        wanted = {**cell, "outcome": "ok"}
        here = [r for r in rankings if wanted.items() <= {**r["settings"], "outcome": r["outcome"]}.items()]
        if len({r["settings"]["seed"] for r in here}) < len(here):
            place = f"{cell['task']}, {cell['regime']}, {cell['model']}"
            raise BeftError(f"several rankings per seed in {place}: give those of one precision and one rate")
        if here and len(finished(part)):
            one_run_each(finished(part))
            yield cell, term_scores(dataframes.scores(here)), part


def tau_overall(taus: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau over cells: one row per score and view. Seeds are averaged within a cell first.

    Columns: score, view, cells, tasks, mean, low, high (`cluster_interval` over tasks). Undefined taus are left out.
    """
    groups = cell_taus(taus).groupby(["score", "view"], sort=False)
    rows = [{"score": s, "view": v} | _over_cells(part["tau"], part["task"]) for (s, v), part in groups]
    return pd.DataFrame(rows, columns=["score", "view", "cells", "tasks", "mean", "low", "high"])


def cell_taus(taus: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, score and view with a defined tau: model, task, regime, score, view, tau (mean over seeds)."""
    known = taus.dropna(subset=["tau"]).astype({"tau": float})
    return known.groupby([*CELL, "score", "view"], sort=False)["tau"].mean().reset_index()


def tau_differences(taus: pd.DataFrame, first: str = "mag_angle") -> pd.DataFrame:
    """Whether the score `first` is the better guide: its tau minus that of every other score, cell by cell.

    Within a cell only seeds in which both taus are defined count. Columns: first, second, view, then those of
    `overall` from `cells` on.
    """
    rows = []
    known = taus.dropna(subset=["tau"]).astype({"tau": float})
    mine = known[known["score"] == first].drop(columns="score")
    for second in [s for s in dict.fromkeys(known["score"]) if s != first]:
        both = mine.merge(known[known["score"] == second], on=[*CELL, "view", "seed"], suffixes=("", "_second"))
        both["gap"] = both["tau"] - both["tau_second"]
        cells = both.groupby([*CELL, "view"], sort=False)["gap"].mean().reset_index()
        for view, part in cells.groupby("view", sort=False):
            row = {"first": first, "second": second, "view": view}
            rows.append(row | _over_cells(part["gap"], part["task"]))
    return pd.DataFrame(rows, columns=["first", "second", "view", *_OVER])
