"""Records as tables of numbers: one row per run, or one per run and epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..records.schema import EPOCH_FIELDS

_SETTING_COLUMNS = (
    "model",
    "task",
    "regime",
    "method",
    "seed",
    "rate",
    "train_size",
    "tuning_size",
    "epochs",
)
_CURVE_COLUMNS = ("key", "model", "task", "regime", "method", "seed", "rate")


def frame(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per run (records of other kinds are left out).

    Columns: key; model, task, regime, method, seed, rate, train_size, tuning_size, epochs, dtype; metric, substitute;
    final, final_tuning (scores of the last epoch); best, best_tuning, best_epoch, chosen_on; bias, head, pooler
    (numbers of trained parameters); seconds; outcome.
    """
    rows = []
    for r in records:
        if r["kind"] != "run":
            continue
        row = {"key": r["key"]} | {n: r["settings"].get(n) for n in (*_SETTING_COLUMNS, "dtype")}
        row |= {"metric": r["data"].get("metric"), "substitute": r["data"].get("substitute")}
        row |= {"final": r["final"].get("validation"), "final_tuning": r["final"].get("tuning")}
        row |= {"best": r["best"].get("validation"), "best_tuning": r["best"].get("tuning")}
        row |= {"best_epoch": r["best"].get("epoch"), "chosen_on": r["best"].get("chosen_on")}
        row |= {n: r["parameters"].get(n) for n in ("bias", "head", "pooler")}
        rows.append(row | {"seconds": r["seconds"], "outcome": r["outcome"]})
    columns = [
        "key",
        *_SETTING_COLUMNS,
        "dtype",
        "metric",
        "substitute",
        "final",
        "final_tuning",
        "best",
        "best_tuning",
    ]
    columns += ["best_epoch", "chosen_on", "bias", "head", "pooler", "seconds", "outcome"]
    table = pd.DataFrame(rows, columns=columns)
    # A column of nothing but null (a run without a tuning split) must still be a column of numbers.
    numbers = ["final", "final_tuning", "best", "best_tuning", "seconds", "rate"]
    table[numbers] = table[numbers].astype("float64")
    return table


def curves(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per run and epoch. Columns: key, model, task, regime, method, seed, rate, epoch, train_loss, tuning,
    validation; a score that was not taken is NaN."""
    rows = []
    for r in records:
        if r["kind"] == "run":
            start = {"key": r["key"]} | {n: r["settings"].get(n) for n in _CURVE_COLUMNS[1:]}
            rows += [start | {n: epoch[n] for n in EPOCH_FIELDS} for epoch in r["epochs"]]
    table = pd.DataFrame(rows, columns=[*_CURVE_COLUMNS, *EPOCH_FIELDS])
    scores = ["rate", "train_loss", "tuning", "validation"]
    table[scores] = table[scores].astype("float64")
    return table
