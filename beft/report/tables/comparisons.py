"""Comparisons over cells as frames of text, from the frames of `beft.report.comparisons`, for `tables.save`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..readings import MISSING, method_name
from ..readings_grid import no_interval, points


def p_text(p: float) -> str:
    """Two digits; `undefined` without a value."""
    return f"{p:.2g}" if np.isfinite(p) else "undefined"


def _pair(row: Mapping[Any, Any]) -> str:
    return f"{method_name(row['first'])} - {method_name(row['second'])}"


def comparison_table(compared: pd.DataFrame) -> pd.DataFrame:
    """`comparisons.compare`: difference in points with both intervals, p, the smallest possible p, Holm's p."""
    rows = []
    for r in compared.to_dict("records"):
        row = {"model": r["model"], "task": r["task"], "regime": str(r["regime"]), "comparison": _pair(r)}
        row |= {"seeds": str(r["n"]), "difference, points": points(r["mean"], r["low"], r["high"])}
        boot = f"[{100 * r['boot_low']:+.1f}, {100 * r['boot_high']:+.1f}]"
        row["bootstrap"] = boot if np.isfinite(r["boot_low"]) else "fewer than 3 seeds"
        row |= {"p": p_text(r["p"]), "smallest possible p": p_text(r["p_least"])}
        rows.append(row | {"p, Holm": p_text(r["p_holm"])})
    columns = ["model", "task", "regime", "comparison", "seeds", "difference, points", "bootstrap"]
    return pd.DataFrame(rows, columns=[*columns, "p", "smallest possible p", "p, Holm"])


def tau_table(overall: pd.DataFrame) -> pd.DataFrame:
    """`comparisons.tau_overall`: mean Kendall's tau over cells, interval over tasks."""
    rows = []
    for r in overall.to_dict("records"):
        row = {"score": r["score"], "terms": r["view"], "cells": str(r["cells"]), "tasks": str(r["tasks"])}
        rows.append(row | {"Kendall's tau": _over_tasks(r, 1, "+.2f")})
    return pd.DataFrame(rows, columns=["score", "terms", "cells", "tasks", "Kendall's tau"])


def _over_tasks(row: Mapping[Any, Any], scale: float, form: str) -> str:
    """Mean and interval, or the mean and why there is no interval."""
    text, note = points(row["mean"], row["low"], row["high"], scale, form), no_interval(row["tasks"])
    return f"{text} ({note})" if note and text != MISSING else text
