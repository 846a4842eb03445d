"""The one rule by which a difference is called ahead, behind, not shown, or beyond what the data can tell.

An exact paired sign-flip test (`intervals.sign_flip_p`) over seeds within a cell, over tasks across cells; Holm's
correction over the table that the difference stands in; at `ALPHA`. Where even the smallest p that so few seeds or
tasks allow would stay above `ALPHA` after the correction, the answer is "cannot be told". A difference of which one
method is at or below the majority class (`majority`) gets no verdict but "not learned", and is no test of the table.
"""

from collections.abc import Iterable

import pandas as pd

from .comparisons import holm, judged, least_p
from .majority import NOT_LEARNED
from .names import MISSING, counted, method_name

ALPHA = 0.05


def over_seeds(compared: pd.DataFrame) -> pd.DataFrame:
    """Differences within cells with their verdict.

    Args:
        compared: the whole table, of `comparisons.compare` or `compare_views`; a column `lower` is True where a lower
            value is the better one.

    Returns:
        The frame with p_least, p_holm (over its rows) and verdict: "ahead" where the first is better, "behind" where
        it is worse, "no difference shown", "cannot be told with n seeds"; "not learned: b_k" where one or both of the
        methods are not; "not run" without a common seed.
    """
    return _judged(compared, "n", "p", "seed")


def over_tasks(overall: pd.DataFrame) -> pd.DataFrame:
    """As `over_seeds`, over tasks: by the p in which each task's cells are flipped together.

    `overall` is the whole table, of `comparisons.overall` or `tau_differences`.
    """
    return _judged(overall, "tasks", "p_tasks", "task")


def over_occupations(compared: pd.DataFrame) -> pd.DataFrame:
    """As `over_seeds`, over the occupations of which a difference was taken, with the patches as they were trained."""
    return _judged(compared, "n", "p", "occupation")


def left_out(methods: Iterable[str]) -> str:
    """What stands in the place of a verdict, or of a p, where these methods are not learned; "" where all are."""
    names = ", ".join(map(method_name, methods))
    return f"{NOT_LEARNED}: {names}" if names else ""


def _judged(frame: pd.DataFrame, count: str, p: str, unit: str) -> pd.DataFrame:
    counts = judged(frame)
    least = frame[count].map(least_p).astype(float)
    corrected, smallest = (holm(values.astype(float).where(counts)) for values in (frame[p], least))
    better = frame["mean"].astype(float) * (1 - 2 * frame.get("lower", pd.Series(False, frame.index)))
    rows = zip(frame[count], corrected, smallest, better, _unlearned(frame), strict=True)
    return frame.assign(p_least=least, p_holm=corrected, verdict=[_verdict(*row, unit) for row in rows])


def _unlearned(frame: pd.DataFrame) -> list[str]:
    """Why each difference has no verdict, or ""; over cells, where all of them were left out."""
    if "left_out" in frame:
        return [NOT_LEARNED if n else "" for n in frame["left_out"].where(frame["cells"] == 0, 0)]
    if "not_learned" not in frame:
        return [""] * len(frame)
    return [left_out(methods) if n else "" for methods, n in zip(frame["not_learned"], frame["n"], strict=True)]


def _verdict(count: int, p: float, smallest: float, better: float, unlearned: str, unit: str) -> str:
    """`smallest`: the corrected p if every difference of the table were as extreme as its seeds or tasks allow."""
    if unlearned or not count:
        return unlearned or MISSING
    if smallest > ALPHA:
        return f"cannot be told with {counted(count, unit)}"
    return "no difference shown" if p > ALPHA else "ahead" if better > 0 else "behind"
