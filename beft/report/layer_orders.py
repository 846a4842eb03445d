"""Runs of single layers, read from records: what each layer brings, and in which order something would tune them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..study import layers_of, split_method
from . import dataframes
from .intervals import finished

ALONE = "one layer alone"  # an order by runs of one layer each, on the tuning split
FORWARD = "forward search"  # by runs of each layer beside those that are chosen, on the tuning split
Orders = dict[str, dict[str, list[int]]]


def scores_of(records: dataframes.Records) -> pd.DataFrame:
    """`dataframes.scores`, of no rankings a frame without rows."""
    columns = ["seed", "rate", "dtype", "key_null", "epoch", "score", "term", "layer", "value"]
    return dataframes.scores(records) if records else pd.DataFrame(columns=columns)


def by_layer(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of one layer in one cell: their rows of `dataframes.frame`, with term ("b_v") and layer, from 0."""
    parts = [split_method(method) for method in runs["method"]]
    return runs.assign(
        term=[term for term, _, _ in parts],
        layer=[int(layers) if layers.isdecimal() else -1 for _, layers, _ in parts],
    ).query("layer >= 0")


def untuned_of(runs: pd.DataFrame) -> str:
    """What a gain is counted from: the method "head", or "zero_shot" of a language model, which has none to train."""
    return "zero_shot" if "zero_shot" in set(runs["method"]) else "head"


def orders(scores: pd.DataFrame, runs: pd.DataFrame, by: Sequence[str] = ("mag_angle", "fisher")) -> Orders:
    """{term: {what orders them: its layers from 0, best first}} of one cell.

    By each score of `dataframes.scores`, mean over its seeds, and by the runs of one layer alone: their mean score on
    the tuning split, never on the split that is reported; without a tuning split that order is left out.
    """
    ones, found = finished(by_layer(runs)), Orders()
    for term, own in ones.groupby("term", sort=False):
        mine = scores[scores["term"] == str(term).removeprefix("b_")]
        by_score = {name: mine[mine["score"] == name].groupby("layer")["value"].mean() for name in by}
        found[str(term)] = {
            name: [int(n) - 1 for n in _descending(values)] for name, values in by_score.items() if len(values)
        }
        tuned = own.groupby("layer")["final_tuning"].mean()
        if tuned.notna().all():
            found[str(term)][ALONE] = [int(n) for n in _descending(tuned)]
    return found


def with_forward(found: Orders, searched: Mapping[str, Sequence[int]] | None = None) -> Orders:
    """The orders, and those of a forward search (`experiments.layers.forward`) beside them."""
    orders = {term: {**by} for term, by in found.items()}
    for term, order in (searched or {}).items():
        orders.setdefault(term, {})[FORWARD] = [*order]
    return orders


def first_layers(found: Mapping[str, Mapping[str, Sequence[int]]]) -> dict[str, list[list[int]]]:
    """`orders` without their names, as `experiments.layers.few` takes them."""
    return {term: [list(order) for order in by.values()] for term, by in found.items()}


def picks(found: Mapping[str, Mapping[str, Sequence[int]]], counts: Sequence[int]) -> pd.DataFrame:
    """What each order tunes for each count: columns term, by, layers (a count), method; with all layers last."""
    rows = [
        {"term": term, "by": by, "layers": count, "method": layers_of(term, order[:count])}
        for term, own in found.items()
        for by, order in own.items()
        for count in counts
        if count < len(order)
    ]
    rows += [
        {"term": term, "by": by, "layers": len(order), "method": term}
        for term, own in found.items()
        for by, order in own.items()
    ]
    return pd.DataFrame(rows, columns=["term", "by", "layers", "method"])


def spread_over_seeds(runs: pd.DataFrame, value: str = "final") -> pd.DataFrame:
    """A score of finished runs by method and seed: index seed, a column per method."""
    return finished(runs).pivot_table(index="seed", columns="method", values=value).astype(float)


def _descending(values: pd.Series) -> list[int]:
    """The index of the values, largest first; ties in the order of the index."""
    kept = values.dropna()
    return [int(kept.index[i]) for i in np.argsort(-kept.to_numpy(), kind="stable")]
