"""Numbers over seeds: means with intervals, paired differences, and the agreement of scores with accuracies.

Frames of runs (`dataframes.frame`) in, numbers or frames of numbers out, so that figures and tables read the same
values. Metrics and their differences are fractions in [0, 1]. A run that did not end well (`outcome` other than "ok")
or has no score (`dataframes.is_lost`) never enters a mean and is always counted beside it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from ..errors import BeftError
from ..theory import scores
from . import dataframes
from .dataframes import finished as finished
from .majority import not_learned

LEVEL = 0.95
DRAWN_FROM = 5  # values: a figure draws no interval over fewer, it shows the values; tables have the interval
FLIPS = 2**16  # sign patterns: all of them where there are no more, else a seeded sample of as many
RANGES = {  # what a measure can be: scores as fractions, shares of pairs in percent; the others have no ends
    **dict.fromkeys(("accuracy", "f1", "macro_f1", "gap", "fraction"), (0.0, 1.0)),
    **dict.fromkeys(("matthews", "spearman", "pearson", "tau"), (-1.0, 1.0)),
    **dict.fromkeys(("crows", "lm", "stereotype"), (0.0, 100.0)),
    "fprd": (0.0, math.inf),
}
SPLIT = {"tuning": "final_tuning", "validation": "final"}


@dataclass(frozen=True)
class Interval:
    """A mean over n values with its Student t interval; `low` and `high` are nan where n < 2."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values: Iterable[float]) -> Interval:
    """Mean and two-sided Student t interval of independent values (n,); values that are not finite are dropped.

    The interval says how the mean varies over seeds (data draw, head, order, dropout), not over validation sets.
    """
    x = np.asarray([v for v in values if v is not None], dtype=float)
    x = x[np.isfinite(x)]
    mean = float(x.mean()) if len(x) else math.nan
    if len(x) < 2:
        return Interval(mean, math.nan, math.nan, len(x))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(mean, mean - half, mean + half, len(x))


def cut_interval(values: Iterable[float], measure: str) -> Interval:
    """`mean_interval` of a measure, cut where that measure can go no further (`RANGES`, by the measure's first word).

    Student t knows no ends, so that two or three accuracies may give an interval to 105%. It is cut for print and
    figures alone: differences, and all that a verdict rests on, keep the uncut one.
    """
    i = mean_interval(values)
    least, most = RANGES.get(measure.partition(" ")[0], (-math.inf, math.inf))
    if i.n < 2:
        return i
    # never past the mean, which rounding may put a little beyond an end
    return Interval(i.mean, min(max(i.low, least), i.mean), max(min(i.high, most), i.mean), i.n)


def score_interval(runs: pd.DataFrame, value: str = "final") -> Interval:
    """`cut_interval` of a score of the finished runs of one cell, by the metric that they have in common."""
    ok = finished(runs)
    metrics = set(ok["metric"].dropna()) if "metric" in ok else set()
    return cut_interval(ok[value], metrics.pop() if len(metrics) == 1 else "")


def summary(frame: pd.DataFrame, by: Sequence[str] = ("method",), value: str = "final") -> pd.DataFrame:
    """One row per group: mean, low, high of its `score_interval`, n (finished runs), lost (`dataframes.is_lost`)."""
    rows = []
    frame = frame.assign(lost=dataframes.is_lost(frame, value))  # by the whole frame: a group may have no score at all
    for group, part in frame.groupby(list(by), sort=False, dropna=False):
        row = dict(zip(by, group, strict=True)) | vars(score_interval(part, value))
        rows.append(row | {"lost": int(part["lost"].sum())})
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "n", "lost"])


def by_name(values: pd.Series) -> dict[str, float]:
    """Numbers by the names of their index."""
    return {str(name): float(value) for name, value in values.items()}


def sign_flip_p(differences: ArrayLike) -> float:
    """Two-sided sign-flip permutation p-value of paired differences (n,): no shape is assumed, only symmetry.

    Exact (all 2^n sign patterns) up to n = 16, a seeded sample of 2^16 beyond. The smallest value it can take is
    2 / 2^n: with five seeds, 0.0625. One difference alone says nothing: 1.
    """
    d = np.asarray(differences, dtype=float)
    if len(d) < 2:
        return math.nan if len(d) == 0 else 1.0
    flips = {"permutation_type": "samples", "n_resamples": FLIPS, "rng": np.random.default_rng(0)}
    return float(stats.permutation_test((d,), np.mean, axis=-1, **flips).pvalue)


def paired_differences(frame: pd.DataFrame, first: str, second: str, value: str = "final") -> pd.Series:
    """first - second by seed, over the seeds in which both methods finished.

    The same seed means the same training rows and the same initial head. Raises BeftError if a method has several
    finished runs for one seed: pick one rate per method first.
    """
    runs = finished(frame)[["method", "seed", value]]
    for method in (first, second):
        if runs[runs["method"] == method]["seed"].duplicated().any():
            raise BeftError(f"{method} has several runs per seed here; choose one rate per method before comparing")
    ours, theirs = (runs[runs["method"] == m].set_index("seed")[value].astype(float) for m in (first, second))
    return (ours - theirs).dropna()


def choose_rate(frame: pd.DataFrame, on: str = "tuning") -> dict[str, float]:
    """The rate of each method with the highest mean accuracy over seeds on the split `on`; ties: the smaller rate.

    A rate at which any run was lost (`dataframes.is_lost`) is chosen only if every rate of that method lost one, fewest
    first: a mean over the survivors would flatter it. Methods without a usable value are left out.
    """
    if on not in SPLIT:
        raise BeftError(f"a rate is chosen on 'tuning' or 'validation', not on {on!r}")
    table = summary(frame, ("method", "rate"), SPLIT[on])
    table["mean"] = table["mean"].round(9)  # means of equal scores differ by rounding
    table = table[table["n"] > 0].sort_values(["lost", "mean", "rate"], ascending=[True, False, True])
    return by_name(table.drop_duplicates("method").set_index("method")["rate"])


def choose_rates(records_by_cell: Sequence[Sequence[dict]]) -> list[dict[str, float]]:
    """`choose_rate` on the tuning split for the trials of every cell; nothing for a cell without any."""
    return [choose_rate(dataframes.frame(records)) if records else {} for records in records_by_cell]


def first_finished(records: Sequence[dict], prefer: str = "b_v") -> dict:
    """The first record that ended well: of the method `prefer`, else of any other. Raises BeftError without one.

    The first seed, not the best one: a seed picked by the validation score it then reports would flatter.
    """
    ok = [r for r in records if r["outcome"] == "ok"]
    preferred = [r for r in ok if r["settings"]["method"] == prefer] or ok
    if not preferred:
        raise BeftError(f"none of {len(records)} runs ended well: give a smaller rate")
    return preferred[0]


def coincidence(curves: pd.DataFrame) -> pd.DataFrame:
    """Per seed and rate, the largest absolute difference over epochs between the curves of b_k and of the head alone.

    Columns: seed, rate, epochs compared, train_loss, validation. For a provably null b_k (THEORY 1) both differences
    are rounding; the frame is empty where no seed has both methods.
    """
    keys = ["seed", "rate", "epoch"]
    a, b = (curves[curves["method"] == m].set_index(keys) for m in ("b_k", "head"))
    columns = ["train_loss", "validation"]
    gap = (a[columns].astype(float) - b[columns].astype(float)).abs()
    gap = gap.loc[a.index.intersection(b.index)].reset_index()
    largest = {column: (column, "max") for column in columns}
    return gap.groupby(["seed", "rate"], as_index=False).agg(epochs=("epoch", "size"), **largest)


def term_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """The layer average of every score and term (the last column of Fig. 2), per seed, dtype and epoch.

    The norms of the pre-trained biases are kept in the same records but rank nothing, so they are left out.
    """
    keys = ["seed", "rate", "dtype", "key_null", "epoch", "score", "term"]
    return frame[frame["score"] != "norms"].groupby(keys, sort=False)["value"].mean().reset_index()


def agreement(averages: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau between each score's ranking of the terms and their accuracies, seed by seed.

    Two views. "all terms": as scored. "null b_k excluded": a b_k that the anatomy proves null takes no part, which
    leaves b_q against b_v, so that tau is 1 or -1; where b_k is not null the two views are the same.
    A term that is not learned (`majority`) has no rank among the accuracies and takes no part either.
    `averages` from `term_scores`, `runs` of one cell with one finished run per term and seed. Columns: score, view,
    seed, tau (nan below two learned terms), learned (how many those are). Raises BeftError for several runs of a term
    with one seed, such as those of two cells.
    """
    left_out, ok = not_learned(runs), finished(runs)
    twice = ok[ok["method"].isin(averages["term"].radd("b_")) & ok.duplicated(["method", "seed"])]
    if len(twice):
        r = twice.iloc[0]
        raise BeftError(f"{r['method']} has several runs for seed {r['seed']} here: give those of one cell at one rate")
    accuracies = ok.set_index(["method", "seed"])["final"].astype(float).to_dict()
    rows = []
    for (score, seed), part in averages.groupby(["score", "seed"], sort=False):
        without = part[part["term"] != "k"] if part["key_null"].iloc[0] else part
        for view, kept in (("all terms", part), ("null b_k excluded", without)):
            by_term = {t: x for t, x in zip(kept["term"], kept["value"], strict=True) if f"b_{t}" not in left_out}
            accuracy = {t: accuracies.get((f"b_{t}", seed), np.nan) for t in by_term}
            if np.isfinite(list(accuracy.values())).all():
                tau = scores.agreement(by_term, accuracy) if len(by_term) > 1 else np.nan
                rows.append((score, view, seed, tau, len(by_term)))
    return pd.DataFrame(rows, columns=["score", "view", "seed", "tau", "learned"])
