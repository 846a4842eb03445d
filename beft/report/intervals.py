"""Numbers over seeds: means with intervals, paired differences, rank agreement, the choice of a rate.

Everything takes the frames that `beft.records.store` makes (one row per run) and returns plain numbers or frames, so
that figures, tables and the sentences in the notebooks read the same values. All metrics are fractions in [0, 1].
A run that did not end well (`outcome` other than "ok") never enters a mean and is always counted beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import BeftError
from ..theory import scores as theory_scores

LEVEL = 0.95
FLIPS = 2**16  # sign patterns: all of them where there are no more, else a seeded sample of as many
SPLIT = {"tuning": "final_tuning", "validation": "final"}


@dataclass(frozen=True)
class Interval:
    """A mean over n values with its Student t interval; `low` and `high` are nan where n < 2."""

    mean: float
    low: float
    high: float
    n: int

    def percent(self) -> str:
        """E.g. "77.2 [75.9, 78.5]"; "77.2 (one seed)" without an interval; "not run" without a value."""
        if self.n == 0:
            return "not run"
        if self.n == 1:
            return f"{100 * self.mean:.1f} (one seed)"
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def mean_interval(values: Iterable[float], level: float = LEVEL) -> Interval:
    """Mean and two-sided Student t interval of independent values (n,); values that are not finite are dropped.

    The interval says how the mean varies over seeds (data draw, head, order, dropout), not over validation sets.
    """
    x = np.asarray([v for v in values if v is not None], dtype=float)
    x = x[np.isfinite(x)]
    if len(x) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    half = float(stats.t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(mean, mean - half, mean + half, len(x))


def finished(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose outcome is "ok"."""
    return frame[frame["outcome"] == "ok"]


def summary(frame: pd.DataFrame, by: Sequence[str] = ("method",), value: str = "final") -> pd.DataFrame:
    """One row per group: `mean`, `low`, `high`, `n` finished runs, `lost` runs (diverged or failed)."""
    rows = []
    for group, part in frame.groupby(list(by), sort=False, dropna=False):
        interval = mean_interval(finished(part)[value].tolist())
        names = dict(zip(by, group if isinstance(group, tuple) else (group,), strict=True))
        lost = int((part["outcome"] != "ok").sum())
        rows.append({**names, **vars(interval), "lost": lost})
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "n", "lost"])


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided sign-flip permutation p-value of paired differences (n,): no shape is assumed, only symmetry.

    Exact (all 2^n sign patterns) up to n = 16, a seeded sample of 2^16 beyond. The smallest value it can take is
    2 / 2^n: with five seeds, 0.0625. One difference alone says nothing: 1.
    """
    d = np.asarray(differences, dtype=float)
    if len(d) < 2:
        return float("nan") if len(d) == 0 else 1.0
    flips = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=FLIPS, rng=np.random.default_rng(0), axis=-1
    )
    return float(flips.pvalue)


@dataclass(frozen=True)
class Paired:
    """The difference first - second over the seeds both have: interval and sign-flip p."""

    first: str
    second: str
    interval: Interval
    p: float

    def sentence(self) -> str:
        """E.g. "b_v - b_q: +1.3 points [0.2, 2.4] over 5 seeds, sign-flip p = 0.062 (smallest possible 0.062)"."""
        i = self.interval
        if i.n == 0:
            return f"{self.first} - {self.second}: not run (no seed in which both finished)"
        if i.n == 1:
            return f"{self.first} - {self.second}: {100 * i.mean:+.1f} points in one seed, so no interval"
        return (
            f"{self.first} - {self.second}: {100 * i.mean:+.1f} points [{100 * i.low:+.1f}, {100 * i.high:+.1f}]"
            f" over {i.n} seeds, sign-flip p = {self.p:.2g} (smallest possible {2 / 2**i.n:.2g})"
        )


def paired(frame: pd.DataFrame, first: str, second: str, value: str = "final") -> Paired:
    """Compare two methods seed by seed (the same seed means the same training rows and the same initial head).

    Raises BeftError if a method has several finished runs for one seed: pick one rate per method first.
    """
    columns = {}
    for method in (first, second):
        rows = finished(frame[frame["method"] == method])
        if rows["seed"].duplicated().any():
            raise BeftError(
                f"{method} has several runs per seed here; choose one rate per method before comparing"
            )
        columns[method] = rows.set_index("seed")[value].astype(float)
    d = (columns[first] - columns[second]).dropna()
    return Paired(first, second, mean_interval(d), sign_flip_p(d.tolist()))


def choose_rate(frame: pd.DataFrame, on: str = "tuning") -> dict[str, float]:
    """The rate of each method with the highest mean accuracy over seeds on the split `on`; ties: the smaller rate.

    A rate at which any run was lost is chosen only if every rate of that method lost one, fewest first: a mean over
    the survivors would flatter it. Methods without a usable value are left out.
    """
    if on not in SPLIT:
        raise BeftError(f"a rate is chosen on 'tuning' or 'validation', not on {on!r}")
    table = summary(frame, ("method", "rate"), SPLIT[on])
    table = table[table["n"] > 0].sort_values(["lost", "mean", "rate"], ascending=[True, False, True])
    first = table.drop_duplicates("method")
    return dict(zip(first["method"].tolist(), first["rate"].tolist(), strict=True))


def first_finished(records: Sequence[dict], prefer: str = "b_v") -> dict:
    """The first record that ended well: of the method `prefer`, else of any other. Raises BeftError without one.

    The first seed, not the best one: a seed picked by the validation score it then reports would flatter.
    """
    ok = [r for r in records if r["outcome"] == "ok"]
    found = [r for r in ok if r["settings"]["method"] == prefer] or ok
    if not found:
        raise BeftError(f"none of {len(records)} runs ended well: give a smaller rate")
    return found[0]


def coincidence(curves: pd.DataFrame, first: str = "b_k", second: str = "head") -> pd.DataFrame:
    """Per seed and rate, the largest absolute difference over epochs between two methods' curves.

    Columns: seed, rate, epochs compared, train_loss, validation. For a provably null b_k (THEORY 1) both differences
    are rounding; the frame is empty where no seed has both methods.
    """
    keys = ["seed", "rate", "epoch"]
    a, b = (curves[curves["method"] == m].set_index(keys) for m in (first, second))
    gap = (
        a[["train_loss", "validation"]].astype(float) - b[["train_loss", "validation"]].astype(float)
    ).abs()
    gap = gap.loc[a.index.intersection(b.index)].reset_index()
    grouped = gap.groupby(["seed", "rate"])
    return grouped.agg(
        epochs=("epoch", "size"), train_loss=("train_loss", "max"), validation=("validation", "max")
    ).reset_index()


# --- rankings ---------------------------------------------------------------------------------------------


def scores(records: Sequence[dict], by_epoch: bool = False) -> pd.DataFrame:
    """Ranking records as a long frame: seed, rate, dtype, epoch, score, term, layer (from 1), value, key_null.

    `by_epoch` reads the scores kept after every epoch, otherwise the final ones (epoch = the run's last). A run that
    was lost has no scores; a score that is not defined for a model has no rows. Raises BeftError if nothing is left.
    """
    rows = []
    for record in records:
        if record["outcome"] != "ok":
            continue
        s = record["settings"]
        head = {
            "seed": s["seed"],
            "rate": s["rate"],
            "dtype": s["dtype"],
            "key_null": record["key_bias_null"]["null"],
        }
        steps = record["by_epoch"] if by_epoch else [{"epoch": s["epochs"], **record["scores"]}]
        for step in steps:
            for score, terms in step.items():
                if score == "epoch" or terms is None:  # None: not defined for this model
                    continue
                for term, values in terms.items():
                    place = {**head, "epoch": step["epoch"], "score": score, "term": term}
                    rows += [{**place, "layer": i + 1, "value": v} for i, v in enumerate(values)]
    if not rows:
        raise BeftError(f"none of {len(records)} ranking runs ended well: give a smaller rate")
    columns = ["seed", "rate", "dtype", "key_null", "epoch", "score", "term", "layer", "value"]
    return pd.DataFrame(rows, columns=columns)


def term_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """The layer average of every score and term (the last column of Fig. 2), per seed, dtype and epoch.

    The norms of the pre-trained biases are kept in the same records but rank nothing, so they are left out.
    """
    keys = ["seed", "rate", "dtype", "key_null", "epoch", "score", "term"]
    return frame[frame["score"] != "norms"].groupby(keys, sort=False)["value"].mean().reset_index()


def agreement(averages: pd.DataFrame, runs: pd.DataFrame, value: str = "final") -> pd.DataFrame:
    """Kendall's tau between each score's ranking of the terms and their accuracies, seed by seed.

    Two views. "all terms": as scored. "null b_k excluded": a b_k that the anatomy proves null takes no part, which
    leaves b_q against b_v, so that tau is 1 or -1; where b_k is not null the two views are the same.
    `averages` from `term_scores`, `runs` with one finished run per term and seed. Columns: score, view, seed, tau.
    """
    accuracy = finished(runs).set_index(["method", "seed"])[value].astype(float).to_dict()
    rows = []
    for (score, seed), part in averages.groupby(["score", "seed"], sort=False):
        null = bool(part["key_null"].iloc[0])
        for view, kept in (
            ("all terms", part),
            ("null b_k excluded", part[part["term"] != "k"] if null else part),
        ):
            by_term = dict(zip(kept["term"], kept["value"], strict=True))
            found = {
                t: accuracy[f"b_{t}", seed]
                for t in by_term
                if np.isfinite(accuracy.get((f"b_{t}", seed), np.nan))
            }
            if len(found) == len(by_term):
                rows.append(
                    {
                        "score": score,
                        "view": view,
                        "seed": seed,
                        "tau": theory_scores.agreement(by_term, found),
                    }
                )
    return pd.DataFrame(rows, columns=["score", "view", "seed", "tau"])
