"""Tables of the ranking scores: their orders of the terms, and their agreement with the accuracies."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from ...theory.scores import agreement as kendall
from .. import comparisons, intervals
from ..majority import TOO_FEW, learned, not_learned
from ..names import MISSING, PAPER_ORDER, SCORE_NAMES, interval_text, no_interval, order, tau_text
from .cells import named, over_tasks

Score = tuple[str, pd.DataFrame, dict[str, float], dict[str, pd.DataFrame]]


def _by_score(averages: pd.DataFrame, runs: pd.DataFrame) -> Iterator[Score]:
    """Every score: its rows, its mean over seeds by method of a term, and its rows of `intervals.agreement` by view."""
    taus = intervals.agreement(averages, runs)
    for score, part in averages.groupby("score", sort=False):
        means = part.groupby("term")["value"].mean()
        views = taus[taus["score"] == score].groupby("view", sort=False)
        yield (
            str(score),
            part,
            intervals.by_name(means.add_prefix("b_")),
            {str(view): values for view, values in views},
        )


def _why_undefined(taus: pd.DataFrame) -> str:
    """Why there is no tau, where there is none: too few learned terms, or accuracies that tie."""
    return TOO_FEW if len(taus) and (taus["learned"] < 2).all() else "undefined, equal accuracies"


def orders(averages: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Per score: the terms in its order, and in how many seeds that is the order of the same seed's accuracies.

    Counted over all learned terms, and without a b_k that is null, whose place at the end is the anatomy's to say.
    Raises BeftError as `intervals.agreement`.
    """
    rows = []
    for score, _, means, taus in _by_score(averages, runs):
        row = {"score": score, "order of the terms (layer average)": order(means, ".3g")}
        for view, values in taus.items():
            why = _why_undefined(values)
            text = f"{int((values['tau'] == 1).sum())} of {len(values)} seeds"
            row[f"accuracies in that order, {view}"] = why if why == TOO_FEW else text
        rows.append(row)
    return pd.DataFrame(rows)


def against_accuracies(averages: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Per score: whether its order of the terms is that of the mean accuracies, and tau by view over seeds.

    Columns: score; "order of the mean accuracies" of learned terms (yes, no, undefined where these tie or are missing,
    or that fewer than two are learned); a column per view; "null b_k above another term", which no score can be right
    about. Raises BeftError as `intervals.agreement`.
    """
    unlearned = set(not_learned(runs)) & set(PAPER_ORDER)
    accuracy = intervals.by_name(intervals.summary(learned(runs)).set_index("method")["mean"].dropna())
    too_few = unlearned and len(accuracy.keys() & set(PAPER_ORDER)) < 2
    rows = []
    for score, part, means, taus in _by_score(averages, runs):
        tau = kendall(means, accuracy) if len(means.keys() & accuracy.keys()) > 1 else np.nan
        row = {"score": score}
        undefined = TOO_FEW if too_few else "undefined"
        row["order of the mean accuracies"] = undefined if np.isnan(tau) else "yes" if tau == 1 else "no"
        row |= {f"tau, {view}": tau_text(values["tau"], _why_undefined(values)) for view, values in taus.items()}
        misplaced = part["key_null"].any() and means["b_k"] > min(means["b_q"], means["b_v"])
        rows.append(row | {"null b_k above another term": "yes" if misplaced else "no"})
    return pd.DataFrame(rows)


def tau_by_seed(taus: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau per score and view (`intervals.agreement`): mean and 95% interval over seeds."""
    groups = taus.groupby(["score", "view"], sort=False)
    rows = [(score, view, tau_text(part["tau"], _why_undefined(part))) for (score, view), part in groups]
    return pd.DataFrame(rows, columns=["score", "terms", "Kendall's tau"])


def tau_over_cells(overall: pd.DataFrame) -> pd.DataFrame:
    """`comparisons.tau_overall`: mean Kendall's tau over cells, with its interval over tasks or why there is none."""
    rows = []
    for r in overall.to_dict("records"):
        text, note = interval_text(r["mean"], r["low"], r["high"], "+.2f", 1), no_interval(r["tasks"])
        text = f"{text} ({note})" if note and text != MISSING else text
        rows.append((r["score"], r["view"], str(r["cells"]), str(r["tasks"]), text))
    return pd.DataFrame(rows, columns=["score", "terms", "cells", "tasks", "Kendall's tau"])


def tau_differences(taus: pd.DataFrame, firsts: Sequence[str] = ("mag_angle", "reach")) -> pd.DataFrame:
    """Whether a score agrees better with the accuracies than another: differences of Kendall's tau over cells.

    Each of `firsts` against every other score; a pair of scores has one row per view. `taus` of
    `comparisons.tau_by_cell`.
    """
    tables = [comparisons.tau_differences(taus, first) for first in firsts]
    once = [table[~table["second"].isin(firsts[:n])] for n, table in enumerate(tables)]
    overall = named(pd.concat(once, ignore_index=True), SCORE_NAMES.__getitem__).rename(columns={"view": "terms"})
    return over_tasks(["terms", "comparison"], overall, 1, "+.2f")
