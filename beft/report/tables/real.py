"""Tables of the real model in notebook 05: what patches leave of its link of occupations and pronouns, and cost."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from .. import verdict
from ..comparisons import difference
from ..dataframes import Records
from ..intervals import LEVEL, cut_interval, mean_interval
from ..names import MISSING, interval_text, mean_text, method_name
from .cells import over_seeds
from .debiasing import in_order

SPREAD, LEANING, FROM_EVEN = "spread over occupations, nats", "leaning of all, nats", "CrowS-Pairs, points from 50%"


def measures(records: Records) -> pd.DataFrame:
    """One row per patch, or per model fine-tuned with one, and one of the model as it is ("none").

    Columns: method, seed, rate, size (numbers in the patch), outcome; spread, spread_low, spread_high and mean of the
    log odds of occupations; "nats <kind>" of held-out text; "crows <type>", in percent, and "n <type>" of pairs;
    accuracy, where a task was learnt. What was not measured is missing.
    """
    rows = []
    for r in records:
        settings, found = r["settings"], r["measures"]
        size = r["patch"].get("size") or r.get("parameters", {}).get("patch", 0)
        row = {"method": settings["method"], "seed": settings.get("seed"), "rate": settings.get("rate")}
        row |= {"size": size, "outcome": r["outcome"]}
        known = {n: v for n, v in found.get("occupations", {}).items() if n not in ("by", "n")}
        row |= known | ({"accuracy": found["accuracy"]} if "accuracy" in found else {})
        row |= {f"nats {kind}": text["nats"] for kind, text in found.get("text", {}).items()}
        for kind, share in found.get("crows", {}).items():
            row |= {f"crows {kind}": share["percent"], f"n {kind}": share["n"]}
        rows.append(row)
    return pd.DataFrame(rows)


def occupations(records: Records) -> pd.DataFrame:
    """The log odds of "she" against "he" of every occupation: one row each, with a column per method, mean over seeds.

    Columns: occupation, and "none" and patches in the order of the tables; rows by what the model as it is says.
    """
    rows = [
        {"method": r["settings"]["method"], "occupation": name, "odds": value}
        for r in records
        for name, value in r["measures"].get("occupations", {}).get("by", {}).items()
    ]
    long = pd.DataFrame(rows, columns=["method", "occupation", "odds"])
    wide = long.pivot_table(index="occupation", columns="method", values="odds", aggfunc="mean", sort=False)
    wide = wide[in_order(wide.columns)].rename_axis(columns=None).reset_index()
    return wide.sort_values("none", ignore_index=True) if "none" in wide else wide


def _starting_with(frame: pd.DataFrame, start: str) -> list[str]:
    """What columns that start so are of."""
    return [name.removeprefix(start) for name in map(str, frame) if name.startswith(start)]


def _own(frame: pd.DataFrame, method: str, column: str) -> pd.Series:
    if column not in frame:
        return pd.Series(dtype=float)
    return frame.loc[(frame["method"] == method) & (frame["outcome"] == "ok"), column].astype(float).dropna()


def patches(frame: pd.DataFrame, total: int) -> pd.DataFrame:
    """Every patch with its size, what it leaves of the link, and what it costs.

    Columns: patch; rate; numbers in it, and their share of the model's `total`; spread and mean of the log odds; loss
    per held-out token of every kind, in nats; CrowS-Pairs over all types, in percent. Means over seeds with 95% Student
    t intervals; without a patch there are no seeds, and the spread has its interval over occupations.
    """
    rows = []
    for method in in_order(frame["method"]):
        own = frame[frame["method"] == method]
        lost = int((own["outcome"] != "ok").sum())
        size = int(own["size"].max())
        row: dict[str, Any] = {"patch": method_name(method) + (f" ({lost} of {len(own)} seeds lost)" if lost else "")}
        row["rate"] = " / ".join(f"{rate:g}" for rate in dict.fromkeys(own["rate"].dropna())) or "-"
        row |= {"numbers": size, "of the model, %": f"{100 * size / total:.3g}"}
        row["spread, nats"] = _spread(frame, method)
        row["mean, nats"] = mean_text(mean_interval(_own(frame, method, "mean")), "+.2f")
        for kind in _starting_with(frame, "nats "):
            row[f"{kind}: nats per token"] = mean_text(mean_interval(_own(frame, method, f"nats {kind}")), ".3f")
        row["CrowS-Pairs, %"] = _share(frame, method, "all")
        rows.append(row)
    return pd.DataFrame(rows)


def _spread(frame: pd.DataFrame, method: str) -> str:
    if method == "none":
        own = frame[frame["method"] == "none"].iloc[0]
        return interval_text(own["spread"], own["spread_low"], own["spread_high"], ".2f", 1)
    return mean_text(mean_interval(_own(frame, method, "spread")), ".2f")


def wilson(share: float, n: float) -> tuple[float, float]:
    """The Wilson 95% interval (low, high) of a share in [0, 1] of n things; it never leaves [0, 1]."""
    z = stats.norm.ppf((1 + LEVEL) / 2)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def _share(frame: pd.DataFrame, method: str, kind: str) -> str:
    """A share of pairs, mean over seeds, with the Wilson interval of so many pairs: seeds score the same ones."""
    own, counts = _own(frame, method, f"crows {kind}"), _own(frame, method, f"n {kind}")
    if not len(own) or not counts.iloc[0]:
        return MISSING
    mean = float(own.mean())
    low, high = wilson(mean / 100, float(counts.iloc[0]))
    return interval_text(mean, 100 * low, 100 * high, ".1f", 1)


def crows(frame: pd.DataFrame) -> pd.DataFrame:
    """CrowS-Pairs by type of bias: in which share of pairs the more stereotyped sentence is likelier, in percent.

    Columns: type, pairs, and one per patch: mean over seeds with the Wilson 95% interval over pairs.
    """
    methods, rows = in_order(frame["method"]), []
    for kind in _starting_with(frame, "crows "):
        row: dict[str, Any] = {"type": kind, "pairs": int(frame[f"n {kind}"].max())}
        rows.append(row | {method_name(m): _share(frame, m, kind) for m in methods})
    return pd.DataFrame(rows, columns=["type", "pairs", *map(method_name, methods)])


def removed(odds: pd.DataFrame) -> pd.DataFrame:
    """Whether a patch brings occupations nearer to each other, over occupations.

    `odds` of `occupations`: the means over seeds. An occupation's distance is that of its log odds from the mean of
    all. Columns: patch; occupations; distance before and after, means in nats; their difference with its 95% Student t
    interval over occupations; share of them that came nearer; Holm's p over the rows; verdict, "ahead" if nearer.
    """
    if "none" not in odds:
        return pd.DataFrame(columns=["patch", "verdict"])
    values = odds.drop(columns="occupation")
    apart = (values - values.mean()).abs()
    rows = []
    for method in in_order(map(str, values), untouched=False):
        change = (apart[method] - apart["none"]).round(9)  # what rounding leaves is no change
        row = {"patch": method_name(method), "before": apart["none"].mean(), "after": apart[method].mean()}
        rows.append(row | {"nearer": float((change < 0).mean()), "lower": True} | difference(change))
    columns = ["patch", "before", "after", "nearer", "lower", *difference([])]
    judged = verdict.over_occupations(pd.DataFrame(rows, columns=columns))
    intervals = zip(judged["mean"], judged["low"], judged["high"], strict=True)
    told = [interval_text(*three, "+.2f", 1) for three in intervals]
    table = judged[["patch"]].assign(occupations=judged["n"])
    table["before, nats"], table["after, nats"] = (
        judged["before"].map("{:.2f}".format),
        judged["after"].map("{:.2f}".format),
    )
    table["difference"], table["nearer"] = told, judged["nearer"].map("{:.0%}".format)
    table["p, Holm"] = judged["p_holm"].map("{:.2g}".format)
    return table.assign(verdict=judged["verdict"])


def changes(frame: pd.DataFrame) -> pd.DataFrame:
    """What every patch changes of the model as it is, wanted or not, by seed.

    A row per patch and measure. Columns: patch; measure; before and after, means; then those of `cells.over_seeds`,
    after minus before. "ahead": a smaller spread or leaning, a smaller loss, a share of pairs nearer to 50%.
    """
    before = frame[frame["method"] == "none"].iloc[0]
    rows = []
    for method in in_order(frame["method"], untouched=False):
        for name, start, own in _compared(frame, method, before):
            row = {"patch": method_name(method), "measure": name, "lower": True}
            row |= {"before": f"{start:.3f}", "after": mean_text(mean_interval(own), ".3f", 1, MISSING).split(" ")[0]}
            rows.append(row | difference(own - start))
    return _judged(["patch", "measure", "before", "after"], rows, "+.3f")


def _compared(frame: pd.DataFrame, method: str, before: Any) -> Iterator[tuple[str, float, pd.Series]]:
    """(measure, its value without the patch, its values by seed with it); each is better the smaller it is."""
    yield SPREAD, float(before["spread"]), _own(frame, method, "spread")
    yield LEANING, abs(float(before["mean"])), _own(frame, method, "mean").abs()
    for kind in _starting_with(frame, "nats "):
        yield f"{kind}, nats per token", float(before[f"nats {kind}"]), _own(frame, method, f"nats {kind}")
    if "crows all" in frame:
        yield FROM_EVEN, abs(float(before["crows all"]) - 50), (_own(frame, method, "crows all") - 50).abs()


def _judged(labels: Sequence[str], rows: Sequence[Mapping[str, Any]], form: str) -> pd.DataFrame:
    return over_seeds(labels, pd.DataFrame(rows, columns=[*labels, "lower", *difference([])]), 1, form)


def after(tuned: pd.DataFrame, task: str) -> pd.DataFrame:
    """What is left after fine-tuning on a task with each patch frozen, against plain fine-tuning with the same seeds.

    A row per patch and measure (accuracy on `task` in points, spread, CrowS-Pairs). Columns: patch; measure; with it
    and without, means with intervals; then those of `cells.over_seeds`, with minus without.
    """
    rows = []
    for method in in_order(tuned["method"], untouched=False):
        for name, column, scale, lower in (
            (f"accuracy on {task}, points", "accuracy", 100, False),
            (SPREAD, "spread", 1, True),
            (FROM_EVEN, "from even", 1, True),
        ):
            values = {n: _by_seed(tuned, m, column) for n, m in (("with", method), ("without", "none"))}
            if not len(values["without"]):
                continue
            row = {"patch": method_name(method), "measure": name, "lower": lower}
            row |= {n: mean_text(cut_interval(x, column), ".2f", scale, MISSING) for n, x in values.items()}
            rows.append(row | difference((scale * values["with"] - scale * values["without"]).dropna()))
    return _judged(["patch", "measure", "with", "without"], rows, "+.2f")


def _by_seed(tuned: pd.DataFrame, method: str, column: str) -> pd.Series:
    frame = tuned.assign(**{"from even": (tuned["crows all"] - 50).abs()}) if "crows all" in tuned else tuned
    own = _own(frame, method, column)
    return own.set_axis(tuned.loc[own.index, "seed"])
