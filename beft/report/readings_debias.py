"""Sentences computed from the records of debiasing: what each patch removed, and whether the value bias works."""

from __future__ import annotations

import numpy as np
import pandas as pd

from . import intervals as statistics
from .readings import method_name
from .tables.debiasing import ORDER, interval, said

NOT_MEASURED = "not measured: there are no pairs of sentences for {}"


def removed(patches: pd.DataFrame, axis: str) -> str:
    """Of every patch of an axis, how much of the language model's link it took away; a line each."""
    before = interval(patches, "none", f"nats {axis}").mean
    if not np.isfinite(before):
        return NOT_MEASURED.format(axis)
    own = patches[patches["axis"] == axis]
    lines = [f"without a patch the stereotype is likelier by {before:.2f} nats"]
    for method in [m for m in ORDER if m in set(own["method"])]:
        values = own[own["method"] == method]
        share = statistics.mean_interval(_removed(values[f"nats {axis}"], before))
        size = int(values["size"].max())
        lines.append(
            f"{method_name(method)} ({size:,} numbers): {said(interval(own, method, f'nats {axis}'))} nats, "
            f"removes {said(share, '{:z.0%}')}"
        )
    return "\n".join(lines)


def rates(tried: pd.DataFrame) -> str:
    """Of a frame of `tables_debias.rates_tried`, whether the tables use the best rate of each patch."""
    if not len(tried):
        return "No rates are tried in this profile."
    lines = []
    for method, own in tried.groupby("patch", sort=False):
        best, used = own.loc[own["best"], "rate"], own.loc[own["used"], "rate"]
        if not len(best):
            lines.append(f"{method_name(str(method))}: every rate lost a seed")
        elif not set(used) & set(best):
            at = f"{used.iloc[0]:g}" if len(used) else "another"
            lines.append(f"{method_name(str(method))}: best at {best.iloc[0]:g}, used at {at}")
    most = tried.groupby("patch")["rate"].transform("max"), tried.groupby("patch")["rate"].transform("min")
    ends = tried[tried["best"] & ((tried["rate"] == most[0]) | (tried["rate"] == most[1]))]["patch"]
    if len(ends):
        lines.append(f"best at an end of what was tried: {', '.join(map(method_name, dict.fromkeys(ends)))}")
    return "\n".join(lines) or "Each patch is used at the best of its rates."


def _removed(nats: pd.Series, before: float) -> pd.Series:
    """The share of a link that is gone; what overshoots zero has brought some of it back."""
    return 1 - nats.abs() / abs(before)


def change(frame: pd.DataFrame, method: str, measure: str) -> statistics.Interval:
    """A measure with a patch minus without, paired by seed: mean and 95% Student t interval."""
    if measure not in frame:
        return statistics.mean_interval([])
    wide = frame.pivot_table(index="seed", columns="method", values=measure)
    if method not in wide or "none" not in wide:
        return statistics.mean_interval([])
    return statistics.mean_interval((wide[method] - wide["none"]).dropna())


def _verdict(found: statistics.Interval, unit: str, scale: float, less: str, more: str) -> str:
    if found.n < 2:
        return "not known from fewer than two seeds"
    text = f"{scale * found.mean:+.1f}{unit} [{scale * found.low:+.1f}, {scale * found.high:+.1f}]"
    if found.high < 0:
        return f"{text}: {less}"
    return f"{text}: {more if found.low > 0 else 'no difference shown'}"


def after(tuned: pd.DataFrame, axis: str) -> str:
    """What every patch changed after fine-tuning, against plain fine-tuning with the same seeds; a line each."""
    lines = ["Intervals are of each patch alone, not corrected for their number."]
    for method in [m for m in ORDER if m != "none" and m in set(tuned["method"])]:
        gap = _verdict(change(tuned, method, f"gap {axis}"), "", 100, "less bias", "more bias")
        kept = _verdict(change(tuned, method, "accuracy"), "", 100, "worse", "better")
        lines.append(f"{method_name(method)}: TPR gap {gap}; accuracy {kept}")
    return "\n".join(lines)


def works(patches: pd.DataFrame, tuned: pd.DataFrame, axis: str, method: str = "b_v") -> str:
    """Whether a bias debiases, in plain words: in the language model, and after fine-tuning; and at which size."""
    before = interval(patches, "none", f"nats {axis}").mean
    own = patches[patches["axis"] == axis]
    if method not in set(own["method"]):
        return f"{method}: not run"
    if not np.isfinite(before):
        return NOT_MEASURED.format(axis)
    mine = own[own["method"] == method]
    share = statistics.mean_interval(_removed(mine[f"nats {axis}"], before))
    sizes = own.groupby("method")["size"].max()
    size = int(sizes[method])
    lines = [f"{method} holds {size:,} numbers" + (
        f", {size / sizes['adapter']:.2%} of the adapter's {int(sizes['adapter']):,}." if "adapter" in sizes else "."
    )]  # fmt: skip
    inside = (
        "works"
        if share.n > 1 and share.low > 0
        else "does not work"
        if share.n > 1 and share.high <= 0
        else "is open"
    )
    lines.append(
        f"In the language model it {inside}: it removes {said(share, '{:z.0%}')} of the link ({before:.2f} nats)."
    )
    others = {m: float(_removed(own[own["method"] == m][f"nats {axis}"], before).mean()) for m in sizes.index}
    better = [method_name(m) for m, v in sorted(others.items(), key=lambda p: -p[1]) if v > others[method]]
    lines.append(f"Patches that remove more of it: {', '.join(better) or 'none'}.")
    gap = change(tuned, method, f"gap {axis}")
    if gap.n < 2:
        verdict = "is not known"
    elif gap.high < 0:
        verdict = "stays less biased"
    else:
        verdict = "is more biased than without" if gap.low > 0 else "is not shown to be less biased"
    lines.append(
        f"Frozen under fine-tuning, the classifier {verdict}: TPR gap "
        f"{_verdict(gap, ' points', 100, 'less', 'more')}."
    )
    return "\n".join(lines)
