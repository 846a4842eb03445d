"""The paper's encoder tables over cells (model x task x regime), and paired differences with the verdict on each.

Metrics are shown x 100, correlations too; differences in points.
Each mean has its Student t interval over seeds; lost runs are counted beside it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ... import paper
from ...data import tasks
from ...data.prompts import PROMPTS
from ...errors import BeftError
from ...study import ALL_METHODS, split_method
from ...theory.scores import agreement
from .. import comparisons, verdict
from ..comparisons import CELL
from ..dataframes import Records, frame, majorities, majority_in, settings_of
from ..intervals import by_name, finished
from ..majority import NOT_LEARNED, TOO_FEW, majority_of, majority_text, not_learned
from ..names import (
    MISSING,
    counted,
    interval_text,
    method_name,
    model_name,
    number,
    order,
    paper_described,
    runs_text,
    short_name,
    task_name,
)
from .fine_tuning import parameter_names

TERMS = ("b_q", "b_k", "b_v")
FIXED = ["model", "task", "regime", "rows", "metric", "majority", "seeds"]
ANOTHER = f"paper ({short_name(paper.CLASSIFIER)})"
NONE_PRINTED = "none printed"


def joined(values: Iterable[Any]) -> str:
    """Different values in order of appearance: "1000", or "1000 / 900"."""
    return " / ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in dict.fromkeys(values))


def _place(cell: Mapping[str, Any], runs: pd.DataFrame) -> dict[str, Any]:
    """What tells a cell apart, in words; `majority` in percent."""
    place = {"model": model_name(cell["model"]), "task": task_name(cell["task"]), "regime": str(cell["regime"])}
    place |= {"rows": joined(runs["train_size"]), "metric": joined(runs["metric"])}
    return place | {"majority": majority_text(majority_of(runs)), "seeds": str(runs["seed"].nunique())}


def _methods(runs: pd.DataFrame) -> list[str]:
    """The methods of some runs in the package's order, whatever the order of the records."""
    fixed = list(ALL_METHODS)

    def place(method: str) -> tuple[int, str]:
        term, _, form = split_method(method)
        name = f"{term}:{form}" if form else term
        return fixed.index(name) if name in fixed else len(fixed), method

    return sorted(set(runs["method"]), key=place)


def _scores(runs: pd.DataFrame, methods: Iterable[str], value: str = "final") -> dict[str, str]:
    return {method_name(m): runs_text(runs[runs["method"] == m], value) for m in methods}


def table1(rankings: Records, runs_records: Records, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Table 1: every cell's ranking of the terms under each score beside their accuracies.

    Columns: model, task, regime, rows, metric, majority, seeds; b_q, b_k, b_v (percent with interval), order of the
    accuracies of learned terms (`majority`); b_k null (proved by the anatomy: then its place is not the score's
    merit); per score its order of the terms by the layer average, mean over seeds, and in "<score>: top, tau" whether
    its top term is the most accurate one ("tie" where the score has no single top) with Kendall's tau of the means of
    learned terms, and tau without a null b_k; neither below two learned terms.

    `names` are the scores to show, by default all that the records hold. Raises BeftError where a cell has several
    rankings, or several runs of one term, for one seed.
    """
    runs = frame(runs_records)
    runs = runs[runs["method"].isin(TERMS)]
    comparisons.one_run_each(runs)
    scored = {tuple(cell.values()): means for cell, means, _ in comparisons.scored_cells(rankings, runs)}
    scores = names or list(dict.fromkeys(s for averages in scored.values() for s in averages["score"]))
    rows = []
    for cell, part in comparisons.by_cell(runs):
        row = _place(cell, part) | _scores(part, TERMS)
        accuracies = by_name(finished(part).groupby("method")["final"].mean().dropna())
        unlearned = not_learned(part)
        row["order of accuracies"] = _learned_order(accuracies, unlearned)
        averages = scored.get(tuple(cell.values()))
        row["b_k null"] = MISSING if averages is None else "yes" if averages["key_null"].any() else "no"
        for score in scores:
            row |= _score_columns(score, averages, accuracies, unlearned)
        rows.append(row)
    fixed = [*FIXED, *TERMS, "order of accuracies", "b_k null"]
    return pd.DataFrame(rows, columns=[*fixed, *(c for s in scores for c in (s, f"{s}: top, tau"))])


def _learned_order(accuracies: Mapping[str, float], unlearned: Sequence[str]) -> str:
    """The order of the learned terms, and which are not learned: "v > q; not learned: k"."""
    ranked = order({m[2:]: v for m, v in accuracies.items() if m not in unlearned})
    texts = [ranked] if ranked != MISSING or not unlearned else []
    if unlearned:
        texts.append(f"{NOT_LEARNED}: {', '.join(m[2:] for m in unlearned)}")
    return "; ".join(texts)


def _score_columns(
    score: str, averages: pd.DataFrame | None, accuracies: Mapping[str, float], unlearned: Sequence[str]
) -> dict[str, str]:
    if averages is None or score not in set(averages["score"]):
        return {score: MISSING, f"{score}: top, tau": MISSING}
    means = averages[averages["score"] == score].groupby("term")["value"].mean()
    text = {score: order(by_name(means))}
    means = means.add_prefix("b_")
    if len(accuracies) < len(means):
        return text | {f"{score}: top, tau": "a term has no accuracy"}
    kept = {m: v for m, v in accuracies.items() if m not in unlearned}
    if len(kept) < 2:
        return text | {f"{score}: top, tau": TOO_FEW}
    top = means.index[means == means.max()]
    # a top term that is not learned is wrong: another one was
    result = "tie" if len(top) != 1 else "right" if kept.get(top[0]) == max(kept.values()) else "wrong"
    result += f", {number(agreement(by_name(means), kept), '+.2f')}"
    if averages["key_null"].any():
        kept.pop("b_k", None)
        without = number(agreement(by_name(means), kept), "+.2f") if len(kept) > 1 else TOO_FEW
        result += f" (without b_k {without})"
    return text | {f"{score}: top, tau": result}


def table2(records: Records, also: Records = ()) -> pd.DataFrame:
    """Table 2: what each method of one cell trains, needs and reaches; a row per method and rate.

    Columns: method, rate, seeds; trained numbers (bias, pooler, head; weights where any are trained); the metric of
    the last epoch with interval; the majority class's; the device, and of the runs on it: seconds per run, runs in the
    bank, bank memory; the paper's number, ours minus it. Where the runs of a row had several devices, what they cost
    stands apart, in the same order.

    Runs of a bank share every forward pass, so seconds are the bank's divided by its runs: a run alone takes longer
    than that. Memory is the peak of the process while the whole bank trained, in MB (10^6 bytes), not of one run;
    on a CPU it counts everything loaded. Raises BeftError for runs of several cells.

    Records of `also` add nothing but the majority of their rows.
    """
    runs = frame(records, also)
    if len(runs.drop_duplicates(list(CELL))) > 1:
        raise BeftError("Table 2 is of one model, task and regime: give the records of one cell")
    by_key = {r["key"]: r for r in records if r["kind"] == "run"}
    names = parameter_names(list(by_key.values()))
    trained = [name for name in ("bias", "pooler", "head", "weights") if name in names]
    metric = joined(runs["metric"]) if len(runs) else "metric"
    rows = []
    groups = [(m, *group) for m in _methods(runs) for group in runs[runs["method"] == m].groupby("rate")]
    for method, rate, group in groups:
        mine = [by_key[key] for key in group["key"]]
        row = {"method": method_name(method), "rate": f"{rate:g}", "seeds": str(group["seed"].nunique())}
        row |= {f"{name} parameters": f"{mine[0]['parameters'].get(name, 0):,}" for name in trained}
        row[f"last epoch, % {metric}"] = runs_text(group)
        row["majority"] = majority_text(majority_of(runs))
        row |= _cost(mine)
        rows.append(row | _beside_paper(settings_of(mine[0]), group))
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["method", f"last epoch, % {metric}"])
    if any(paper.printed(settings_of(r)) for r in by_key.values()):
        return table
    return table.drop(columns="ours - paper", errors="ignore")  # the column beside says why


def _cost(records: Records) -> dict[str, str]:
    """What runs took on each device that they had: times and memory of two devices are no one mean."""
    of_device: dict[str, list[Any]] = {}
    for r in records:
        of_device.setdefault(r.get("device", {}).get("name", "not recorded"), []).append(r)
    cost: dict[str, list[str]] = {
        name: [] for name in ("device", "seconds per run", "runs in the bank", "bank memory, MB")
    }
    for device, mine in of_device.items():
        banks = [bank for r in mine if (bank := r.get("bank"))]
        peak = max((b.get("peak_memory_bytes") or 0 for b in banks), default=0)
        seconds = [r["seconds"] for r in mine if r.get("seconds") is not None]
        cost["device"].append(device)
        cost["seconds per run"].append(f"{sum(seconds) / len(seconds):.3g}" if seconds else "not recorded")
        cost["runs in the bank"].append(joined(sorted(b["runs"] for b in banks)) or "not recorded")
        cost["bank memory, MB"].append(f"{peak / 1e6:,.0f}" if peak else "not recorded")
    return {name: "; ".join(texts) for name, texts in cost.items()}


def _beside_paper(settings: dict[str, Any], group: pd.DataFrame, prefix: str = "") -> dict[str, str]:
    """The paper's number, and our mean minus it in points; why there is none."""
    gap = paper.difference(settings, 100 * float(finished(group)["final"].mean()))
    none = MISSING if paper.printed(settings) else "not comparable"
    ours = none if gap is None else f"{gap:+.1f}"
    return {f"{prefix}paper, %": paper.column(settings), f"{prefix}ours - paper": ours}


def table3(records: Records, also: Records = ()) -> pd.DataFrame:
    """Table 3: cells x methods, the metric of the last epoch as "mean [low, high]" in percent.

    Columns: model, task, regime, rows, metric, majority, seeds; epochs, with the paper's where it has more; rate, by
    method where they have their own; a column per method, marked where it is not learned. A method with a number in
    the paper for any cell has "<method>: paper, %" and "<method>: ours - paper" (points) too; if none has, one column
    `paper` says why. Where the paper prints numbers of BERT-base for the task and rows of another real model, they
    stand in "paper (BERT-base)". Raises BeftError where a cell has several runs of a method for one seed.

    Records of `also`, such as those of the untuned model, add nothing but the majority of their rows.
    """
    runs = frame(records, also)
    comparisons.one_run_each(runs)
    settings = {r["key"]: settings_of(r) for r in records if r["kind"] == "run"}
    printed = {s["method"] for s in settings.values() if paper.printed(s)}
    rows = []
    for cell, part in comparisons.by_cell(runs):
        row = _place(cell, part) | {"epochs": _epochs(settings[part["key"].iloc[0]], part), "rate": _rates(part)}
        for method in _methods(runs):
            group = part[part["method"] == method]
            row[method_name(method)] = runs_text(group)
            if method in printed:
                # a method that was not run here still has its place in the paper, at this cell's settings
                key = group["key"].iloc[0] if len(group) else part["key"].iloc[0]
                row |= _beside_paper(settings[key] | {"method": method}, group, f"{method_name(method)}: ")
        if not printed:
            row["paper"] = joined(paper.column(settings[key]) for key in part["key"])
        rows.append(row | {ANOTHER: _another_models(settings[part["key"].iloc[0]], part, _methods(runs))})
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*FIXED, "epochs", "rate"])
    # the column stands where there is anything in it
    return table if rows and (table[ANOTHER] != NONE_PRINTED).any() else table.drop(columns=ANOTHER, errors="ignore")


def with_absent(table: pd.DataFrame, absent: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    """A table over cells with a row for each cell that could not be run, and why in a column `reason`."""
    if not absent:
        return table
    rows = [
        dict.fromkeys(table, MISSING)
        | {"model": model_name(a["model"]), "task": task_name(a["task"]), "regime": a["regime"], "reason": a["reason"]}
        for a in absent
    ]
    return pd.concat([table.assign(reason=""), pd.DataFrame(rows)], ignore_index=True)


def _another_models(settings: dict[str, Any], part: pd.DataFrame, methods: Sequence[str]) -> str:
    """The paper's numbers of BERT-base for the task and rows of another model, with its settings."""
    results = paper.beside(settings, bool(part["substitute"].iloc[0]))
    if not results or paper.same_model(settings["model"]):
        return NONE_PRINTED
    percent = {m: x for r in results for m, x in r["percent"].items()}
    numbers = ", ".join(f"{method_name(m)} {percent[m]:.1f}" for m in methods if m in percent)
    return f"{numbers} ({paper_described(results[0])})" if numbers else NONE_PRINTED


def _epochs(settings: Mapping[str, Any], part: pd.DataFrame) -> str:
    """The epochs of a cell; with the paper's for that task, of its model or else BERT-base, where those are more."""
    text, theirs = joined(part["epochs"]), _papers_epochs(settings)
    return f"{text} (paper: {theirs})" if theirs and part["epochs"].min() < theirs else text


def _papers_epochs(settings: Mapping[str, Any]) -> int | None:
    """The paper's epochs for the task of a run, as a classifier or prompted like it; None where it has no such task."""
    if paper.of_own_rows(settings):
        return None
    if settings.get("prompted"):
        prompt = PROMPTS.get(settings["task"])
        return paper.DECODER_EPOCHS if prompt and prompt.suite in tasks.HUB else None
    task = tasks.TASKS.get(settings["task"])
    return task.epochs_for(settings["model"])[0] if task and task.source.startswith(tasks.PAPER) else None


def _rates(part: pd.DataFrame) -> str:
    """The rate of a cell; where methods have their own, by name: "b_k, b_v 0.003; b_q 0.01"."""
    by_rate: dict[float, list[str]] = {}
    for method in _methods(part):
        for rate in part[part["method"] == method]["rate"].unique():
            by_rate.setdefault(float(rate), []).append(method_name(method))
    if len(by_rate) == 1:
        return f"{next(iter(by_rate)):g}"
    return "; ".join(f"{', '.join(names)} {rate:g}" for rate, names in by_rate.items())


def further_metrics(records: Records) -> pd.DataFrame:
    """Metrics beside the one of `table3`, further validation splits too: a row per cell and metric.

    Columns: model, task, regime, rows, metric, majority (of that metric), seeds; a column per method, "mean [low,
    high]" in percent.
    """
    runs = frame(records)
    known = majorities(records)
    best = {r["key"]: majority_in(r, known) for r in records if r["kind"] == "run"}
    kept: dict[str, Any] = {r["key"]: r["final"].get("metrics") or {} for r in records if r["kind"] == "run"}
    methods = _methods(runs)
    rows = []
    for cell, part in comparisons.by_cell(runs):
        names = dict.fromkeys(n for key in part["key"] for n in kept[key])
        for name in [n for n in names if n not in set(part["metric"])]:
            valued = part.assign(
                metric=name,
                value=[kept[key].get(name, np.nan) for key in part["key"]],
                majority=[best[key].get(name, np.nan) for key in part["key"]],
            )
            rows.append(_place(cell, valued) | _scores(valued, methods, "value"))
    return pd.DataFrame(rows, columns=[*FIXED, *map(method_name, methods)])


def named(compared: pd.DataFrame, name: Callable[[str], str] = method_name) -> pd.DataFrame:
    """A frame with columns first and second, with `comparison`: "b_v - b_q"."""
    pairs = zip(compared["first"], compared["second"])
    return compared.assign(comparison=[f"{name(first)} - {name(second)}" for first, second in pairs])


def _text(
    compared: pd.DataFrame,
    labels: Sequence[str],
    p: str = "p",
    scale: float = 100,
    form: str = "+.1f",
    missing: str = MISSING,
) -> pd.DataFrame:
    """The columns `labels`; difference with its interval; p, the smallest possible p, Holm's p."""
    table = compared[list(labels)].copy()
    for name, text in {"model": model_name, "task": task_name}.items():
        if name in table:
            table[name] = table[name].map(text)
    ends = zip(compared["mean"], compared["low"], compared["high"])
    table["difference"] = [interval_text(*values, form, scale, missing) for values in ends]
    for name, column in {"p": p, "smallest possible p": "p_least", "p, Holm": "p_holm"}.items():
        table[name] = [number(value) for value in compared[column]]
    return table


def comparison_table(compared: pd.DataFrame) -> pd.DataFrame:
    """`comparisons.compare`: difference in points with both intervals, p, the smallest possible p, Holm's p.

    In the place of Holm's p stands which of the two methods is not learned, if one is.
    """
    labels = [*CELL, "comparison", "seeds"]
    table = _text(named(compared).assign(seeds=compared["n"]), labels).astype(str)
    why = map(verdict.left_out, compared["not_learned"])
    table["p, Holm"] = [reason or text for reason, text in zip(why, table["p, Holm"])]
    ends = zip(100 * compared["boot_low"], 100 * compared["boot_high"])
    boot = [f"[{low:+.1f}, {high:+.1f}]" if np.isfinite(low) else "fewer than 3 seeds" for low, high in ends]
    table.insert(len(labels) + 1, "bootstrap", boot)
    return table.rename(columns={"difference": "difference, points"})


def over_seeds(
    labels: Sequence[str], compared: pd.DataFrame, scale: float = 100, form: str = "+.1f", missing: str = MISSING
) -> pd.DataFrame:
    """Differences within cells, with the verdict on each in this table (`beft.report.verdict`).

    Columns: `labels`, columns of the frame that name a row; seeds; difference with its 95% Student t interval; p, the
    smallest p that so many seeds allow, Holm's p over the rows; verdict.

    `compared` is as `verdict.over_seeds` takes it; `missing` stands for a difference of no seed.
    """
    judged = verdict.over_seeds(compared).assign(seeds=compared["n"])
    table = _text(judged, [*labels, "seeds"], "p", scale, form, missing)
    return table.assign(verdict=judged["verdict"].replace(MISSING, missing))


def over_tasks(labels: Sequence[str], overall: pd.DataFrame, scale: float = 100, form: str = "+.1f") -> pd.DataFrame:
    """Differences over cells, with the verdict on each in this table.

    Columns: `labels`; "higher in", the cells in which the first is higher, and how many were left out because one of
    the two is not learned; tasks; difference with its 95% interval
    over tasks; p over tasks, the smallest that so many tasks allow, Holm's p over the rows; verdict.
    """
    judged = verdict.over_tasks(overall)
    left_out = judged.get("left_out", pd.Series(0, judged.index))
    higher = [
        f"{n} of {counted(cells, 'cell')}" + (f" ({left} {NOT_LEARNED})" if left else "")
        for n, cells, left in zip(judged["higher"], judged["cells"], left_out)
    ]
    judged = judged.assign(**{"higher in": higher})
    table = _text(judged, [*labels, "higher in", "tasks"], "p_tasks", scale, form)
    return table.assign(verdict=judged["verdict"])


def within(views: Mapping[str, pd.DataFrame], pairs: comparisons.Pairs) -> pd.DataFrame:
    """Every pair of methods in one or more frames of runs of one cell: a row per frame and pair, in points."""
    compared = named(comparisons.compare_views(views, pairs)).rename(columns={"view": "runs"})
    return over_seeds(["runs", "comparison"], compared)


def by_place(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The runs of every cell under its name in words, "sst2, low, MPNet-base", as `within` takes them."""
    cells = comparisons.by_cell(runs)
    return {f"{task_name(c['task'])}, {c['regime']}, {short_name(c['model'])}": part for c, part in cells}


def by_size(runs: pd.DataFrame, methods: Sequence[str] = ("full", "lora"), base: str = "b_v") -> pd.DataFrame:
    """`methods` against `base` at every training size: a row per model, task, size and method, in points."""
    sized = runs.assign(regime=runs["train_size"])
    compared = comparisons.compare(sized, [(m, base) for m in methods], absent=True)
    compared = named(compared.sort_values(["model", "task", "first", "regime"], kind="stable", ignore_index=True))
    return over_seeds(["model", "task", "comparison", "rows"], compared.rename(columns={"regime": "rows"}))


def over_cells(compared: pd.DataFrame) -> pd.DataFrame:
    """Every pair of a frame of `comparisons.compare` over its cells, in points, with the verdict over tasks."""
    return over_tasks(["comparison"], named(comparisons.overall(compared)))
