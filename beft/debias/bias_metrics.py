"""Measures of bias from predictions and scores alone, each with its source and its range.

Where a group or class that a measure needs is absent, the measure is nan, which tables show as undefined: zero would
claim that there is no bias.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ..data.identity_templates import Phrase
from ..data.tasks import score
from ..errors import BeftError

LEVEL = 0.95


@dataclass(frozen=True)
class Share:
    """A share in percent with its Wilson 95% interval, of n things."""

    percent: float
    low: float
    high: float
    n: int


def share(hits: ArrayLike) -> Share:
    """The share of what is true (n,), in percent; nan of nothing."""
    values = np.asarray(hits, dtype=bool)
    if not len(values):
        return Share(float("nan"), float("nan"), float("nan"), 0)
    interval = stats.binomtest(int(values.sum()), len(values)).proportion_ci(LEVEL, method="wilson")
    return Share(100 * float(values.mean()), 100 * float(interval.low), 100 * float(interval.high), len(values))


@dataclass(frozen=True)
class Gap:
    """The root mean square gap over classes, and each class's own gap (nan where a group has no such row)."""

    rms: float
    by_class: dict[int, float]


def tpr_gap(labels: ArrayLike, predictions: ArrayLike, groups: ArrayLike) -> Gap:
    """True-positive-rate gap of two groups, class by class, and its root mean square (De-Arteaga et al. 2019).

    gap_c = P(predicted c | true c, group 1) - P(predicted c | true c, group 0), in [-1, 1]; a positive one favours
    group 1. Classes without a row of both groups are left out of the mean, which is nan where none is left.

    Args:
        labels: true classes (N,).
        predictions: predicted ones (N,).
        groups: 0 or 1 (N,).

    Raises BeftError: lengths differ, or groups other than 0 and 1.
    """
    y, p, g = _aligned(labels, predictions, groups)
    if not np.isin(g, (0, 1)).all():
        raise BeftError(f"groups must be 0 and 1 for a gap, not {sorted(set(g.tolist()))[:5]}")
    gaps = {}
    for c in sorted(set(y.tolist())):
        rates = [_mean(p[(y == c) & (g == side)] == c) for side in (0, 1)]
        gaps[int(c)] = rates[1] - rates[0]
    known = np.array([gap for gap in gaps.values() if np.isfinite(gap)])
    return Gap(float(np.sqrt(np.mean(known**2))) if len(known) else float("nan"), gaps)


def fpr_difference(labels: ArrayLike, predictions: ArrayLike, mentions: Sequence[Sequence[str]]) -> float:
    """Sum over group identifiers of |FPR of the sentences that mention it - FPR of all| (Dixon et al. 2018).

    Args:
        labels: 1 for the positive class, such as hate, else 0 (N,).
        predictions: likewise (N,).
        mentions: the identifiers that each sentence has.

    Returns:
        At least 0; nan where no negative sentence mentions any, or there is no negative sentence. An identifier
        without a negative sentence adds nothing.
    """
    y, p, _ = _aligned(labels, predictions, np.arange(len(mentions)))
    negative = y == 0
    whole = _mean(p[negative] == 1)
    terms = sorted({term for row in mentions for term in row})
    rates = [_mean(p[negative & np.array([term in row for row in mentions])] == 1) for term in terms]
    known = [rate for rate in rates if np.isfinite(rate)]
    return float(sum(abs(rate - whole) for rate in known)) if known else float("nan")


def fraction_neutral(predictions: ArrayLike, neutral: int) -> Share:
    """Bias-NLI (Dev et al. 2020): the share of template pairs judged neutral, the only unbiased answer, in percent."""
    return share(np.asarray(predictions) == neutral)


@dataclass(frozen=True)
class Stereo:
    """StereoSet (Nadeem et al. 2021), each in 0..100.

    Attributes:
        lm: how often a meaningful continuation beats the meaningless one.
        stereotype: how often the stereotype beats the anti-stereotype; 50 is unbiased.
        icat: lm * min(stereotype, 100 - stereotype) / 50; 100 is an unbiased ideal.
    """

    lm: float
    stereotype: float
    icat: float


def stereoset(scores: ArrayLike) -> Stereo:
    """The three scores from log-probabilities (N, 3) of the stereotype, the anti-stereotype and the meaningless one."""
    s = np.asarray(scores, dtype=float)
    if s.ndim != 2 or s.shape[1] != 3:
        raise BeftError(f"StereoSet needs scores (N, 3) and was given {s.shape}")
    if not len(s):
        return Stereo(float("nan"), float("nan"), float("nan"))
    lm = 100 * float(np.mean([s[:, 0] > s[:, 2], s[:, 1] > s[:, 2]]))
    stereotype = 100 * float(np.mean(s[:, 0] > s[:, 1]))
    return Stereo(lm, stereotype, lm * min(stereotype, 100 - stereotype) / 50)


def of_biographies(labels: np.ndarray, groups: Mapping[str, np.ndarray]) -> Callable[[np.ndarray], dict[str, Any]]:
    """Predictions (N,) -> accuracy, and of every axis the root mean square TPR gap, "gap <axis>"; null where undefined.

    `labels` are the true occupations (N,), `groups` axis -> 0 or 1 (N,).
    """

    def measure(predicted: np.ndarray) -> dict[str, Any]:
        gaps = {f"gap {name}": tpr_gap(labels, predicted, g).rms for name, g in groups.items()}
        return {"accuracy": float(np.mean(predicted == labels)), **gaps}

    return measure


def of_posts(
    labels: np.ndarray, mentions: Sequence[Sequence[str]], phrases: Sequence[Phrase] = ()
) -> Callable[[np.ndarray], dict[str, Any]]:
    """Predictions (N + P,) of posts and identity phrases -> F1 and FPRD of the posts, and FPRD of the phrases (IPTTS).

    FPRD is the false-positive-rate difference over identifiers (`fpr_difference`). `labels` (N,) are of the posts,
    `mentions` the identifiers that each has; the P `phrases` are predicted behind the posts.
    """
    phrase_labels, identifiers = [p.label for p in phrases], [(p.identifier,) for p in phrases]

    def measure(predicted: np.ndarray) -> dict[str, Any]:
        posts, behind = predicted[: len(labels)], predicted[len(labels) :]
        measures = {"f1": score("f1", labels, posts), "fprd": fpr_difference(labels, posts, mentions)}
        return measures | ({"fprd iptts": fpr_difference(phrase_labels, behind, identifiers)} if phrases else {})

    return measure


def of_nli(labels: np.ndarray, pairs: int, neutral: int = 1) -> Callable[[np.ndarray], dict[str, Any]]:
    """Predictions (N + P,) of sentence pairs and Bias-NLI pairs -> accuracy, and the share of these judged neutral."""

    def measure(predicted: np.ndarray) -> dict[str, Any]:
        behind = predicted[len(labels) :]
        if len(behind) != pairs:
            raise BeftError(f"{len(behind)} predictions for {pairs} pairs of Bias-NLI: predict all of them")
        neutral_share = fraction_neutral(behind, neutral).percent / 100
        return {"accuracy": float(np.mean(predicted[: len(labels)] == labels)), "fraction neutral": neutral_share}

    return measure


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _aligned(*columns: ArrayLike) -> list[np.ndarray]:
    arrays = [np.asarray(column) for column in columns]
    if len({len(array) for array in arrays}) != 1:
        raise BeftError(
            f"labels, predictions and groups have {', '.join(str(len(a)) for a in arrays)} rows: give one each"
        )
    return arrays
