"""The paper's encoder tables over cells (model x task x regime), from records.

Metrics are shown x 100, correlations too; differences in points.
Each mean has its Student t interval over seeds; lost runs are counted beside it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ... import paper
from ...data import tasks
from ...errors import BeftError
from ...study import ALL_METHODS
from .. import comparisons
from ..dataframes import Records, frame
from ..intervals import finished
from ..names import MISSING, method_name, number, order, runs_text
from .fine_tuning import parameter_names

TERMS = ("b_q", "b_k", "b_v")
FIXED = ["model", "task", "regime", "rows", "metric", "seeds"]


def joined(values: Iterable[Any]) -> str:
    """Different values in order of appearance: "1000", or "1000 / 900"."""
    return " / ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in dict.fromkeys(values))


def _place(cell: Mapping[str, Any], runs: pd.DataFrame) -> dict[str, Any]:
    """The columns that name a row: model, task, regime, rows, metric, seeds."""
    names = {n: str(cell[n]) for n in comparisons.CELL}
    return names | {
        "rows": joined(runs["train_size"]),
        "metric": joined(runs["metric"]),
        "seeds": str(runs["seed"].nunique()),
    }


def _methods(runs: pd.DataFrame) -> list[str]:
    """The methods of some runs in the package's order, whatever the order of the records."""
    return sorted(set(runs["method"]), key=lambda m: (ALL_METHODS.index(m) if m in ALL_METHODS else 99, m))


def _scores(runs: pd.DataFrame, methods: Iterable[str], value: str = "final") -> dict[str, str]:
    """A column per method: mean and interval over its runs."""
    return {method_name(m): runs_text(runs[runs["method"] == m], value) for m in methods}


# --- Table 1 ----------------------------------------------------------------------------------------------


def table1(rankings: Records, runs_records: Records, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Table 1: every cell's ranking of the terms under each score beside their accuracies.

    Columns: model, task, regime, rows, metric, seeds; b_q, b_k, b_v (percent with interval), order of accuracies;
    b_k null (proved by the anatomy: then its place is not the score's merit); per score its order of the terms by
    the layer average, mean over seeds, and in "<score>: top, tau" whether its top term is the most accurate one
    ("tie" where the score has no single top) with Kendall's tau of the means, and tau without a null b_k.

    Args:
        rankings: ranking records, one per seed and cell.
        runs_records: runs of the terms, one per method, seed and cell.
        names: the scores to show, by default all that the records hold.

    Raises:
        BeftError: a cell has several rankings or runs for one seed.
    """
    runs = frame(runs_records)
    runs = runs[runs["method"].isin(TERMS)]
    comparisons.one_run_each(runs)
    scored = {tuple(cell.values()): means for cell, means, _ in comparisons.scored_cells(rankings, runs)}
    taus = comparisons.tau_of_means(rankings, runs)
    scores = names or list(dict.fromkeys(s for averages in scored.values() for s in averages["score"]))
    rows = []
    for cell, part in comparisons.by_cell(runs):
        row = _place(cell, part) | _scores(part, TERMS)
        means = finished(part).groupby("method")["final"].mean().dropna()
        accuracies = {str(m): float(v) for m, v in means.items()}
        row["order of accuracies"] = order({m[2:]: v for m, v in accuracies.items()})
        averages = scored.get(tuple(cell.values()))
        row["b_k null"] = MISSING if averages is None else "yes" if averages["key_null"].any() else "no"
        here = taus[(taus[list(comparisons.CELL)] == pd.Series(cell)).all(axis=1)]
        for score in scores:
            row |= _score_columns(score, averages, accuracies, here[here["score"] == score])
        rows.append(row)
    fixed = [*FIXED, *TERMS, "order of accuracies", "b_k null"]
    return pd.DataFrame(rows, columns=[*fixed, *(c for s in scores for c in (s, f"{s}: top, tau"))])


def _score_columns(
    score: str, averages: pd.DataFrame | None, accuracies: Mapping[str, float], taus: pd.DataFrame
) -> dict[str, str]:
    """The two columns of a score in a row of Table 1."""
    if averages is None or score not in set(averages["score"]):
        return {score: MISSING, f"{score}: top, tau": MISSING}
    means = averages[averages["score"] == score].groupby("term")["value"].mean()
    text = {score: order({str(t): float(v) for t, v in means.items()})}
    if len(accuracies) < len(means):
        return text | {f"{score}: top, tau": "a term has no accuracy"}
    top, best = means.index[means == means.max()], max(accuracies.values())
    result = "tie" if len(top) != 1 else "right" if accuracies[f"b_{top[0]}"] == best else "wrong"
    by_view = taus.set_index("view")["tau"].astype(float)
    result += f", {number(by_view.get('all terms', np.nan), '+.2f')}"
    if averages["key_null"].any():
        result += f" (without b_k {number(by_view.get('null b_k excluded', np.nan), '+.2f')})"
    return text | {f"{score}: top, tau": result}


# --- Table 2 ----------------------------------------------------------------------------------------------


def table2(records: Records) -> pd.DataFrame:
    """Table 2: what each method of one cell trains, needs and reaches; a row per method and rate.

    Columns: method, rate, seeds; trained numbers (bias, pooler, head; weights where any are trained); the metric of
    the last epoch with interval; seconds per run, runs in the bank, bank memory; the paper's number, ours minus it.

    Runs of a bank share every forward pass, so seconds are the bank's divided by its runs: a run alone takes longer
    than that. Memory is the peak of the process while the whole bank trained, in MB (10^6 bytes), not of one run;
    on a CPU it counts everything loaded. Raises BeftError for runs of several cells.
    """
    runs = frame(records)
    if len(runs.drop_duplicates(list(comparisons.CELL))) > 1:
        raise BeftError("Table 2 is of one model, task and regime: give the records of one cell")
    by_key = {r["key"]: r for r in records if r["kind"] == "run"}
    counted = parameter_names(list(by_key.values()))
    trained = [name for name in ("bias", "pooler", "head", "weights") if name in counted]
    metric = joined(runs["metric"]) if len(runs) else "metric"
    rows = []
    groups = [(m, *group) for m in _methods(runs) for group in runs[runs["method"] == m].groupby("rate")]
    for method, rate, group in groups:
        mine = [by_key[key] for key in group["key"]]
        row = {"method": method_name(method), "rate": f"{rate:g}", "seeds": str(group["seed"].nunique())}
        row |= {f"{name} parameters": f"{mine[0]['parameters'].get(name, 0):,}" for name in trained}
        row[f"last epoch, % {metric}"] = runs_text(group)
        row["seconds per run"] = f"{group['seconds'].mean():.3g}"
        banks = [bank for r in mine if (bank := r.get("bank"))]
        row["runs in the bank"] = joined(sorted(b["runs"] for b in banks)) or "not recorded"
        peak = max((b.get("peak_memory_bytes") or 0 for b in banks), default=0)
        row["bank memory, MB"] = f"{peak / 1e6:,.0f}" if peak else "not recorded"
        rows.append(row | _beside_paper(mine[0]["settings"], group))
    if not any(paper.printed(r["settings"]) for r in by_key.values()):  # the column beside says why
        rows = [{n: v for n, v in row.items() if n != "ours - paper"} for row in rows]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["method", f"last epoch, % {metric}"])


def _beside_paper(settings: dict[str, Any], group: pd.DataFrame, prefix: str = "") -> dict[str, str]:
    """The paper's number, and our mean minus it in points; why there is none."""
    mean = float(finished(group)["final"].mean())
    gap = paper.difference(settings, 100 * mean)
    none = MISSING if paper.printed(settings) else "not comparable"
    return {
        f"{prefix}paper, %": paper.column(settings),
        f"{prefix}ours - paper": none if gap is None else f"{gap:+.1f}",
    }


# --- Table 3 ----------------------------------------------------------------------------------------------


def table3(records: Records, beside: Callable[[Mapping[str, Any]], dict[str, str]] | None = None) -> pd.DataFrame:
    """Table 3: cells x methods, the metric of the last epoch as "mean [low, high]" in percent.

    Columns: model, task, regime, rows, metric, seeds; epochs, with the paper's where it has more; rate, with the
    methods that have their own; a column per method. A method with a number in the paper for any cell has
    "<method>: paper, %" and "<method>: ours - paper" (points) too; if none has, one column `paper` says why.

    Args:
        records: runs.
        beside: further columns of a cell, in front of the methods'.

    Raises:
        BeftError: a cell has several runs of a method for one seed.
    """
    runs = frame(records)
    comparisons.one_run_each(runs)
    settings = {r["key"]: r["settings"] for r in records if r["kind"] == "run"}
    methods = _methods(runs)
    printed = {s["method"] for s in settings.values() if paper.printed(s)}
    rows = []
    for cell, part in comparisons.by_cell(runs):
        row = _place(cell, part) | {"epochs": _epochs(cell, part), "rate": _rates(part)}
        row |= beside(cell) if beside else {}
        for method in methods:
            group = part[part["method"] == method]
            row[method_name(method)] = runs_text(group)
            if method in printed:
                # a method that was not run here still has its place in the paper, at this cell's settings
                key = group["key"].iloc[0] if len(group) else part["key"].iloc[0]
                row |= _beside_paper(settings[key] | {"method": method}, group, f"{method_name(method)}: ")
        if not printed:
            row["paper"] = joined(paper.column(settings[key]) for key in part["key"])
        rows.append(row)
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*FIXED, "epochs", "rate"])


def _epochs(cell: Mapping[str, Any], part: pd.DataFrame) -> str:
    """The epochs of a cell; with the paper's for that task, of its model or else BERT-base, where those are more."""
    text, task = joined(part["epochs"]), tasks.TASKS.get(str(cell["task"]))
    if task is None or not task.source.startswith(tasks.PAPER):
        return text
    theirs = task.epochs_for(str(cell["model"]))[0]
    return f"{text} (paper: {theirs})" if part["epochs"].min() < theirs else text


def _rates(part: pd.DataFrame) -> str:
    """The rate of most methods, and those of the others by name: "0.003; full 0.0001"."""
    common = part.drop_duplicates(["method", "rate"])["rate"].mode().iloc[0]
    other = part[part["rate"] != common].groupby("method", sort=False)["rate"]
    return "; ".join([f"{common:g}", *(f"{method_name(str(m))} {joined(r)}" for m, r in other)])


def further_metrics(records: Records) -> pd.DataFrame:
    """Metrics beside the one of `table3`, further validation splits too: a row per cell and metric.

    Columns: model, task, regime, rows, metric, seeds; a column per method, "mean [low, high]" in percent.
    """
    runs = frame(records)
    kept: dict[str, dict[str, float]] = {
        r["key"]: {n: np.nan if v is None else v for n, v in (r["final"].get("metrics") or {}).items()}
        for r in records
        if r["kind"] == "run"
    }
    methods = _methods(runs)
    rows = []
    for cell, part in comparisons.by_cell(runs):
        first = set(part["metric"])
        for name in dict.fromkeys(n for key in part["key"] for n in kept[key] if n not in first):
            valued = part.assign(value=[kept[key].get(name, np.nan) for key in part["key"]])
            rows.append(_place(cell, part) | {"metric": name} | _scores(valued, methods, "value"))
    return pd.DataFrame(rows, columns=[*FIXED, *(method_name(m) for m in methods)])
