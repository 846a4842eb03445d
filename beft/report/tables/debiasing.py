"""Tables of debiasing: PEFTDebias' Tables 1 and 2 beside its printed numbers, rates, axes and the planted link.

What patches change, in the language model and after fine-tuning, comes with the verdict.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ... import paper
from ..comparisons import difference
from ..dataframes import Records
from ..intervals import Interval, cut_interval, mean_interval, paired_differences
from ..names import MISSING, mean_text, method_name, number
from .cells import over_seeds

ORDER = ("none", "full", "adapter", "prompt", "prefix", "lora", "sparse", "all_biases", "b_q", "b_k", "b_v")
PRINTED = "paper (BERT-base)"
NOT_MEASURED = "not measured"
RAW = ("fprd", "fprd iptts", "fraction neutral")  # printed as they are, and not x 100
# What rounding leaves is no change: nats are sums in float32, good to 1e-6; shares of predictions are good to 1e-15.
NATS_DIGITS, POINTS_DIGITS = 5, 9
DOWNSTREAM = {  # set -> (its task's name in the micro-world, measures of ours in the order of the printed columns)
    "biasbios": ("BiasBios", ("accuracy", "gap gender")),
    "ghc": ("GHC", ("f1", "fprd", "fprd iptts")),
    "biasbios_to_mnli": ("MNLI", ("accuracy", "fraction neutral")),
}


def in_order(methods: Iterable[str], untouched: bool = True) -> list[str]:
    """The methods in the order of the tables; without "none" where not `untouched`."""
    present = set(methods)
    return [m for m in ORDER if m in present and (untouched or m != "none")]


def upstream(records: Records) -> pd.DataFrame:
    """One row per patch, and one of the untouched model ("none").

    Columns: axis (of the patch), method, seed, size (numbers in it), outcome, and for every axis that is measured
    "crows <axis>" (percent), "nats <axis>", "lm <axis>", "stereotype <axis>".
    """
    rows = []
    for r in records:
        row = {"axis": r["settings"].get("axis", "none"), "method": r["settings"]["method"]}
        row |= {"seed": r["settings"].get("seed"), "size": r["parameters"].get("patch", 0), "outcome": r["outcome"]}
        for axis, crows in r["measures"].get("crows", {}).items():
            row |= {f"crows {axis}": crows["percent"], f"nats {axis}": crows["nats"]}
        for axis, stereoset in r["measures"].get("stereoset", {}).items():
            row |= {f"lm {axis}": stereoset["lm"], f"stereotype {axis}": stereoset["stereotype"]}
        rows.append(row)
    return pd.DataFrame(rows)


def downstream(records: Records, patches: Records = ()) -> pd.DataFrame:
    """One row per fine-tuned model: method (of its patch), seed, size, outcome, and every measure by its name.

    `patches` are the records of the patches that the models were to have: no model was fine-tuned with one that
    diverged (`debias.setup.patched`), which has a row without measures, so that it is counted.
    """
    rows = []
    for r in [r for r in patches if r["outcome"] != "ok"]:
        row = {"method": r["settings"]["method"], "seed": r["settings"]["seed"]}
        rows.append(row | {"size": 0, "outcome": r["outcome"]})
    for r in records:
        row = {"method": r["settings"]["method"], "seed": r["settings"]["seed"]}
        rows.append(row | {"size": r["patch"].get("size", 0), "outcome": r["outcome"], **r["measures"]})
    return pd.DataFrame(rows)


def interval(frame: pd.DataFrame, method: str, measure: str) -> Interval:
    """Mean over seeds of one measure of one method, with its 95% Student t interval; of n = 0 where undefined."""
    return cut_interval(frame[frame["method"] == method][measure] if measure in frame else [], measure)


def _cell(frame: pd.DataFrame, method: str, measure: str, form: str, scale: float = 1) -> str:
    """A mean with its interval; of how many seeds, where some have no value; that all are lost, where they are."""
    mean, outcomes = interval(frame, method, measure), frame[frame["method"] == method]["outcome"]
    count = len(outcomes)
    if count and (outcomes != "ok").all():
        return f"{count} of {count} seeds lost"
    lost = f" ({mean.n} of {count} seeds)" if 0 < mean.n < count else ""
    return mean_text(mean, form, scale) + lost


def measured(frame: pd.DataFrame) -> list[str]:
    """The axes that a frame of `upstream` has measures of."""
    return [name.partition(" ")[2] for name in map(str, frame) if name.startswith("nats ")]


def table1(frame: pd.DataFrame, axis: str, total: int, why: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Table 1: patches of an axis x intrinsic measures of every axis, mean and interval over seeds.

    Columns: patch; numbers in it, and their share of the model; for every measured axis StereoSet's LM score and
    stereotype score, the CrowS-Pairs share (percent) and by how much the stereotype is likelier (nats); the paper's
    numbers of patches against gender where `axis` is gender. Its patches against race, measured on race, have no like
    here.

    `frame` is of `upstream`, `total` the numbers of the model, `why` says of a measure why there is none of it.
    """
    own = frame[frame["axis"].isin(("none", axis))]
    names = measured(own)
    printed, rows = paper.data()["peftdebias"]["upstream"], []
    heads = {"StereoSet LM": ("lm", ".1f"), "StereoSet score": ("stereotype", ".1f")}
    heads |= {"CrowS-Pairs, %": ("crows", ".1f"), "nats": ("nats", ".2f")}
    for method in in_order({*own["method"], *printed["gender_biasbios"]}):
        part = own[own["method"] == method]
        size = int(part["size"].max()) if len(part) else 0  # of a run that diverged it is 0
        row: dict[str, Any] = {"patch": method_name(method), "numbers": size}
        row["of the model, %"] = f"{100 * size / total:.3g}"
        for name, (head, (column, form)) in itertools.product(names, heads.items()):
            row[f"{head}: {name}"] = _cell(own, method, f"{column} {name}", form)
        if not len(part):
            row |= dict.fromkeys(list(row)[1:], MISSING)
        row |= why or {}
        if axis == "gender":
            values = printed["gender_biasbios"].get(method, ("not printed",) * 3)
            row |= {f"{PRINTED}, {head}: {axis}": str(v) for head, v in zip(heads, values)}
        rows.append(row)
    return pd.DataFrame(rows)


def table2(frames: Mapping[str, pd.DataFrame], why: Mapping[str, str]) -> pd.DataFrame:
    """Table 2: patches x measures of every task after fine-tuning, scaled as printed; mean and interval over seeds.

    Of a printed set ("biasbios", "ghc", "biasbios_to_mnli"), `frames` has the frame of `downstream` that stands in it,
    or `why` says why it was not run. A patch that lost seeds says of how many its mean is: "(2 of 3 seeds)".
    """
    printed = paper.data()["peftdebias"]["downstream"]
    present = {m for frame in frames.values() for m in frame["method"]} | set(printed["biasbios"])
    rows = []
    for method in in_order(present):
        row: dict[str, Any] = {"patch": method_name(method)}
        for name, (title, measures) in DOWNSTREAM.items():
            frame = frames.get(name)
            gaps = [] if frame is None else [c for c in map(str, frame) if c.startswith("gap ")]
            for measure in dict.fromkeys((*measures, *gaps)):
                scale = 1 if measure in RAW else 100
                head = f"{title}-like: {measure}" + (", x 100" if scale == 100 else "")
                if frame is None:
                    row[head] = why[name]
                elif method in set(frame["method"]):
                    row[head] = _cell(frame, method, measure, ".1f" if scale == 100 else ".2f", scale)
                else:
                    row[head] = MISSING if name == "biasbios" else f"{MISSING}: not carried over"
            heads = [f"{PRINTED}, {title}: {column}" for column in printed[name]["columns"]]
            values = printed[name].get(method, ("not printed",) * len(measures))
            row |= dict(zip(heads, map(str, values), strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def rates_tried(records: Records, used: Mapping[str, float]) -> pd.DataFrame:
    """The rates that patches were tried at, and their loss on text that is held out, of both sides.

    Columns: patch, rate, seeds; held-out (loss per masked token, in nats, mean over seeds, NaN if a seed diverged),
    with its 95% Student t interval in `text`; best (the lowest of its patch) and used (the rate of the tables).
    """

    def place(r: Mapping[str, Any]) -> tuple[int, float]:
        return ORDER.index(r["settings"]["method"]), r["settings"]["rate"]

    rows = []
    for (n, rate), group in itertools.groupby(sorted(records, key=place), place):
        here = list(group)
        lost = sum(r["outcome"] != "ok" for r in here)
        losses = [] if lost else [r["measures"].get("held-out nats") for r in here]
        mean = mean_interval(losses if None not in losses else [])  # older records have none
        text = f"{lost} of {len(here)} seeds lost" if lost else mean_text(mean, ".3f")
        rows.append((ORDER[n], rate, len(here), mean.mean, text, rate == used.get(ORDER[n])))
    frame = pd.DataFrame(rows, columns=["patch", "rate", "seeds", "held-out", "text", "used"])
    frame["best"] = frame["held-out"] == frame.groupby("patch")["held-out"].transform("min")
    return frame


def rates_table(tried: pd.DataFrame) -> pd.DataFrame:
    """A frame of `rates_tried` as a table: patch, rate, seeds, held-out loss in nats, whether best and used."""
    table = tried.assign(patch=tried["patch"].map(method_name), rate=tried["rate"].map("{:g}".format))
    marks = {name: tried[name].map({True: "yes", False: ""}) for name in ("best", "used")}
    table = table.rename(columns={"text": "held-out loss, nats"}).assign(**marks)
    return table[["patch", "rate", "seeds", "held-out loss, nats", *marks]]


def rates_chosen(tried: pd.DataFrame) -> pd.DataFrame:
    """Of a frame of `rates_tried`: per patch the best rate, the one the tables use, and where the best lies.

    Columns: patch; best ("every rate lost a seed" where none is); used; "used is best"; "best at an end" of the rates
    tried, where a rate beyond them may be better.
    """
    rows = []
    for method, own in tried.groupby("patch", sort=False):
        best, used = own.loc[own["best"], "rate"], own.loc[own["used"], "rate"]
        row = {"patch": method_name(str(method))}
        row["best"] = f"{best.iloc[0]:g}" if len(best) else "every rate lost a seed"
        row["used"] = f"{used.iloc[0]:g}" if len(used) else "another"
        row["used is best"] = "yes" if set(used) & set(best) else "no"
        row["best at an end"] = "yes" if {own["rate"].min(), own["rate"].max()} & set(best) else "no"
        rows.append(row)
    return pd.DataFrame(rows, columns=["patch", "best", "used", "used is best", "best at an end"])


def specificity(frame: pd.DataFrame) -> pd.DataFrame:
    """What a patch of one axis does to another: patches x axes that are measured, in nats, mean and interval."""
    names = measured(frame)
    rows = []
    for axis, part in frame.groupby("axis", sort=False):
        for method in in_order(part["method"]):
            row = {"patch": method_name(method), "trained against": axis if axis != "none" else "nothing"}
            rows.append(row | {f"nats: {n}": mean_text(interval(part, method, f"nats {n}")) for n in names})
    return pd.DataFrame(rows)


def side_effects(frame: pd.DataFrame) -> pd.DataFrame:
    """What each patch does to the links that it was not trained against: a row per patch and other axis.

    Columns: patch; trained against; link of; its size in nats before and after, means over seeds; then those of
    `cells.over_seeds` for the size with the patch minus without. "ahead": that link is smaller too.
    """
    rows = []
    for trained, part in frame[frame["axis"] != "none"].groupby("axis", sort=False):
        for method, other in itertools.product(in_order(part["method"]), measured(frame)):
            if other == trained:
                continue
            before = abs(interval(frame, "none", f"nats {other}").mean)
            after = part[part["method"] == method].set_index("seed")[f"nats {other}"].dropna().abs()
            row = {"patch": method_name(method), "trained against": trained, "link of": other, "lower": True}
            row |= {"before, nats": f"{before:.2f}", "after, nats": number(after.mean(), ".2f", MISSING)}
            rows.append(row | _rounded(after - before, NATS_DIGITS))
    labels = ["patch", "trained against", "link of", "before, nats", "after, nats"]
    return _judged(labels, rows, "+.2f", MISSING)


def planted(frames: Mapping[float, pd.DataFrame], expected: Mapping[float, float]) -> pd.DataFrame:
    """The link that is planted, the best classifier's TPR gap, and the measured one: a row per strength."""
    rows = []
    for strength, frame in frames.items():
        gap, accuracy = interval(frame, "none", "gap gender"), interval(frame, "none", "accuracy")
        numbers = f"{100 * expected[strength]:.1f}", mean_text(gap, ".1f", 100), mean_text(accuracy, ".1f", 100)
        rows.append((f"{strength:g}", *numbers))
    columns = ("strength", "best classifier's gap, x 100", "measured gap, x 100", "accuracy, x 100")
    return pd.DataFrame(rows, columns=columns)


def removed(patches: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Of every patch against an axis, what it leaves of the language model's link.

    Columns: patch; numbers; link left, in nats, and removed, in percent, means over seeds with intervals (what
    overshoots zero has brought some of the link back); then those of `cells.over_seeds` for the size of the link
    in nats, with the patch minus without. "ahead": the patch leaves a smaller link.
    """
    rows = [_link(patches, axis, method) for method in in_order(patches.loc[patches["axis"] == axis, "method"])]
    labels = ["patch", "numbers", "link left, nats", "removed"]
    return _judged(labels, rows, "+.2f", _missing(patches, f"nats {axis}"))


def after(tuned: pd.DataFrame, axis: str) -> pd.DataFrame:
    """What every patch changes after fine-tuning, against plain fine-tuning with the same seeds.

    A row per patch and measure, the TPR gap and the accuracy, in points: with the patch minus without. "ahead": a
    smaller gap, a higher accuracy.
    """
    methods = in_order(tuned["method"], untouched=False)
    rows = [_change(tuned, m, measure) for m in methods for measure in (f"gap {axis}", "accuracy")]
    return _judged(["patch", "measure"], rows, "+.1f", _missing(tuned, f"gap {axis}"))


def works(patches: pd.DataFrame, tuned: pd.DataFrame, axis: str, methods: Sequence[str]) -> pd.DataFrame:
    """Whether small patches debias, in the language model and after fine-tuning: two rows per patch.

    Columns: patch; numbers, and their share of the adapter's; "more removed by", the patches that remove more of the
    link on average; measure; then those of `cells.over_seeds`, as in `removed` (nats) and `after` (points).
    """
    shares = {m: _share(patches, axis, m).mean() for m in in_order(patches.loc[patches["axis"] == axis, "method"])}
    sizes = patches[patches["axis"] == axis].groupby("method")["size"].max()
    rows = []
    for method in methods:
        row = _link(patches, axis, method)
        row["of the adapter"] = number(sizes.get(method, np.nan) / sizes.get("adapter", np.nan), ".2%", MISSING)
        more = [m for m in sorted(shares, key=lambda m: -shares[m]) if shares[m] > shares.get(method, np.nan)]
        row["more removed by"] = ", ".join(map(method_name, more)) or ("none" if method in shares else MISSING)
        rows += [row, row | _change(tuned, method, f"gap {axis}")]
    labels = ["patch", "numbers", "of the adapter", "more removed by", "measure"]
    return _judged(labels, rows, "+.2f", _missing(patches, f"nats {axis}"))


def _judged(labels: Sequence[str], rows: Sequence[Mapping[str, Any]], form: str, missing: str) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=[*labels, "lower", *difference([])])
    return over_seeds(labels, table, 1, form, missing)


def _missing(frame: pd.DataFrame, measure: str) -> str:
    """What stands for a difference that is not there: no run, or no such measure."""
    return MISSING if measure in frame and frame[measure].notna().any() else NOT_MEASURED


def _share(patches: pd.DataFrame, axis: str, method: str) -> pd.Series:
    """The share of the untouched model's link that a patch takes away, by seed; empty where it is not measured."""
    before = interval(patches, "none", f"nats {axis}")
    left = (
        patches.query("axis == @axis and method == @method").get(f"nats {axis}", pd.Series(dtype=float)).dropna().abs()
    )
    return 1 - left / abs(before.mean) if before.n else left.head(0)


def _link(patches: pd.DataFrame, axis: str, method: str) -> dict[str, Any]:
    """What a patch leaves and removes of the link, and the change of the link's size by seed, in nats."""
    own = patches.query("axis == @axis and method == @method")
    share = _share(patches, axis, method)
    missing = _missing(patches, f"nats {axis}") if len(own) else MISSING
    row = {"patch": method_name(method), "measure": "link in the language model, nats", "lower": True}
    row["numbers"] = f"{int(own['size'].max()):,}" if len(own) else MISSING
    row["link left, nats"] = mean_text(interval(own, method, f"nats {axis}"), ".2f", 1, missing)
    row["removed"] = mean_text(mean_interval(share), "z.0%", 1, missing)
    return row | _rounded(-abs(interval(patches, "none", f"nats {axis}").mean) * share, NATS_DIGITS)


def _change(tuned: pd.DataFrame, method: str, measure: str) -> dict[str, Any]:
    """A measure after fine-tuning with a patch minus without, by seed, in points."""
    lower = measure != "accuracy"
    row = {"patch": method_name(method), "measure": "TPR gap, points" if lower else "accuracy, points"}
    known = paired_differences(tuned, method, "none", measure) if measure in tuned else pd.Series(dtype=float)
    return row | {"lower": lower} | _rounded(100 * known, POINTS_DIGITS)


def _rounded(changes: pd.Series, digits: int) -> dict[str, Any]:
    """`comparisons.difference` of changes by seed; without rounding a patch that changes nothing has the smallest p."""
    return difference(changes.round(digits) + 0.0)  # no minus zero
