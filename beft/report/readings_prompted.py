"""Sentences computed from the records of language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..anatomy.projections import describe
from . import comparisons
from . import intervals as statistics
from .readings import MISSING, method_name, order
from .readings_grid import terms_over_cells

NULL = 1e-10  # relative change in float64 below which a term did nothing: rounding stays far below, grips far above
TERMS = ("b_v", "b_q", "b_k")


def rotary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which models' b_k did something, and how much of what b_v did; a line per model.

    Args:
        rows: {"model", "term", "relative"} in float64.
    """
    lines = []
    for model in dict.fromkeys(r["model"] for r in rows):
        change = {r["term"]: r["relative"] for r in rows if r["model"] == model}
        if change["b_k"] < NULL:
            lines.append(f"{model}: b_k changes nothing ({change['b_k']:.1g}, rounding)")
        else:
            share = change["b_k"] / change["b_v"]
            lines.append(
                f"{model}: b_k changes the logits by {change['b_k']:.2g}, {share:.2g} of what b_v does"
            )
    return "\n".join(lines)


def before(untuned: Sequence[Mapping[str, Any]]) -> str:
    """The untuned model's scores, a line per model and task."""
    lines = []
    names = dict.fromkeys((r["settings"]["model"], r["settings"]["task"]) for r in untuned)
    for model, task in names:
        here = [r for r in untuned if (r["settings"]["model"], r["settings"]["task"]) == (model, task)]
        metric = here[0]["data"]["metric"]
        zero = [100 * r["validation"] for r in here if not r["settings"]["demonstrations"]]
        shown = [r for r in here if r["settings"]["demonstrations"]]
        text = (
            f"{model}, {task} ({metric}, %): zero-shot {zero[0]:.1f}"
            if zero
            else f"{model}, {task}: {MISSING}"
        )
        if shown:
            found = statistics.mean_interval(r["validation"] for r in shown)
            text += f", behind {shown[0]['demonstrations']} demonstrations {found.percent()}"
        lines.append(text)
    return "\n".join(lines)


def terms(scores: pd.DataFrame, compared: pd.DataFrame, bare: Sequence[str]) -> str:
    """The order of the methods in every cell, and over cells what each pair comes to, for both kinds of models."""
    lines = []
    for cell, part in comparisons.by_cell(scores):
        means = statistics.summary(part).set_index("method")["mean"].dropna()
        known = {method_name(str(m)): 100 * float(v) for m, v in means.items()}
        lines.append(f"{cell['model']}, {cell['task']}: {order(known, '{:.1f}')}")
    for kind, wanted in (("biases of their own", False), ("injected biases", True)):
        part = compared[compared["model"].isin(bare) == wanted]
        over = terms_over_cells(comparisons.overall(part)).splitlines()
        lines += [f"{kind}: {line}" for line in over] if len(part) else []
    return "\n".join(lines)


def switched(config: Any, exported: Any) -> str:
    """Which flags of the config differ between a model and what was exported of it, and which biases are not zero."""
    was, now = config.to_dict(), exported.config.to_dict()
    changed = [f"{n}: {was.get(n)} -> {v}" for n, v in now.items() if isinstance(v, bool) and was.get(n) != v]
    found, moved = describe(exported), []
    for term in "qkv":
        biases = [(s.part, exported.get_submodule(s.module).bias) for s in found.of(term)]
        count = sum(bias is not None and bool(part.take(bias.detach()).any()) for part, bias in biases)
        moved.append(f"b_{term} in {count}")
    flags = ", ".join(changed) or "no flag was needed, the model had these biases"
    return f"config: {flags}; biases that are not zero: {', '.join(moved)} of {found.layers} layers"


def summary(
    scores: pd.DataFrame, compared: pd.DataFrame, bare: Sequence[str], moves: Sequence[Mapping[str, Any]]
) -> str:
    """The findings of notebook 4, one to a line."""
    lines = [f"All models: {line}" for line in terms_over_cells(comparisons.overall(compared)).splitlines()]
    for model in dict.fromkeys(scores["model"]):
        part = scores[scores["model"] == model]
        best = [_best(rows) for _, rows in comparisons.by_cell(part)]
        text = ", ".join(f"{name} in {best.count(name)}" for name in dict.fromkeys(best) if name)
        kind = "injected" if model in bare else "own"
        lines.append(f"{model} ({kind} biases), the best term: {text or MISSING} of {len(best)} tasks.")
    lines += [f"{line}." for line in rotary(moves).splitlines()]
    lost = int((scores["outcome"] != "ok").sum())
    return "\n".join([*lines, f"Runs that diverged or failed: {lost} of {len(scores)}."])


def _best(rows: pd.DataFrame) -> str:
    """The term with the highest mean of one cell; two of them where they are equal."""
    means = statistics.summary(rows[rows["method"].isin(TERMS)]).set_index("method")["mean"].dropna()
    return " = ".join(sorted(means.index[means == means.max()])) if len(means) else ""
