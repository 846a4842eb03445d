"""Which scores count as learned: the one place that decides it, for tables, figures, agreements and verdicts.

A method is not learned in a cell (model x task x regime) where the mean of its finished runs is at or below the
majority: the score, by the task's own metric, of the most frequent class or option of the validation split as the
answer to every row; 0 for correlations and generated answers. The rule is about the mean, whatever its interval.
Records keep the majority (`data.majority`); where it is unknown nothing is marked, and tables say so.
"""

import math

import numpy as np
import pandas as pd

from .dataframes import finished

NOT_LEARNED = "not learned"
UNKNOWN = "unknown"
TOO_FEW = "fewer than two terms learned"
_EQUAL = 1e-9  # the mean of equal scores differs from them by rounding


def majority_of(runs: pd.DataFrame) -> float:
    """The majority of the cell that these runs are of; nan where it is unknown."""
    known = runs["majority"].dropna() if "majority" in runs else pd.Series(dtype=float)
    return float(known.iloc[0]) if len(known) else math.nan


def at_or_below(mean: float, majority: float) -> bool:
    """Whether a mean score is at or below the majority; False where either is unknown (nan)."""
    return bool(mean <= majority + _EQUAL)


def is_learned(runs: pd.DataFrame, value: str = "final") -> bool:
    """Whether runs of one method in one cell are above the majority, or nothing says that they are not."""
    return not at_or_below(float(finished(runs)[value].astype(float).mean()), majority_of(runs))


def not_learned(runs: pd.DataFrame) -> list[str]:
    """The methods of one cell that are not learned, in order of appearance."""
    return [str(m) for m, part in runs.groupby("method", sort=False) if not is_learned(part)]


def learned(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of one cell without those of methods that are not learned."""
    return runs[~runs["method"].isin(not_learned(runs))]


def majority_text(value: float) -> str:
    """A majority in percent, or that it is unknown."""
    return f"{100 * value:.1f}" if np.isfinite(value) else UNKNOWN


def marked(text: str, below: bool) -> str:
    """The text of a score, marked where it is not learned."""
    return f"{text}, {NOT_LEARNED}" if below else text
