"""Tables of single layers: does a score say which layer to tune, and how few layers do what all of them do?"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from .. import comparisons, layer_orders
from ..intervals import finished
from ..majority import NOT_LEARNED, not_learned
from ..names import MISSING, SCORE_NAMES, number, runs_text, tau_text
from .cells import over_seeds

Orders = Mapping[str, Mapping[str, Sequence[int]]]
_VERDICT = ("seeds", "p", "smallest possible p", "p, Holm", "verdict")
_ROW = ("term", "layers ordered by", "Spearman's rho", "first layer", "best layer, known afterwards")
_FIRST = "first - mean of all, points"
_FEW_ROW = ("term", "layers", "chosen by", "method", "bias parameters", "last epoch, %", "of the gain, %")
_FEW = "few - all, points"


def _name(by: str) -> str:
    return SCORE_NAMES.get(by, by)


def agreement(scores: pd.DataFrame, runs: pd.DataFrame, found: Orders) -> pd.DataFrame:
    """Per term and order of its layers: whether the layer that stands first is better than a layer drawn at random.

    Columns: term; layers ordered by; "Spearman's rho" of the score with what each layer alone reaches on the validation
    split, over the seeds that have both (mean with interval); the first layer, from 1, and what it alone reaches; the
    best layer, known only afterwards; then the difference of the first layer to the mean of all layers over seeds, with
    its verdict (`report.verdict`).

    Args:
        scores: of `dataframes.scores`, layers from 1.
        runs: of one cell, of `dataframes.frame`.
        found: of `layer_orders.orders`.
    """
    ones = finished(layer_orders.by_layer(runs))
    unlearned = set(not_learned(runs))
    rows, compared = [], []
    for term, own in ones.groupby("term", sort=False):
        table = own.pivot_table(index="seed", columns="layer", values="final").astype(float).dropna()
        best = int(str(list(table.columns)[int(np.argmax(table.mean().to_numpy()))]))
        for by, order in found[str(term)].items():
            first = int(order[0])
            row = {"term": term, "layers ordered by": _name(by), "Spearman's rho": _rho(scores, table, str(term), by)}
            row |= {"first layer": f"{first + 1}: {runs_text(own[own['layer'] == first])}"}
            rows.append(row | {"best layer, known afterwards": f"{best + 1}: {runs_text(own[own['layer'] == best])}"})
            out = tuple(m for m in own[own["layer"] == first]["method"].unique() if m in unlearned)
            compared.append({"not_learned": out} | comparisons.difference(table[first] - table.mean(axis=1)))
    if not rows:
        return pd.DataFrame(columns=[*_ROW, _FIRST, *_VERDICT])
    judged = over_seeds([], pd.DataFrame(compared))
    return pd.concat([pd.DataFrame(rows), judged.rename(columns={"difference": _FIRST})], axis=1)


def _rho(scores: pd.DataFrame, table: pd.DataFrame, term: str, by: str) -> str:
    """Spearman's rho over layers, seed by seed; what orders by the runs themselves has none."""
    mine = scores[(scores["score"] == by) & (scores["term"] == term.removeprefix("b_"))]
    values = []
    for seed, part in mine.groupby("seed"):
        if seed in table.index:
            score = part.set_index("layer")["value"].sort_index().to_numpy()
            reached = table.loc[seed].sort_index().to_numpy()
            if np.ptp(score) and np.ptp(reached):
                values.append(float(stats.spearmanr(score, reached).statistic))
    return tau_text(pd.Series(values, dtype=float)) if values else "undefined" if len(mine) else "-"


def few(runs: pd.DataFrame, picked: pd.DataFrame) -> pd.DataFrame:
    """How much of what a term brings in all layers it keeps in a few.

    Columns: term; layers (a count); chosen by (orders that choose the same layers share a row); method, which names
    them; bias parameters; last epoch, %; "of the gain, %" (mean over the head, or over zero-shot, as a share of that of
    all layers, where these are learned); difference to all layers in points, with its verdict.

    Args:
        runs: of one cell, with the head, or zero-shot.
        picked: of `layer_orders.picks`.
    """
    wide, untuned = layer_orders.spread_over_seeds(runs), layer_orders.untuned_of(runs)
    unlearned = set(not_learned(runs))
    rows, compared = [], []
    for (term, count, method), part in picked.groupby(["term", "layers", "method"], sort=False):
        own = runs[runs["method"] == method]
        row = {"term": term, "layers": int(str(count)), "chosen by": ", ".join(map(_name, part["by"]))}
        row |= {"method": method, "bias parameters": number(own["bias"].max(), ".0f", MISSING)}
        share = NOT_LEARNED if term in unlearned else _share(wide, str(method), str(term), untuned)
        row |= {"last epoch, %": runs_text(own), "of the gain, %": share}
        if method == term:
            row["chosen by"] = "all"
        rows.append(row)
        both = {str(method), str(term)} <= set(wide)
        gap = (wide[method] - wide[term]).dropna() if both and method != term else pd.Series(dtype=float)
        out = tuple(m for m in (method, term) if m in unlearned)
        compared.append({"not_learned": out} | comparisons.difference(gap))
    if not rows:
        return pd.DataFrame(columns=[*_FEW_ROW, _FEW, *_VERDICT])
    table = pd.DataFrame(rows)
    judged = over_seeds([], pd.DataFrame(compared), missing="-").rename(columns={"difference": _FEW})
    return pd.concat([table, judged], axis=1).sort_values(["term", "layers"], kind="stable", ignore_index=True)


def _share(wide: pd.DataFrame, method: str, term: str, untuned: str) -> str:
    """The mean gain over the untuned model as a share of that of all layers; none where all layers gain nothing."""
    if not {method, term, untuned} <= set(wide):
        return MISSING
    both = wide[list({method, term, untuned})].dropna()
    whole = (both[term] - both[untuned]).mean()
    return number(100 * (both[method] - both[untuned]).mean() / whole, ".0f") if whole > 0 else "no gain to keep"
