"""Tables 5 and 6 of the paper: what tuning one bias of a language model comes to, beside the model as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ... import paper
from ...anatomy.projections import describe, key_bias_is_null
from ...experiments.memory import Estimate
from .. import comparisons
from ..dataframes import frame
from ..readings import MISSING, method_name
from . import grid as tables_grid
from .tables import percent

Records = Sequence[Mapping[str, Any]]
UNTUNED = ("zero_shot", "in_context")


def scores(records: Records, untuned: Records = ()) -> pd.DataFrame:
    """Runs, and the untuned model beside them, in one frame as `frames.frame` gives it.

    The untuned model's methods are "zero_shot", whose one score stands for every seed of the cell, and "in_context".
    A model and task of which there are no runs are left out.
    """
    runs = frame(records)
    rows = []
    for cell, part in comparisons.by_cell(runs):
        same: dict[str, Any] = {n: part[n].iloc[0] for n in ("metric", "substitute")}
        for record in untuned:
            found = record["settings"]
            if (found["model"], found["task"]) != (cell["model"], cell["task"]):
                continue
            shown = bool(found["demonstrations"])
            if shown and found.get("regime") != cell["regime"]:
                continue
            for seed in [found["seed"]] if shown else sorted(set(part["seed"])):
                row = {**cell, **same, "key": record["key"], "method": UNTUNED[shown], "seed": seed}
                rows.append(row | {"final": record["validation"], "outcome": record["outcome"]})
    if not rows:
        return runs
    return pd.concat([pd.DataFrame(rows).reindex(columns=runs.columns).astype(runs.dtypes[["final"]]), runs],
                     ignore_index=True)  # fmt: skip


def table5(records: Records, untuned: Records = ()) -> pd.DataFrame:
    """Table 5, and 6 where the models have no biases: cells x (zero-shot, in context, methods), percent.

    Columns as of `tables_grid.table3`, with the untuned model's in front of the methods': zero-shot, which no seed
    changes, and in context with the number of demonstrations that the model's context had room for.
    """
    table = tables_grid.table3(list(records))  # type: ignore[arg-type]
    both = scores(records, untuned)
    shown = {
        (r["settings"]["model"], r["settings"]["task"]): r["demonstrations"]
        for r in untuned
        if r["settings"]["demonstrations"]  # asked for; of long texts, none may fit
    }
    columns: dict[str, list[str]] = {method_name(m): [] for m in UNTUNED}
    for place in table[["model", "task", "regime"]].itertuples(index=False, name=None):
        here = both[
            (both[list(comparisons.CELL)].astype(str) == pd.Series(place, comparisons.CELL)).all(axis=1)
        ]
        zero, context = (here[here["method"] == m] for m in UNTUNED)
        columns[method_name("zero_shot")].append(
            f"{100 * zero['final'].iloc[0]:.1f}" if len(zero) else MISSING
        )
        text = percent(context, "final") if len(context) else MISSING
        columns[method_name("in_context")].append(
            f"{text}, {shown[place[:2]]} shown" if len(context) else text
        )
    at = list(table).index("rate") + 1
    for n, (name, values) in enumerate(columns.items()):
        table.insert(at + n, name, values)
    return table


def table6(records: Records, untuned: Records = ()) -> pd.DataFrame:
    """`table5` with the paper's own bias-free models below, run here or not; its numbers have their own columns."""
    table = table5(records, untuned)
    printed = [r for r in paper.data()["results"] if r.get("prompted")]
    names = {method: f"{method_name(method)}: paper, %" for r in printed for method in r["percent"]}
    reason = table.pop("paper") if "paper" in table else None
    for name in names.values():
        if name not in table:
            table[name] = reason
    rows = []
    for result in printed:
        ours = zip(table["model"], table["task"])
        if any((paper.same_model(str(m)), t) == (result["model"], result["task"]) for m, t in ours):
            continue
        of = {"model": result["model"], "task": result["task"], "metric": result["metric"], "regime": "low"}
        of |= {"rows": str(result["settings"]["train_size"]), "epochs": str(result["settings"]["epochs"])}
        of |= {"rate": f"{result['settings']['rate']:g}", "seeds": "none of ours"}
        of |= {names[m]: f"{value:.1f}" for m, value in result["percent"].items()}
        rows.append(dict.fromkeys(table, MISSING) | of)
    return pd.concat([table, pd.DataFrame(rows, columns=list(table))], ignore_index=True)


def anatomies(models: Mapping[str, Any]) -> pd.DataFrame:
    """What a bias is in each model: a row per model, by name.

    Columns: model; family; has q, k, v biases; heads, kv-heads, head size; numbers in one layer's b_q and in its b_k
    or b_v (grouped heads share them); numbers of b_v in all layers, and their share of the model in percent; whether
    b_k is null, with the reason.
    """
    rows = []
    for name, model in models.items():
        found, verdict = describe(model), key_bias_is_null(model)
        total = sum(p.numel() for p in model.parameters())
        value = sum(site.size for site in found.of("v"))
        rows.append(
            {
                "model": name,
                "family": found.family,
                "has q, k, v biases": ", ".join("yes" if found.of(t)[0].has_bias else "no" for t in "qkv"),
                "heads": found.heads,
                "kv-heads": found.kv_heads,
                "head size": found.head_size,
                "b_q, a layer": found.of("q")[0].size,
                "b_k, b_v, a layer": found.of("v")[0].size,
                "b_v, all layers": value,
                "share of the model, %": f"{100 * value / total:.3f}",
                "b_k is null": f"{'yes' if verdict.null else 'no'}: {verdict.reason}",
            }
        )
    return pd.DataFrame(rows)


def memory(estimates: Mapping[str, Estimate], measured: Records = (), runs: int = 1) -> pd.DataFrame:
    """What b_v needs on each model, by name: a row per model, in GB (10^9 bytes).

    Columns: model; parameters (10^9); weights; one run (MB); a chunk (without and with gradient checkpointing);
    in all, with a bank of so many `runs` and a chunk without it; full fine-tuning without activations; measured, with
    its device.
    """
    peaks = {r["settings"]["model"]: r for r in measured}
    rows = []
    for name, e in estimates.items():
        row = {"model": name, "parameters, billions": f"{e.parameters / 1e9:.2f}"}
        row |= {"weights, GB": f"{e.weights / 1e9:.1f}", "one run of b_v, MB": f"{e.run / 1e6:.1f}"}
        row[f"a chunk of {e.tokens:,} tokens, GB"] = f"{e.kept / 1e9:.2f}"
        row["with gradient checkpointing, GB"] = f"{e.recomputed / 1e9:.2f}"
        row[f"in all, {runs} runs, GB"] = f"{e.total(runs) / 1e9:.1f}"
        row["full fine-tuning, GB"] = f"{e.full / 1e9:.0f}"
        found = peaks.get(name)
        row["measured, 1 run, GB"] = (
            f"{found['peak_bytes'] / 1e9:.1f} ({found['device'].get('name', found['settings']['device'])})"
            if found
            else MISSING
        )
        rows.append(row)
    return pd.DataFrame(rows)
