"""Tables of the ranking scores: their orders of the terms, and their agreement with the accuracies."""

import numpy as np
import pandas as pd

from ...theory.scores import agreement as kendall
from ..intervals import agreement, summary
from ..names import MISSING, interval_text, no_interval, order, tau_text


def orders(averages: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Per score: the terms in its order, and in how many seeds that is the order of the same seed's accuracies.

    Counted over all terms, and without a b_k that is null, whose place at the end is the anatomy's to say.
    """
    taus = agreement(averages, runs)
    rows = []
    for score, part in averages.groupby("score", sort=False):
        row = {"score": score, "order of the terms (layer average)": order(_means(part), ".3g")}
        for view, values in taus[taus["score"] == score].groupby("view", sort=False)["tau"]:
            row[f"accuracies in that order, {view}"] = f"{int((values == 1).sum())} of {len(values)} seeds"
        rows.append(row)
    return pd.DataFrame(rows)


def _means(averages: pd.DataFrame) -> dict[str, float]:
    """The mean over seeds of one score by term, with the names of methods."""
    return {f"b_{t}": float(v) for t, v in averages.groupby("term")["value"].mean().items()}


def against_accuracies(averages: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Per score: whether its order of the terms is that of the mean accuracies, and tau by view over seeds.

    Columns: score; "order of the mean accuracies" (yes, no, or undefined where these tie or are missing); a column per
    view; "null b_k above another term", which no score can be right about.
    """
    known = summary(runs).set_index("method")["mean"].dropna()
    accuracy = {str(method): float(mean) for method, mean in known.items()}
    taus = agreement(averages, runs)
    rows = []
    for score, part in averages.groupby("score", sort=False):
        means = _means(part)
        tau = kendall(means, accuracy) if len(means.keys() & accuracy.keys()) > 1 else np.nan
        same = "undefined" if np.isnan(tau) else "yes" if tau == 1 else "no"
        row = {"score": score, "order of the mean accuracies": same}
        for view, values in taus[taus["score"] == score].groupby("view", sort=False)["tau"]:
            row[f"tau, {view}"] = tau_text(values)
        misplaced = part["key_null"].any() and means["b_k"] > min(means["b_q"], means["b_v"])
        rows.append(row | {"null b_k above another term": "yes" if misplaced else "no"})
    return pd.DataFrame(rows)


def tau_by_seed(taus: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau per score and view (`intervals.agreement`): mean and 95% interval over seeds."""
    groups = taus.groupby(["score", "view"], sort=False)["tau"]
    rows = [{"score": s, "terms": v, "Kendall's tau": tau_text(values)} for (s, v), values in groups]
    return pd.DataFrame(rows, columns=["score", "terms", "Kendall's tau"])


def tau_over_cells(overall: pd.DataFrame) -> pd.DataFrame:
    """`comparisons.tau_overall`: mean Kendall's tau over cells, with its interval over tasks or why there is none."""
    rows = []
    for r in overall.to_dict("records"):
        row = {"score": r["score"], "terms": r["view"], "cells": str(r["cells"]), "tasks": str(r["tasks"])}
        text, note = interval_text(r["mean"], r["low"], r["high"], "+.2f", 1), no_interval(r["tasks"])
        rows.append(row | {"Kendall's tau": f"{text} ({note})" if note and text != MISSING else text})
    return pd.DataFrame(rows, columns=["score", "terms", "cells", "tasks", "Kendall's tau"])
