"""The names of methods and scores in figures and tables, and how numbers are written there."""

import itertools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from .. import paper
from ..study import split_method
from .comparisons import LEAST
from .dataframes import is_lost
from .intervals import Interval, cut_interval, score_interval
from .majority import is_learned, marked

MISSING = "not run"
NO_ROOM = "does not fit"  # the outcome of demonstrations that the context has no room for
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
    "all-mpnet-base-v2": "MPNet-base (all-mpnet-base-v2)",
    "SmolLM2-135M-Instruct-Q4_1": "SmolLM2-135M-Instruct, 4-bit weights",
    "Qwen2.5-Coder-0.5B-Instruct-Q4_K_M": "Qwen2.5-Coder-0.5B-Instruct, 4-bit weights",
}
SHORT_NAMES = {
    "all-mpnet-base-v2": "MPNet-base",
    "all-MiniLM-L6-v2": "MiniLM",
    "bert-base-cased": "BERT-base",
    "meta-llama/Llama-2-7b-hf": "LLaMA-2-7B",
    "deepseek-ai/deepseek-coder-1.3b-base": "DeepSeek-Coder-1.3B",
    "EleutherAI/gpt-j-6b": "GPT-J-6B",
}
TASK_NAMES = {
    "film_sentiment": "film sentences",
    "film_rating": "film sentences, ratings",
    "product_sentiment": "product sentences",
    "tweet_sentiment": "tweets",
    "editorial_sentiment": "editorial sentences",
}


def model_name(model: str) -> str:
    """The name of a model in tables, figures and captions, which says what it is."""
    return MODEL_NAMES.get(str(model), str(model))


def short_name(model: str) -> str:
    """The name of a model where there is little room, in legends and headers: that of `model_name` or a shorter one."""
    return SHORT_NAMES.get(str(model), model_name(model))


def task_name(task: str) -> str:
    """The name of a task in tables, figures and captions."""
    return TASK_NAMES.get(str(task), str(task))


def method_name(method: str) -> str:
    """The name of a method in figures and tables; layers stay as the method names them, from 0: "b_v[6:12]"."""
    form = split_method(method)[2]
    return f"{method.removesuffix(f':{form}')}, {FORM_NAMES[form]}" if form else METHOD_NAMES.get(method, method)


def mathtext(text: str) -> str:
    """A text for a figure, in which every term is mathematics: "b_v, LoRA" as "$b_v$, LoRA"."""
    return re.sub(r"(?<![$\w])b_([qkv])(?!\w)", r"$b_\1$", text)


def described(runs: pd.DataFrame) -> str:
    """Model, rows, epochs and seeds of the runs of a figure: "MPNet-base: 1,000 rows, 8 epochs, 6 seeds"."""
    models, rows, epochs = (list(dict.fromkeys(runs[n])) for n in ("model", "train_size", "epochs"))
    texts = [" / ".join(f"{n:,}" for n in rows) + " rows"]
    texts.append(counted(epochs[0], "epoch") if len(epochs) == 1 else " / ".join(map(str, epochs)) + " epochs")
    return f"{' / '.join(map(short_name, models))}: {', '.join(texts)}, {counted(runs['seed'].nunique(), 'seed')}"


def paper_described(result: Mapping[str, Any]) -> str:
    """The same of a result of the paper (`paper.beside`): "BERT-base: 1,000 rows, 16 epochs, seed 0, as printed"."""
    s = result["settings"]
    settings = f"{s['train_size']:,} rows, {counted(s['epochs'], 'epoch')}, seed {s['seed']}"
    return f"{short_name(result['model'])}: {settings}, as printed"


def paper_results(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The paper's results for the task and rows of the runs of one cell (`paper.beside`); none for several cells."""
    if len(runs.drop_duplicates(["model", "task", "train_size"])) != 1:
        return []
    settings = {str(name): value for name, value in runs.iloc[0].items()}
    return paper.beside(settings, bool(settings["substitute"]))


def paper_note(runs: pd.DataFrame) -> str:
    """What a caption says of the paper's marks beside these runs; "" where there are none."""
    results = [r for r in paper_results(runs) if set(r["percent"]) & set(runs["method"])]
    return f" Black lines: {paper_described(results[0])}; marks: {described(runs)}." if results else ""


def model_names(text: str) -> str:
    """A text in which models are called what they are."""
    for name, words in MODEL_NAMES.items():
        text = text if words in text else text.replace(name, words)
    return text


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
    """Mean and interval of one column of some runs in percent, with the lost ones counted, and whether it is learned.

    E.g. "77.2 [75.9, 78.5], 1 of 5 diverged or failed"; "77.2 [75.9, 78.5], 1 of 5 without a score" of a run whose
    predictions are constant and have no correlation; "50.9 [50.9, 50.9], not learned"; `not run` without a run; "does
    not fit" where all of them are demonstrations without room.
    """
    interval, lost = score_interval(runs, value), lost_runs(runs, value)
    unscored = int((is_lost(runs, value) & (runs["outcome"] == "ok")).sum())
    no_room = int((runs["outcome"] == NO_ROOM).sum())
    if no_room == len(runs) > 0:
        return NO_ROOM
    notes = [f"{lost - unscored} of {len(runs)} diverged or failed"] if lost > unscored else []
    notes += [f"{unscored} of {len(runs)} without a score"] if unscored else []
    notes += [f"{no_room} of {len(runs)}: {NO_ROOM}"] if no_room else []
    if notes and not interval.n:
        return ", ".join(notes)
    return ", ".join([marked(percent_text(interval), not is_learned(runs, value)), *notes])


def lost_runs(runs: pd.DataFrame, value: str = "final") -> int:
    """How many runs diverged or failed, or ended well without a score (`dataframes.is_lost`)."""
    return int((is_lost(runs, value) & (runs["outcome"] != NO_ROOM)).sum())


def tau_text(taus: pd.Series, undefined: str = "undefined, equal accuracies") -> str:
    """Kendall's tau over seeds: mean with interval, or what stands in the way of one."""
    i = cut_interval(taus, "tau")
    if i.n == 0:
        return undefined if len(taus) else MISSING
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
