"""PEFTDebias' Tables 1 and 2 in their layout, with its printed numbers in columns of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ... import paper
from .. import intervals as statistics
from ..intervals import Interval
from ..readings import MISSING, method_name

Records = Sequence[Mapping[str, Any]]
ORDER = ("none", "full", "adapter", "prompt", "lora", "sparse", "all_biases", "b_k", "b_q", "b_v")
PRINTED = "paper (BERT-base)"
RAW = ("fprd", "fprd iptts", "fraction neutral")  # printed as they are, and not x 100
DOWNSTREAM = {  # set -> (its task's name in the micro-world, measures of ours in the order of the printed columns)
    "biasbios": ("BiasBios", ("accuracy", "gap gender")),
    "ghc": ("GHC", ("f1", "fprd", "fprd iptts")),
    "biasbios_to_mnli": ("MNLI", ("accuracy", "fraction neutral")),
}


def upstream(records: Records) -> pd.DataFrame:
    """One row per patch, and one of the untouched model ("none").

    Columns: axis (of the patch), method, seed, size (numbers in it), outcome, and for every axis that is measured
    "crows <axis>" (percent), "nats <axis>", "lm <axis>", "stereotype <axis>".
    """
    rows = []
    for r in records:
        row = {"axis": r["settings"].get("axis", "none"), "method": r["settings"]["method"]}
        row |= {
            "seed": r["settings"].get("seed"),
            "size": r["parameters"].get("patch", 0),
            "outcome": r["outcome"],
        }
        for name, found in r["measures"].get("crows", {}).items():
            row |= {f"crows {name}": found["percent"], f"nats {name}": found["nats"]}
        for name, found in r["measures"].get("stereoset", {}).items():
            row |= {f"lm {name}": found["lm"], f"stereotype {name}": found["stereotype"]}
        rows.append(row)
    return pd.DataFrame(rows)


def downstream(records: Records) -> pd.DataFrame:
    """One row per fine-tuned model: method (of its patch), seed, size, outcome, and every measure by its name."""
    return pd.DataFrame(
        [
            {
                "method": r["settings"]["method"],
                "seed": r["settings"]["seed"],
                "size": r["patch"].get("size", 0),
                "outcome": r["outcome"],
                **r["measures"],
            }
            for r in records
        ]
    )


def interval(frame: pd.DataFrame, method: str, measure: str) -> Interval:
    """Mean over seeds of one measure of one method, with its 95% Student t interval; of n = 0 where undefined."""
    if measure not in frame:
        return statistics.mean_interval([])
    return statistics.mean_interval(frame[frame["method"] == method][measure])


def _scaled(found: Interval, scale: float) -> str:
    """A mean with its interval, x 100 with one digit or as it is with two."""
    values = statistics.Interval(scale * found.mean, scale * found.low, scale * found.high, found.n)
    return said(values, "{:.1f}" if scale == 100 else "{:.2f}")


def _lost(found: Interval, part: pd.DataFrame) -> str:
    """How many seeds a mean is of, where some have none."""
    return f" ({found.n} of {len(part)} seeds)" if 0 < found.n < len(part) else ""


def measured(frame: pd.DataFrame) -> list[str]:
    """The axes that a frame of `upstream` has measures of."""
    return [name.partition(" ")[2] for name in map(str, frame) if name.startswith("nats ")]


def said(found: Interval, form: str = "{:.2f}") -> str:
    """A mean with its interval; "undefined" without a value."""
    if found.n == 0:
        return "undefined"
    if found.n == 1:
        return form.format(found.mean)
    return f"{form.format(found.mean)} [{form.format(found.low)}, {form.format(found.high)}]"


def table1(frame: pd.DataFrame, axis: str, total: int, why: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Table 1: patches of an axis x intrinsic measures of every axis, mean and interval over seeds.

    Columns: patch; numbers in it, and their share of the model; for every measured axis StereoSet's LM score and
    stereotype score, the CrowS-Pairs share (percent) and by how much the stereotype is likelier (nats); the printed
    numbers for gender and race.

    Args:
        frame: of `upstream`.
        axis: of the patches.
        total: numbers of the model.
        why: measure -> why there is none of it.
    """
    own = frame[frame["axis"].isin(("none", axis))]
    names = measured(own)
    printed, rows = paper.data()["peftdebias"]["upstream"], []
    for method in _shown(own, printed["gender_biasbios"]):
        part = own[own["method"] == method]
        size = int(part["size"].max()) if len(part) else 0  # of a run that diverged it is 0
        row: dict[str, Any] = {"patch": method_name(method), "numbers": size if len(part) else MISSING}
        row["of the model, %"] = f"{100 * size / total:.3g}" if len(part) else MISSING
        for name in names:
            cells = {"StereoSet LM": "lm", "StereoSet score": "stereotype", "CrowS-Pairs, %": "crows"}
            for head, column in cells.items():
                found = interval(own, method, f"{column} {name}")
                row[f"{head}: {name}"] = said(found, "{:.1f}") + _lost(found, part) if len(part) else MISSING
            found = interval(own, method, f"nats {name}")
            row[f"nats: {name}"] = said(found) + _lost(found, part) if len(part) else MISSING
        for measure, reason in (why or {}).items():
            row[measure] = reason
        for name, source in (("gender", "gender_biasbios"), ("race", "race_ghc")):
            values = printed[source].get(method, ("not printed",) * 3)
            heads = ("StereoSet LM", "StereoSet score", "CrowS-Pairs, %")
            row |= {f"{PRINTED}, {head}: {name}": str(v) for head, v in zip(heads, values, strict=True)}
        rows.append(row)
    return pd.DataFrame(rows)


def table2(frames: Mapping[str, pd.DataFrame], why: Mapping[str, str]) -> pd.DataFrame:
    """Table 2: patches x measures of every task after fine-tuning, scaled as printed; mean and interval over seeds.

    Args:
        frames: printed set ("biasbios", "ghc", "biasbios_to_mnli") -> the frame of `downstream` that stands in it.
        why: printed set -> why it was not run.
    """
    printed = paper.data()["peftdebias"]["downstream"]
    methods = [
        m for m in ORDER if any(m in set(f["method"]) for f in frames.values()) or m in printed["biasbios"]
    ]
    rows = []
    for method in methods:
        row: dict[str, Any] = {"patch": method_name(method)}
        for name, (title, measures) in DOWNSTREAM.items():
            frame = frames.get(name)
            further = (
                []
                if frame is None
                else [c for c in map(str, frame) if c.startswith("gap ") and c not in measures]
            )
            for measure in (*measures, *further):
                scale = 1 if measure in RAW else 100
                head = f"{title}-like: {measure}" + (", x 100" if scale == 100 else "")
                if frame is None:
                    row[head] = why[name]
                elif method not in set(frame["method"]):
                    row[head] = MISSING if name == "biasbios" else f"{MISSING}: not carried over"
                else:
                    found = interval(frame, method, measure)
                    row[head] = _scaled(found, scale) + _lost(found, frame[frame["method"] == method])
            values = printed[name].get(method, ("not printed",) * len(measures))
            row |= {
                f"{PRINTED}, {title}: {c}": str(v)
                for c, v in zip(printed[name]["columns"], values, strict=True)
            }
        rows.append(row)
    return pd.DataFrame(rows)


def rates_tried(records: Records, used: Mapping[str, float]) -> pd.DataFrame:
    """The rates that patches were tried at, and their loss on text that is held out, of both sides.

    Columns: patch, rate, seeds; held-out (loss per token told, in nats, mean over seeds, NaN if a seed diverged), with
    its 95% Student t interval in `told`; best (the lowest of its patch) and used (the rate of the tables).
    """
    rows = []
    for method in [m for m in ORDER if any(r["settings"]["method"] == m for r in records)]:
        own = [r for r in records if r["settings"]["method"] == method]
        for rate in sorted({r["settings"]["rate"] for r in own}):
            here = [r for r in own if r["settings"]["rate"] == rate]
            lost = sum(r["outcome"] != "ok" for r in here)
            kept = [] if lost else [r["measures"].get("held-out nats") for r in here]
            found = statistics.mean_interval(kept if None not in kept else [])  # older records have none
            told = f"{lost} of {len(here)} seeds lost" if lost else said(found, "{:.3f}")
            rows.append((method, rate, len(here), found.mean, told, rate == used.get(method)))
    frame = pd.DataFrame(rows, columns=["patch", "rate", "seeds", "held-out", "told", "used"])
    frame["best"] = frame["held-out"] == frame.groupby("patch")["held-out"].transform("min")
    return frame


def rates_told(tried: pd.DataFrame) -> pd.DataFrame:
    """A frame of `rates_tried` as a table: patch, rate, seeds, held-out loss in nats, whether best and used."""
    shown = {
        "patch": tried["patch"].map(method_name),
        "rate": tried["rate"].map("{:g}".format),
        "seeds": tried["seeds"],
        "held-out loss, nats": tried["told"],
        "best": tried["best"].map({True: "yes", False: ""}),
        "used": tried["used"].map({True: "yes", False: ""}),
    }
    return pd.DataFrame(shown)


def specificity(frame: pd.DataFrame) -> pd.DataFrame:
    """What a patch of one axis does to another: patches x axes that are measured, in nats, mean and interval."""
    names = measured(frame)
    rows = []
    for axis, part in frame.groupby("axis", sort=False):
        for method in [m for m in ORDER if m in set(part["method"])]:
            row = {"patch": method_name(method), "trained against": axis if axis != "none" else "nothing"}
            rows.append(row | {f"nats: {n}": said(interval(part, method, f"nats {n}")) for n in names})
    return pd.DataFrame(rows)


def planted(frames: Mapping[float, pd.DataFrame], expected: Mapping[float, float]) -> pd.DataFrame:
    """The link that is planted, the best classifier's TPR gap, and the measured one: a row per strength."""
    heads = ("strength", "best classifier's gap, x 100", "measured gap, x 100", "accuracy, x 100")
    rows = []
    for strength, frame in frames.items():
        found = interval(frame, "none", "gap gender")
        inside = "yes" if found.low <= expected[strength] <= found.high else "no"
        if found.n < 2 or not np.isfinite(expected[strength]):
            inside = "undefined" if found.n != 1 else "no interval of one seed"
        cells = f"{strength:g}", f"{100 * expected[strength]:.1f}", _scaled(found, 100)
        rows.append([*cells, _scaled(interval(frame, "none", "accuracy"), 100), inside])
    return pd.DataFrame(rows, columns=[*heads, "expected is in the interval"])


def _shown(frame: pd.DataFrame, printed: Mapping[str, Any]) -> list[str]:
    return [m for m in ORDER if m in set(frame["method"]) or m in printed]
