"""Tables of fine-tuning on one task: scores by method, rate and form, and what is trained."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ... import paper
from ...data.tasks import Task, majority_score
from ...study import parse_method
from ..dataframes import Records, finished, frame, is_lost, settings_of
from ..intervals import summary
from ..majority import NOT_LEARNED, at_or_below, majority_of, majority_text, marked, not_learned
from ..names import MISSING, method_name, number, order, runs_text


def labels(task: Task, values: np.ndarray) -> pd.DataFrame:
    """How labels (N,) are spread: a row per class with its count, or the range of the values."""
    if task.regression:
        return pd.DataFrame([{"least": values.min(), "largest": values.max(), "mean": values.mean()}])
    counts = np.bincount(values, minlength=len(task.labels))
    return pd.DataFrame({"class": task.labels, "rows": counts})


def before_tuning(task: Task, values: np.ndarray, untuned: float) -> pd.DataFrame:
    """The metric of the untuned model, and that of one answer for all rows with these labels (N,), in percent.

    The latter is the majority class's, 0 for correlations; an untuned model that is not above it is marked.
    """
    majority = majority_score(task.metric, values)
    column = {"untuned model": marked(f"{100 * untuned:.1f}", at_or_below(untuned, majority))}
    column["one answer for all rows (majority)"] = majority_text(majority)
    return pd.DataFrame(column.items(), columns=["predictions of", f"{task.metric}, %"])


def accuracy_order(runs: pd.DataFrame, methods: Sequence[str] | None = None) -> str:
    """Methods of one cell by their mean over seeds, in percent: "b_v (77.2) > b_q (70.1); not learned: b_k (50.9)"."""
    chosen = runs if methods is None else runs[runs["method"].isin(methods)]
    means = 100 * summary(chosen).set_index("method")["mean"]
    unlearned = not_learned(chosen)
    ranked = order({method_name(str(m)): v for m, v in means.items() if m not in unlearned}, ".1f")
    texts = [ranked] if ranked != MISSING or not unlearned else []
    if unlearned:
        texts.append(f"{NOT_LEARNED}: {', '.join(f'{method_name(m)} ({means[m]:.1f})' for m in unlearned)}")
    return "; ".join(texts)


def lost(*frames: pd.DataFrame) -> str:
    """How many of the runs in some frames were lost (`dataframes.is_lost`), each counted once: "1 of 16"."""
    runs = pd.concat([runs[["key", "outcome", "final"]] for runs in frames]).drop_duplicates("key")
    return f"{int(is_lost(runs).sum())} of {len(runs)}"


def by_method(records: Records, metric: str = "accuracy") -> pd.DataFrame:
    """One row per method and rate: seeds, last- and best-epoch metric, majority, parameter counts, the paper's number.

    The last epoch is what the paper prints. The best epoch was chosen on the split its column names; chosen on
    validation it is optimistic, since the same sentences choose and report.
    """
    rows = []
    for (method, rate), group, first in _groups(records, "method", "rate"):
        row = {"method": method_name(method), "rate": rate, "seeds": len(group)}
        row[f"last epoch, % {metric}"] = runs_text(group)
        chosen = " or ".join(sorted(set(group["chosen_on"].dropna())))
        row[f"best epoch, % {metric}"] = f"{runs_text(group, 'best')} (chosen on {chosen})" if chosen else MISSING
        row["majority"] = majority_text(majority_of(group))
        row |= {f"{name} parameters": first["parameters"].get(name, 0) for name in parameter_names(records)}
        rows.append(row | {"paper, last epoch, %": paper.column(settings_of(first))})
    return pd.DataFrame(rows)


def _groups(records: Records, *by: str, also: Records = ()) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame, Any]]:
    """The runs in groups of equal columns `by`: these, the frame of the group (see `frame`), its first run's record."""
    by_key = {r["key"]: r for r in records}
    for names, group in frame(records, also).groupby(list(by), sort=False):
        yield names, group, by_key[group["key"].iloc[0]]


def parameter_names(records: Records) -> tuple[str, ...]:
    """What a parameter count is split into; `weights` where a run trains some."""
    trains_weights = any(r["parameters"].get("weights") for r in records)
    return ("bias", "head", "pooler", *(["weights"] if trains_weights else []))


def rate_grid(grid: pd.DataFrame) -> pd.DataFrame:
    """Methods x rates: mean and interval over seeds; `not run` where a cell is empty; the majority class's score."""
    rows = []
    for method, part in grid.groupby("method", sort=False):
        cells = {f"{rate:g}": runs_text(group) for rate, group in part.groupby("rate")}
        rows.append({"method": method_name(str(method)), "majority": majority_text(majority_of(part)), **cells})
    return pd.DataFrame(rows, columns=["method", "majority", *(f"{r:g}" for r in sorted(grid["rate"].unique()))])


def forms(records: Records, formed: Records, also: Records = ()) -> pd.DataFrame:
    """Single terms as they are and in other forms, over the seeds that both have (paper, Table 4).

    Columns: term and form, trained numbers of the bias, seeds, last-epoch metric with interval, the majority class's,
    the paper's number. Records of `also` may know the majority.
    """
    seeds = {r["settings"]["seed"] for r in formed}
    terms = {parse_method(r["settings"]["method"]).base for r in formed}
    beside = [r for r in records if r["settings"]["method"] in terms and r["settings"]["seed"] in seeds]
    rows = []
    for (method,), group, first in _groups([*beside, *formed], "method", also=also):
        row = {"term": method_name(method), "bias parameters": first["parameters"]["bias"], "seeds": len(group)}
        row |= {"last epoch, %": runs_text(group), "majority": majority_text(majority_of(group))}
        rows.append(row | {"paper, last epoch, %": paper.column(settings_of(first))})
    return pd.DataFrame(rows)


def two_views(equal: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """Each method at the common rate and at its own: rate, last-epoch metric with interval in percent, majority.

    The last column is the mean difference over the seeds of both, own minus equal, in points: below 0 the rate that
    the tuning split chose does worse than the common one.
    """
    rows, both = [], pd.concat([equal, own])
    for method in dict.fromkeys(both["method"]):
        row = {"method": method_name(method), "majority": majority_text(majority_of(both))}
        views = [runs[runs["method"] == method] for runs in (equal, own)]
        for view, group in zip(("equal rate", "own rate"), views):
            row[view] = f"{group['rate'].iloc[0]:g}" if len(group) else MISSING
            row[f"{view}: last epoch, %"] = runs_text(group)
        first, second = (finished(group).set_index("seed")["final"] for group in views)
        row["own - equal"] = number(100 * (second - first).dropna().mean(), "+.1f", MISSING)
        rows.append(row)
    return pd.DataFrame(rows)


def predictions(texts: Sequence[str], probabilities: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """New texts with their predicted class and its probability, or value; `probabilities` (N, C), or values (N, 1)."""
    if not classes:
        return pd.DataFrame({"text": texts, "value": [f"{x:.2f}" for x in probabilities[:, 0]]})
    best, highest = probabilities.argmax(axis=1), probabilities.max(axis=1)
    columns = {"class": [classes[c] for c in best], "probability": [f"{p:.2f}" for p in highest]}
    return pd.DataFrame({"text": texts, **columns})
