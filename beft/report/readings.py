"""Sentences computed from records: what a notebook says about its numbers is derived from them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..data import tasks
from ..data.tasks import Task
from ..theory.scores import agreement
from . import intervals as statistics

MISSING = "not run"
METHOD_NAMES = {
    "head": "head only",
    "all_biases": "all biases",
    "full": "full",
    "mask": "random mask",
    "lora": "LoRA (q, v)",
    "prefix": "prefix",
    "adapter": "adapter (PEFT's nearest)",
    "prompt": "prompt",
    "sparse": "sparse",
    "none": "no patch",
    "zero_shot": "zero-shot",
    "in_context": "in context",
}
FORM_NAMES = {"lora": "LoRA", "vera": "VeRA", "vera1d": "VeRA-1D", "dora": "DoRA"}
SCORE_NAMES = {
    "magnitude": "Magnitude",
    "fisher": "Fisher (per example)",
    "fisher_batch": "Fisher (batch)",
    "mag_angle": "Mag+Angle",
    "reach": "Reach",
    "norms": "Pre-trained norm",
}
PAPER_ORDER = ("b_v", "b_q", "b_k")  # by accuracy, Fig. 2


def method_name(method: str) -> str:
    """The name of a method in figures and tables."""
    term, _, form = method.partition(":")
    return f"{term}, {FORM_NAMES[form]}" if form else METHOD_NAMES.get(method, method)


def order(means: Mapping[str, float], form: str = "{:.3g}") -> str:
    """Names by falling value: "b_v (77.2) > b_q (70.1) > b_k (55.3)"; equal values are joined by "="."""
    known = sorted(
        ((v, k) for k, v in means.items() if v is not None and np.isfinite(v)), key=lambda p: (-p[0], p[1])
    )
    if not known:
        return MISSING
    text = f"{known[0][1]} ({form.format(known[0][0])})"
    for (above, _), (value, name) in itertools.pairwise(known):
        text += f" {'=' if above == value else '>'} {name} ({form.format(value)})"
    return text


def label_lines(task: Task, labels: np.ndarray) -> list[str]:
    """How labels (N,) are spread: a line per class, or the range of the values."""
    if task.regression:
        return [f"values from {labels.min():g} to {labels.max():g}, mean {labels.mean():.2f}"]
    counts = np.bincount(labels, minlength=len(task.labels))
    return [f"{name}: {count:,} rows" for name, count in zip(task.labels, counts, strict=True)]


def before_tuning(task: Task, labels: np.ndarray, value: float) -> str:
    """The metric of the untuned model beside that of one answer for all rows."""
    if task.regression:
        return f"{task.metric} before tuning {100 * value:.1f} %; one value for all rows has none"
    largest = np.full_like(labels, np.bincount(labels).argmax())
    always = tasks.score(task.metric, labels, largest)
    return f"{task.metric} before tuning {100 * value:.1f} %, always the larger class {100 * always:.1f} %"


def accuracy_order(runs: pd.DataFrame, methods: Sequence[str] | None = None, value: str = "final") -> str:
    """Methods by their mean over seeds, in percent."""
    chosen = runs if methods is None else runs[runs["method"].isin(methods)]
    means = statistics.summary(chosen, ("method",), value).set_index("method")["mean"]
    return order({method_name(str(m)): 100 * v for m, v in means.items()}, "{:.1f}")


def paper_order(runs: pd.DataFrame, value: str = "final") -> str:
    """Whether the mean accuracies have the paper's order b_v > b_q > b_k."""
    means = statistics.summary(runs, ("method",), value).set_index("method")["mean"].to_dict()
    if any(not np.isfinite(means.get(m, np.nan)) for m in PAPER_ORDER):
        return "the paper's order b_v > b_q > b_k cannot be checked: a term was not run or did not finish"
    same = means["b_v"] > means["b_q"] > means["b_k"]
    return f"{'this is' if same else 'this is NOT'} the paper's order b_v > b_q > b_k"


def _side(interval: statistics.Interval) -> str:
    """Which sign a paired difference was shown to have: "+", "-", or "" (no interval, or 0 inside it)."""
    return "+" if interval.low > 0 else "-" if interval.high < 0 else ""


def better_or_faster(equal: pd.DataFrame, own: pd.DataFrame, first: str = "b_v", second: str = "b_q") -> str:
    """The question of THEORY 7 answered from both views: is `first` better than `second`, or faster at one rate?"""
    at_one, at_own = (statistics.paired(frame, first, second).interval for frame in (equal, own))
    if min(at_one.n, at_own.n) < 2:
        return f"{first} against {second}: at least two finished seeds in both views are needed to say"
    answers = {
        (
            "+",
            "+",
        ): f"{first} is ahead at one rate and stays ahead when each term has its own: better, not only faster",
        (
            "+",
            "",
        ): f"{first} is ahead at one rate; at own rates no difference is shown: faster, not shown to be better",
        ("+", "-"): f"{first} is ahead at one rate and behind when each term has its own: faster, not better",
        ("", "+"): f"no difference is shown at one rate; {first} is ahead when each term has its own",
        ("", ""): f"no difference between {first} and {second} is shown in either view",
        ("", "-"): f"no difference is shown at one rate; {second} is ahead when each term has its own",
        ("-", "+"): f"{second} is ahead at one rate and behind when each term has its own",
        ("-", ""): f"{second} is ahead at one rate; at own rates no difference is shown",
        ("-", "-"): f"{second} is ahead in both views",
    }
    return answers[_side(at_one), _side(at_own)]


def coincide(gaps: pd.DataFrame) -> str:
    """How far b_k and the head alone come apart, from `statistics.coincidence`."""
    if gaps.empty:
        return f"b_k and the head alone: {MISSING} with a common seed"
    loss, metric = gaps["train_loss"].max(), gaps["validation"].max()
    return (
        f"over {len(gaps)} seeds and all epochs, b_k and the head alone differ by at most {loss:.2g} in training loss "
        f"and {100 * metric:.2g} points in the validation metric"
    )


def fine_tuning(equal: pd.DataFrame, own: pd.DataFrame, grid: pd.DataFrame, gaps: pd.DataFrame) -> str:
    """The findings of notebook 3, one to a line."""
    every = pd.concat([frame[["key", "outcome"]] for frame in (equal, own, grid)]).drop_duplicates("key")
    lost = int((every["outcome"] != "ok").sum())
    lines = [
        f"At one rate: {accuracy_order(equal)}; {paper_order(equal)}.",
        f"  {statistics.paired(equal, 'b_v', 'b_q').sentence()}.",
        f"Each at its own rate: {accuracy_order(own)}.",
        f"  {statistics.paired(own, 'b_v', 'b_q').sentence()}.",
        f"Better or faster: {better_or_faster(equal, own)}.",
        f"b_k: {coincide(gaps)}.",
        f"Runs that diverged or failed: {lost} of {len(every)}.",
    ]
    return "\n".join(lines)


def tau_text(taus: pd.Series) -> str:
    """Kendall's tau over seeds: mean with interval, or what stands in the way of one."""
    i = statistics.mean_interval(taus)
    if i.n == 0:
        return "undefined, equal accuracies" if len(taus) else MISSING
    if taus.dropna().nunique() == 1:  # no spread: an interval of no width would claim certainty
        return f"{i.mean:+.2f} in {'one seed' if i.n == 1 else f'each of {i.n} seeds'}"
    return f"{i.mean:+.2f} [{i.low:+.2f}, {i.high:+.2f}] over {i.n} seeds"


def ranking(averages: pd.DataFrame, runs: pd.DataFrame) -> str:
    """The findings of notebook 2: for each score its order of the terms against that of the accuracies."""
    accuracy = statistics.summary(runs).set_index("method")["mean"].dropna()
    known = {str(method): float(value) for method, value in accuracy.items()}
    taus = statistics.agreement(averages, runs)
    lines = [f"Accuracies, %: {accuracy_order(runs)}; {paper_order(runs)}."]
    lines.append(f"  {statistics.paired(runs, 'b_v', 'b_q').sentence()}.")
    for score, part in averages.groupby("score", sort=False):
        means = {f"b_{t}": float(v) for t, v in part.groupby("term")["value"].mean().items()}
        tau = agreement(means, known) if len(known) > 1 else np.nan
        same = "as" if tau == 1 else "not comparable with" if np.isnan(tau) else "NOT as"
        line = f"{score}: {' > '.join(sorted(means, key=lambda m: -means[m]))}, {same} the mean accuracies"
        for view, found in taus[taus["score"] == score].groupby("view", sort=False)["tau"]:
            line += f"; tau {tau_text(found)} ({view})"
        if part["key_null"].any() and means["b_k"] > min(means["b_q"], means["b_v"]):
            line += "; it puts a provably null b_k above a term that can matter"
        lines.append(line + ".")
    return "\n".join(lines)
