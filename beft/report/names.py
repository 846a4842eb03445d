"""The names of methods and scores in figures and tables, and how numbers are written there."""

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from .comparisons import LEAST
from .intervals import Interval, finished, mean_interval

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
PAPER_ORDER = ("b_v", "b_q", "b_k")  # in the order of the paper's accuracies, Fig. 2
MODEL_NAMES = {  # what a model is, where its name does not say it
    "SmolLM2-135M-Instruct-Q4_1": "SmolLM2-135M-Instruct, 4-bit weights",
}


def model_name(model: str) -> str:
    """The name of a model in tables, figures and captions, which says what it is."""
    return MODEL_NAMES.get(str(model), str(model))


def method_name(method: str) -> str:
    """The name of a method in figures and tables."""
    term, _, form = method.partition(":")
    return f"{term}, {FORM_NAMES[form]}" if form else METHOD_NAMES.get(method, method)


def counted(count: int, unit: str) -> str:
    """ "1 cell", "4 cells"."""
    return f"{count} {unit}{'' if count == 1 else 's'}"


def no_interval(tasks: int) -> str:
    """Why there is no interval over tasks, e.g. "one task: no interval"; "" where there is one."""
    return "" if tasks >= LEAST else f"{'one task' if tasks == 1 else counted(tasks, 'task')}: no interval"


def number(value: float, form: str = ".2g", missing: str = "undefined") -> str:
    """A number; `missing` where it is not finite."""
    return format(value, form) if np.isfinite(value) else missing


def interval_text(
    mean: float, low: float, high: float, form: str = "+.1f", scale: float = 100, missing: str = MISSING
) -> str:
    """A mean with its interval, in signed points by default: "+1.3 [+0.2, +2.4]".

    Without an interval (`low` is nan) the mean alone, without a mean `missing`.
    """
    text = number(scale * mean, form, missing)
    return f"{text} [{scale * low:{form}}, {scale * high:{form}}]" if np.isfinite([mean, low]).all() else text


def mean_text(interval: Interval, form: str = ".2f", scale: float = 1, missing: str = "undefined") -> str:
    """`interval_text` of an interval."""
    return interval_text(interval.mean, interval.low, interval.high, form, scale, missing)


def percent_text(interval: Interval) -> str:
    """E.g. "77.2 [75.9, 78.5]"; "77.2 (one seed)" without an interval; "not run" without a value."""
    text = mean_text(interval, ".1f", 100, MISSING)
    return f"{text} (one seed)" if interval.n == 1 else text


def runs_text(runs: pd.DataFrame, value: str = "final") -> str:
    """Mean and interval of one column of some runs in percent, with the lost ones counted.

    E.g. "77.2 [75.9, 78.5], 1 of 5 diverged or failed"; `not run` without a run.
    """
    ok = finished(runs)
    interval, lost = mean_interval(ok[value]), len(runs) - len(ok)
    if not lost:
        return percent_text(interval)
    note = f"{lost} of {len(runs)} diverged or failed"
    return f"{percent_text(interval)}, {note}" if interval.n else note


def tau_text(taus: pd.Series) -> str:
    """Kendall's tau over seeds: mean with interval, or what stands in the way of one."""
    i = mean_interval(taus)
    if i.n == 0:
        return "undefined, equal accuracies" if len(taus) else MISSING
    if taus.dropna().nunique() == 1:  # no spread: an interval of no width would claim certainty
        return f"{i.mean:+.2f} in {'one seed' if i.n == 1 else f'each of {i.n} seeds'}"
    return f"{mean_text(i, '+.2f')} over {i.n} seeds"


def order(values: Mapping[str, float], form: str | None = None) -> str:
    """Names by falling value, equal ones joined by "=": "v > k = q"; what is not a number is left out.

    With a `form` (".3g") each name has its value: "b_v (77.2) > b_q (70.1)".
    """
    known = sorted((-v, k) for k, v in values.items() if v is not None and np.isfinite(v))
    if not known:
        return MISSING
    texts = [name if form is None else f"{name} ({-value:{form}})" for value, name in known]
    signs = ["=" if a == b else ">" for (a, _), (b, _) in itertools.pairwise(known)]
    return " ".join([texts[0], *(f"{sign} {text}" for sign, text in zip(signs, texts[1:], strict=True))])
