"""Records as tables of numbers: a row per run, per run and epoch, or per score of a term in a layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..data.tasks import CORRELATIONS
from ..errors import BeftError
from ..records.schema import EPOCH_FIELDS

Records = Sequence[Mapping[str, Any]]
_RUN = ("model", "task", "regime", "method", "seed", "rate")
_SETTINGS = (*_RUN, "train_size", "tuning_size", "epochs", "dtype", "prompted")
_SCORES = ("final", "final_tuning", "best", "best_tuning")
_PARAMETERS = ("bias", "head", "pooler")
_DATA = ("metric", "substitute")
_NUMBERS = ("majority", *_SCORES)
_ENDED = ("best_epoch", "chosen_on", *_PARAMETERS, "seconds", "outcome")
_FRAME = ("key", *_SETTINGS, "data_source", *_DATA, *_NUMBERS, *_ENDED)


def frame(records: Records, also: Records = ()) -> pd.DataFrame:
    """One row per run (records of other kinds are left out); records of `also` add no row, but may know the majority.

    Columns: key; model, task, regime, method, seed, rate, train_size, tuning_size, epochs, dtype,
    prompted (True or None); data_source (where the rows come from, in words); metric, substitute; majority (what one
    answer for all validation rows scores; nan where no record of the same rows says it); final, final_tuning (scores of
    the last epoch); best, best_tuning, best_epoch, chosen_on; bias, head, pooler (numbers of trained parameters);
    seconds; outcome.
    """
    rows, known = [], majorities([*records, *also])
    for r in _runs(records):
        row = {"key": r["key"]} | {n: r["settings"].get(n) for n in _SETTINGS}
        row |= {"data_source": r["data"].get("source")} | {n: r["data"].get(n) for n in _DATA}
        row["majority"] = majority_in(r, known).get(r["data"].get("metric"))
        for name in ("final", "best"):
            row |= {name: r[name].get("validation"), f"{name}_tuning": r[name].get("tuning")}
        row |= {"best_epoch": r["best"].get("epoch"), "chosen_on": r["best"].get("chosen_on")}
        row |= {n: r["parameters"].get(n) for n in _PARAMETERS}
        rows.append(row | {"seconds": r["seconds"], "outcome": r["outcome"]})
    return _numeric(pd.DataFrame(rows, columns=_FRAME), [*_NUMBERS, "seconds", "rate"])


def finished(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose outcome is "ok"."""
    return frame[frame["outcome"] == "ok"]


def settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a record, with `data_source`, where its rows come from: what `paper` asks of a run."""
    return {**record["settings"], "data_source": record["data"].get("source")}


def is_lost(frame: pd.DataFrame, value: str = "final") -> pd.Series:
    """Which runs (N,) of a frame diverged or failed, or ended well without a score: no mean has them.

    Constant predictions have no correlation, for one. A split that no run of the frame was scored on was not there,
    which is no loss; `final` always is.
    """
    scored = value == "final" or bool(frame[value].notna().any())
    return (frame["outcome"] != "ok") | (frame[value].isna() & scored)


def majorities(records: Records) -> dict[str, dict[str, float]]:
    """The majority by metric of all data, by their fingerprints, of which any of the records knows it."""
    blocks = [r.get("data", {}) for r in records]
    return {data["fingerprint"]: data["majority"] for data in blocks if {"fingerprint", "majority"} <= data.keys()}


def majority_in(record: Mapping[str, Any], known: Mapping[str, dict[str, float]]) -> dict[str, float]:
    """The majority by metric of one record: its own, or that of another record of the same rows; {} if unknown.

    One answer for all rows leaves a correlation at 0, whatever the rows: that needs no record.
    """
    data = record["data"]
    said = data.get("majority") or known.get(data.get("fingerprint"), {})
    return said or ({data["metric"]: 0.0} if data.get("metric") in CORRELATIONS else {})


def transfers(records: Records) -> pd.DataFrame:
    """Transfer records as a row per run and target (records of other kinds are left out).

    Columns: key; model, task (trained on), regime, method, seed, rate, train_size, tuning_size, epochs, dtype,
    prompted; target; metric; source and final (scores on the validation splits of the task and of the target), with
    source_majority and majority (of one answer for all of their rows); raw (final on the target's rows as they are);
    change (final - source); trained (numbers, the head's included); outcome.

    Accuracies on a target are those that it would have with the class shares of the task trained on (the shares times
    the recalls): a run that favours a class must not gain because the target has more of it.
    """
    rows = []
    for r in [r for r in records if r["kind"] == "transfer"]:
        run = {"key": r["key"]} | {n: r["settings"].get(n) for n in _SETTINGS} | {"metric": r["data"]["metric"]}
        run |= {"source": r["source"]["score"], "source_majority": r["source"]["majority"]}
        run |= {"trained": sum(r["parameters"].values()), "outcome": r["outcome"]}
        for target, on in r["targets"].items():
            final, majority = on["score"], on["majority"]
            if r["data"]["metric"] == "accuracy" and 0 not in on["classes"]:
                majority = r["source"]["majority"]
                final = None if final is None else _at_shares(r["source"]["classes"], on["recalls"])
            rows.append(run | {"target": target, "final": final, "majority": majority, "raw": on["score"]})
    numbers = ["source", "final", "source_majority", "majority", "raw"]
    columns = ["key", *_SETTINGS, "target", "metric", *numbers, "trained", "outcome"]
    table = _numeric(pd.DataFrame(rows, columns=columns), [*numbers, "rate"])
    return table.assign(change=table["final"] - table["source"])


def _at_shares(classes: Sequence[int], recalls: Sequence[float]) -> float:
    """The accuracy with so many rows of each class, of which these shares are predicted right."""
    return sum(n * recall for n, recall in zip(classes, recalls, strict=True)) / sum(classes)


def on_own_task(transferred: pd.DataFrame) -> pd.DataFrame:
    """The runs of a frame of `transfers` with the scores on the task that they were trained on: a row per run."""
    runs = transferred.drop_duplicates("key")
    return runs.assign(final=runs["source"], majority=runs["source_majority"])


def by_trained_numbers(frame: pd.DataFrame) -> list[str]:
    """The methods of a frame of `transfers`, those that train the fewest numbers first."""
    sizes = frame.drop_duplicates("method").sort_values("trained", kind="stable")
    return [str(method) for method in sizes["method"]]


def _runs(records: Records) -> Records:
    return [r for r in records if r["kind"] == "run"]


def curves(records: Records) -> pd.DataFrame:
    """One row per run and epoch. Columns: key, model, task, regime, method, seed, rate, outcome of the run, epoch,
    train_loss, tuning, validation; a score that was not taken is NaN."""
    rows = []
    for r in _runs(records):
        start = {"key": r["key"]} | {n: r["settings"].get(n) for n in _RUN} | {"outcome": r["outcome"]}
        rows += [start | {n: epoch[n] for n in EPOCH_FIELDS} for epoch in r["epochs"]]
    table = pd.DataFrame(rows, columns=["key", *_RUN, "outcome", *EPOCH_FIELDS])
    return _numeric(table, ["rate", "train_loss", "tuning", "validation"])


def _numeric(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """`table` with these columns as floats: one of nothing but null must still be a column of numbers."""
    return table.astype(dict.fromkeys(columns, "float64"))


def scores(records: Records, by_epoch: bool = False) -> pd.DataFrame:
    """Ranking records as a long frame: seed, rate, dtype, key_null, epoch, score, term, layer (from 1), value.

    `by_epoch` reads the scores kept after every epoch, otherwise the final ones (epoch = the run's last). A run that
    was lost has no scores; a score that is not defined for a model has no rows. Raises BeftError if nothing is left.
    """
    rows: list[dict[str, Any]] = []
    for r in [r for r in records if r["outcome"] == "ok"]:
        run = {n: r["settings"][n] for n in ("seed", "rate", "dtype")}
        run["key_null"] = r["key_bias_null"]["null"]
        for step in r["by_epoch"] if by_epoch else [{"epoch": r["settings"]["epochs"], **r["scores"]}]:
            for score, terms in step.items():
                if score == "epoch" or terms is None:  # None: not defined for this model
                    continue
                for term, values in terms.items():
                    place = {**run, "epoch": step["epoch"], "score": score, "term": term}
                    rows += [{**place, "layer": i, "value": v} for i, v in enumerate(values, 1)]
    if not rows:
        raise BeftError(f"none of {len(records)} ranking runs ended well: give a smaller rate")
    return pd.DataFrame(rows)
