"""The scores that say which bias term matters, and how well a score agrees with the accuracies.

They take arrays: b0 a bias before and b1 after a run that tunes all biases (PROTOCOL, scores; THEORY section 6),
g loss gradients. A ranking puts the highest score first.
"""

import math
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import kendalltau

from ..errors import BeftError


def magnitude(b0: ArrayLike, b1: ArrayLike) -> float:
    """Mean absolute change, mean_i |b1_i - b0_i|, of a bias (d,): the units of the bias."""
    before, after = _pair(b0, b1)
    return float(np.abs(after - before).mean())


def mag_angle(b0: ArrayLike, b1: ArrayLike) -> float:
    """The paper's Mag+Angle of a bias (d,), dimensionless: 0 unchanged, at most 2 (reversed, same length).

    1 - cos(angle) min(|b0|, |b1|) / max(|b0|, |b1|), computed as 1 - <b0, b1> / max(|b0|, |b1|)^2, which is the
    same and needs no angle; angles above 90 degrees, where the authors' code stops, are defined too. It is
    symmetric, and does not change when both vectors are scaled alike.

    Zero vectors: with exactly one of them zero the limit, 1, whatever the other (so all terms of a bias-free
    model tie); with both zero it is undefined: nan. A diverged run's infinite or nan entries also give nan.
    """
    before, after = _pair(b0, b1)
    # Divide by the largest entry first: squares of tiny or huge biases would leave the range of floats.
    largest = max(np.abs(before).max(), np.abs(after).max())
    if largest == 0 or not math.isfinite(largest):
        return math.nan
    before, after = before / largest, after / largest
    score = 1.0 - float(before @ after) / max(float(before @ before), float(after @ after))
    return min(max(score, 0.0), 2.0)  # rounding alone can leave the range


def fisher(gradients: ArrayLike) -> float:
    """Empirical Fisher of a bias: mean over examples and entries of the squared loss gradient.

    Args:
        gradients: (N, d), one row per example, each the gradient of that example's own loss at the pre-trained
            weights, model in eval mode.
    """
    rows = _rows(gradients)
    return float(np.square(rows).mean())


def fisher_batch(gradients: ArrayLike, norms: ArrayLike, clip: float = 1.0) -> float:
    """The authors' approximation: squared gradients of batch means, each clipped as a whole before.

    It is smaller than `fisher` by up to the batch size, and the clipping weighs batches with large gradients down.

    Args:
        gradients: (M, d), one row per batch: the gradient of the batch's mean loss for this bias, not clipped.
        norms: (M,), the norm of the same batch's gradient over *all* trained parameters.
        clip: the norm the whole gradient is clipped to.
    """
    rows = _rows(gradients)
    whole = np.asarray(norms, dtype=np.float64)
    if whole.shape != rows.shape[:1]:
        raise BeftError(f"{rows.shape[0]} batch gradients need as many norms, not an array {whole.shape}")
    # torch's clip_grad_norm_ adds 1e-6 to the norm
    factor = np.minimum(1.0, clip / (whole + 1e-6))
    return fisher(rows * factor[:, None])


def rank(scores: Mapping[str, float], exclude: Collection[str] = ()) -> list[str]:
    """The terms by falling score, without those in `exclude` (a provably null key bias); ties keep their order.

    A term whose score is nan comes last.
    """
    kept = [term for term in scores if term not in exclude]
    return sorted(kept, key=lambda term: (math.isnan(scores[term]), -scores[term]))


def agreement(scores: Mapping[str, float], accuracies: Mapping[str, float]) -> float:
    """Kendall's tau-b between scores and accuracies of the terms both have: 1 same order, -1 reversed.

    nan where all scores or all accuracies tie, or where a score is nan. Raises BeftError for fewer than two terms in
    common.
    """
    terms = [term for term in scores if term in accuracies]
    if len(terms) < 2:
        raise BeftError(f"an agreement needs at least two terms with score and accuracy, not {terms}")
    x, y = [scores[term] for term in terms], [accuracies[term] for term in terms]
    return float(kendalltau(x, y, nan_policy="propagate").statistic)


def _pair(b0: ArrayLike, b1: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    before, after = np.asarray(b0, dtype=np.float64), np.asarray(b1, dtype=np.float64)
    if before.ndim != 1 or before.shape != after.shape or before.size == 0:
        raise BeftError(f"a bias before and after must be vectors of one size, not {before.shape} and {after.shape}")
    return before, after


def _rows(gradients: ArrayLike) -> np.ndarray:
    rows = np.asarray(gradients, dtype=np.float64)
    if rows.ndim != 2 or rows.size == 0:
        raise BeftError(f"gradients must be an array (examples, entries), not {rows.shape}")
    return rows
