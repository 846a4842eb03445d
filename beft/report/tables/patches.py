"""What the patches of debiasing change, with the verdict: in the language model, and after fine-tuning.

Frames of `debiasing.upstream` (patches) and `debiasing.downstream` (tuned) in.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..comparisons import difference
from ..intervals import Interval, mean_interval, paired_differences
from ..names import MISSING, interval_text, method_name, number
from .debiasing import ORDER, interval
from .differences import over_seeds

NOT_MEASURED = "not measured"


def removed(patches: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Of every patch against an axis, what it leaves of the language model's link.

    Columns: patch; numbers; link left, in nats, and removed, in percent, means over seeds with intervals (what
    overshoots zero has brought some of the link back); then those of `differences.over_seeds` for the size of the link
    in nats, with the patch minus without. "ahead": the patch leaves a smaller link.
    """
    rows = [_link(patches, axis, method) for method in _trained(patches, axis)]
    labels = ["patch", "numbers", "link left, nats", "removed"]
    return _judged(labels, rows, "+.2f", _missing(patches, f"nats {axis}"))


def after(tuned: pd.DataFrame, axis: str) -> pd.DataFrame:
    """What every patch changes after fine-tuning, against plain fine-tuning with the same seeds.

    A row per patch and measure, the TPR gap and the accuracy, in points: with the patch minus without. "ahead": a
    smaller gap, a higher accuracy.
    """
    methods = [m for m in ORDER if m != "none" and m in set(tuned["method"])]
    rows = [_change(tuned, m, measure) for m in methods for measure in (f"gap {axis}", "accuracy")]
    return _judged(["patch", "measure"], rows, "+.1f", _missing(tuned, f"gap {axis}"))


def works(patches: pd.DataFrame, tuned: pd.DataFrame, axis: str, methods: Sequence[str]) -> pd.DataFrame:
    """Whether small patches debias, in the language model and after fine-tuning: two rows per patch.

    Columns: patch; numbers, and their share of the adapter's; "more removed by", the patches that remove more of the
    link on average; measure; then those of `differences.over_seeds`, as in `removed` (nats) and `after` (points).
    """
    shares = {m: _share(patches, axis, m).mean() for m in _trained(patches, axis)}
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


def _trained(patches: pd.DataFrame, axis: str) -> list[str]:
    """The patches against an axis, in the order of the tables."""
    return [m for m in ORDER if m in set(patches.loc[patches["axis"] == axis, "method"])]


def _own(patches: pd.DataFrame, axis: str, method: str) -> pd.DataFrame:
    return patches[(patches["axis"] == axis) & (patches["method"] == method)]


def _share(patches: pd.DataFrame, axis: str, method: str) -> pd.Series:
    """The share of the untouched model's link that a patch takes away, by seed; empty where it is not measured."""
    before = interval(patches, "none", f"nats {axis}")
    left = _own(patches, axis, method).get(f"nats {axis}", pd.Series(dtype=float)).dropna().abs()
    return 1 - left / abs(before.mean) if before.n else left.head(0)


def _link(patches: pd.DataFrame, axis: str, method: str) -> dict[str, Any]:
    """What a patch leaves and removes of the link, and the change of the link's size by seed, in nats."""
    own, share = _own(patches, axis, method), _share(patches, axis, method)
    missing = _missing(patches, f"nats {axis}") if len(own) else MISSING

    def text(i: Interval, form: str) -> str:
        return interval_text(i.mean, i.low, i.high, form, 1, missing)

    row = {"patch": method_name(method), "measure": "link in the language model, nats", "lower": True}
    row["numbers"] = f"{int(own['size'].max()):,}" if len(own) else MISSING
    row["link left, nats"] = text(interval(own, method, f"nats {axis}"), ".2f")
    row["removed"] = text(mean_interval(share), "z.0%")
    return row | difference(-abs(interval(patches, "none", f"nats {axis}").mean) * share)


def _change(tuned: pd.DataFrame, method: str, measure: str) -> dict[str, Any]:
    """A measure after fine-tuning with a patch minus without, by seed, in points."""
    lower = measure != "accuracy"
    row = {"patch": method_name(method), "measure": "TPR gap, points" if lower else "accuracy, points"}
    known = paired_differences(tuned, method, "none", measure) if measure in tuned else pd.Series(dtype=float)
    return row | {"lower": lower} | difference(100 * known)
