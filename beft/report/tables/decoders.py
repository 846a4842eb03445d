"""Tables of language models: their biases, Tables 5 and 6 of the paper, and the memory that runs of b_v need."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ... import paper
from .. import comparisons
from ..comparisons import CELL
from ..dataframes import Records, frame, majorities, majority_in, settings_of
from ..intervals import cut_interval, summary
from ..majority import at_or_below, learned, majority_of, majority_text, marked
from ..names import MISSING, NO_ROOM, PAPER_ORDER, mean_text, method_name, model_name, runs_text, task_name
from .cells import table3, with_absent
from .fine_tuning import accuracy_order

UNTUNED = ("zero_shot", "in_context")
ROUNDING = 1e-10  # relative change in float64: rounding stays far below, a term with an effect far above


def scores(records: Records, untuned: Records = ()) -> pd.DataFrame:
    """Runs, and the untuned model beside them, in one frame as `dataframes.frame` gives it.

    The untuned model's methods are "zero_shot", whose one score stands for every seed of the cell, and "in_context",
    whose outcome is "does not fit" where the context had no room for a demonstration. A model and task of which there
    are no runs are left out.
    """
    runs = frame(records, untuned)
    rows = []
    for cell, part in comparisons.by_cell(runs):
        same: dict[str, Any] = {n: part[n].iloc[0] for n in ("metric", "substitute")} | {"majority": majority_of(part)}
        for r in untuned:
            s, in_context = r["settings"], bool(r["settings"]["demonstrations"])
            if any(s.get(n) != cell[n] for n in (CELL if in_context else ("model", "task"))):
                continue
            for seed in [s["seed"]] if in_context else sorted(set(part["seed"])):
                row = {**cell, **same, "key": r["key"], "method": UNTUNED[in_context], "seed": seed}
                rows.append(row | ({"outcome": NO_ROOM} if _no_room(r) else _score(r)))
    if not rows:
        return runs
    beside = pd.DataFrame(rows).reindex(columns=runs.columns).astype(runs.dtypes[["final", "majority"]])
    return pd.concat([beside, runs], ignore_index=True)


def _score(untuned: Mapping[str, Any]) -> dict[str, Any]:
    return {"final": untuned["validation"], "outcome": untuned["outcome"]}


def _no_room(untuned: Mapping[str, Any]) -> bool:
    """Whether demonstrations were wanted and none fitted: then the score is the zero-shot one."""
    return bool(untuned["settings"]["demonstrations"]) and not untuned["demonstrations"]


def _shown(context: Records) -> str:
    """How many demonstrations the context had room for, over seeds: "5", "3 to 5"."""
    counts = sorted({r["demonstrations"] for r in context if not _no_room(r)})
    return " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]]))) if counts else NO_ROOM


def before_tuning(untuned: Records) -> pd.DataFrame:
    """The untuned model's scores in percent: a row per model, task and regime, zero-shot and behind demonstrations.

    Columns: model; task; regime, whose rows the demonstrations are of ("-" without any); metric; majority, what the
    most frequent option as the answer to all reaches; zero-shot, which is the same in every regime; demonstrations, as
    many as had room; in context. Scores at or below the majority are marked.
    """
    rows, known, places = [], majorities(untuned), [_place(r) for r in untuned]
    with_regime = {place[:2] for place in places if place[2] is not None}
    for model, task, regime in dict.fromkeys(places):
        if regime is None and (model, task) in with_regime:
            continue  # zero-shot stands in the rows of its regimes
        here = [r for r, place in zip(untuned, places) if place in ((model, task, None), (model, task, regime))]
        metric = here[0]["data"]["metric"]
        majority = float(majority_in(here[0], known).get(metric, np.nan))
        context = [r for r in here if r["settings"]["demonstrations"]]
        row = {"model": model_name(model), "task": task_name(task), "regime": "-" if regime is None else str(regime)}
        row |= {"metric": metric}
        row |= {"majority": majority_text(majority), "zero-shot, %": MISSING, "demonstrations": MISSING}
        row["in context, %"] = MISSING
        for r in [r for r in here if not r["settings"]["demonstrations"]]:
            row["zero-shot, %"] = _percent([r["validation"]], metric, majority)
        if context:
            values = [r["validation"] for r in context if not _no_room(r)]
            row |= {"demonstrations": _shown(context), "in context, %": _percent(values, metric, majority, NO_ROOM)}
        rows.append(row)
    return pd.DataFrame(rows)


def _place(untuned: Mapping[str, Any]) -> tuple[Any, ...]:
    """Model, task and regime of an untuned record; zero-shot has no regime."""
    return tuple(untuned["settings"].get(name) for name in CELL)


def _percent(values: Sequence[float], metric: str, majority: float, missing: str = MISSING) -> str:
    """Scores over seeds with their interval, marked where they are not above the majority; of one value, it alone."""
    interval = cut_interval(values, metric)
    if not interval.n:
        return missing
    return marked(mean_text(interval, ".1f", 100), at_or_below(interval.mean, majority))


def table5(records: Records, untuned: Records = (), absent: Sequence[Mapping[str, str]] = ()) -> pd.DataFrame:
    """Table 5, and 6 where the models have no biases: cells x (zero-shot, in context, methods), percent.

    Columns as of `cells.table3`, with the untuned model's in front of the methods': zero-shot, which no seed
    changes, and in context with the number of demonstrations that the model's context had room for. Cells that are
    `absent` ({"model", "task", "regime", "reason"}, as `grid.at_hand` gives them) have a row and a column `reason`.
    """
    table = table3(records, untuned)
    cells = {tuple(cell.values()): part for cell, part in comparisons.by_cell(scores(records, untuned))}
    texts = []
    for cell, _ in comparisons.by_cell(frame(records)):
        here = cells[tuple(cell.values())]
        zero, context = (here[here["method"] == m] for m in UNTUNED)
        behind = [r for r in untuned if r["key"] in set(context["key"])]
        shown = _shown(behind) if behind else NO_ROOM
        suffix = "" if shown == NO_ROOM else f", {shown} shown"
        before = _percent(zero["final"].head(1).tolist(), str(here["metric"].iloc[0]), majority_of(here))
        texts.append((before, runs_text(context) + suffix))
    for n, method in enumerate(UNTUNED, 1):
        table.insert(list(table).index("rate") + n, method_name(method), [text[n - 1] for text in texts])
    return with_absent(table, absent)


def table6(records: Records, untuned: Records = (), absent: Sequence[Mapping[str, str]] = ()) -> pd.DataFrame:
    """`table5` with the paper's own bias-free models below, run here or not; its numbers have their own columns."""
    table = table5(records, untuned, absent)
    printed = [r for r in paper.data()["results"] if r.get("prompted")]
    names = {method: f"{method_name(method)}: paper, %" for r in printed for method in r["percent"]}
    reason = table.pop("paper") if "paper" in table else None
    for name in names.values():
        if name not in table:
            table[name] = reason
    rows = []
    own = {(paper.same_model(s["model"]), s["task"]) for s in map(settings_of, records) if paper.of_own_rows(s)}
    ours = {(paper.same_model(str(m)), t) for m, t in zip(table["model"], table["task"])} - own
    for result in [r for r in printed if (r["model"], r["task"]) not in ours]:
        of = {"model": result["model"], "task": result["task"], "metric": result["metric"], "regime": "low"}
        of |= {"rows": str(result["settings"]["train_size"]), "epochs": str(result["settings"]["epochs"])}
        of |= {"rate": f"{result['settings']['rate']:g}", "seeds": "none of ours"}
        of |= {names[m]: f"{value:.1f}" for m, value in result["percent"].items()}
        rows.append(dict.fromkeys(table, MISSING) | ({"reason": ""} if absent else {}) | of)
    return pd.concat([table, pd.DataFrame(rows, columns=list(table))], ignore_index=True)


def anatomies(summaries: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """What a bias is in each model: a row per summary of `anatomy.anatomy_summary`.

    Columns: model; family; has q, k, v biases; heads, kv-heads, head size; numbers in one layer's b_q and in its b_k
    or b_v (grouped heads share them); numbers of b_v in all layers, and their share of the model in percent; whether
    b_k is null, with the reason.
    """
    rows = []
    for m in summaries:
        has = ", ".join("yes" if m["has_bias"][term] else "no" for term in "qkv")
        row = {"model": m["model"], "family": m["family"], "has q, k, v biases": has}
        row |= {"heads": m["heads"], "kv-heads": m["kv_heads"], "head size": m["head_size"]}
        row |= {"b_q, a layer": m["query_size"], "b_k, b_v, a layer": m["value_size"]}
        row |= {"b_v, all layers": m["value_total"]}
        row["share of the model, %"] = f"{100 * m['value_total'] / m['parameters']:.3f}"
        rows.append(row | {"b_k is null": f"{'yes' if m['key_bias_null'] else 'no'}: {m['reason']}"})
    return pd.DataFrame(rows)


def perturbations(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The relative change of each model's logits when numbers are added to one term's biases: a row per model.

    Columns: model; b_q, b_k, b_v; b_k / b_v; whether the change by b_k is rounding (below `ROUNDING`). `rows` are
    {"model", "term", "relative"}, as `expressiveness.perturbation_table` gives them in float64.
    """
    changes = pd.DataFrame(rows)
    table = changes.pivot(index="model", columns="term", values="relative")
    table = table.reindex(changes["model"].unique())[["b_q", "b_k", "b_v"]]
    text = table.assign(**{"b_k / b_v": table["b_k"] / table["b_v"]}).map("{:.2g}".format)
    return text.assign(**{"b_k is rounding": table["b_k"] < ROUNDING}).reset_index()


def method_orders(scores: pd.DataFrame) -> pd.DataFrame:
    """The order of the methods by their means in percent: a row per model, task and regime."""
    rows = [
        cell
        | {"model": model_name(cell["model"]), "task": task_name(cell["task"])}
        | {"methods by score, %": accuracy_order(part)}
        for cell, part in comparisons.by_cell(scores)
    ]
    return pd.DataFrame(rows, columns=[*CELL, "methods by score, %"])


def best_terms(scores: pd.DataFrame) -> pd.DataFrame:
    """In how many cells each term has the highest mean of the three: a row per model; equal ones count each.

    A term that is not learned is never the best; the last columns count the cells, and those where no term is learned.
    """
    cell = list(CELL)
    terms = scores[scores["method"].isin(PAPER_ORDER)]
    parts = {tuple(place.values()): learned(part) for place, part in comparisons.by_cell(terms)}
    means = summary(pd.concat([terms.head(0), *parts.values()]), [*cell, "method"]).dropna(subset=["mean"])
    means["mean"] = means["mean"].round(9)  # means of equal scores differ by rounding
    best = means[means["mean"] == means.groupby(cell)["mean"].transform("max")]
    cells = scores.drop_duplicates(cell).groupby("model", sort=False).size()
    counts = pd.crosstab(best["model"], best["method"]).reindex(cells.index, fill_value=0)
    counts = counts.reindex(columns=list(PAPER_ORDER), fill_value=0).rename_axis(columns=None)
    none = pd.Series([model for (model, *_), part in parts.items() if part.empty], dtype=object).value_counts()
    counts = counts.assign(cells=cells, **{"no term learned": none.reindex(cells.index, fill_value=0)}).reset_index()
    return counts.assign(model=counts["model"].map(model_name))


def memory(estimates: Mapping[str, Any], measured: Records = (), runs: int = 1) -> pd.DataFrame:
    """What b_v needs on each model, by name, of `memory.Estimate` and records of one measured step: in GB (10^9 bytes).

    Columns: model; parameters (10^9); weights; one run (MB); a chunk (without and with gradient checkpointing);
    in all, with a bank of so many `runs` and a chunk without it; full fine-tuning without activations; of one run the
    estimate, what was measured with its device, and how many times the estimate that is.
    """
    peaks = {r["settings"]["model"]: r for r in measured}
    rows = []
    for name, e in estimates.items():
        row = {"model": name, "parameters, billions": f"{e.parameters / 1e9:.2f}"}
        row |= {"weights, GB": f"{e.weights / 1e9:.1f}", "one run of b_v, MB": f"{e.run / 1e6:.1f}"}
        row[f"a chunk of {e.tokens:,} tokens, GB"] = f"{e.kept / 1e9:.2f}"
        row["with gradient checkpointing, GB"] = f"{e.recomputed / 1e9:.2f}"
        row[f"in all, {runs} runs, GB"] = f"{e.total(runs) / 1e9:.1f}"
        row |= {"full fine-tuning, GB": f"{e.full / 1e9:.0f}", "1 run, GB": f"{e.total(1) / 1e9:.1f}"}
        row |= {"measured, 1 run, GB": MISSING, "measured / estimated": MISSING}
        if r := peaks.get(name):
            device = r["device"].get("name", r["settings"]["device"])
            row["measured, 1 run, GB"] = f"{r['peak_bytes'] / 1e9:.1f} ({device})"
            row["measured / estimated"] = f"{r['peak_bytes'] / r['expected_bytes']:.2f}"
        rows.append(row)
    return pd.DataFrame(rows)
