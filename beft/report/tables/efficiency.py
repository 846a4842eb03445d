"""Tables of what a run costs, from the records of `make bench-efficiency`: against what people use, and the machine."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..names import MISSING, method_name, short_name

Record = Mapping[str, Any]
OPERATIONS = {"head": 2, "full": 6}  # for each weight in products and token trained on; of anything else 4


def by_part(records: Sequence[Record], device: str = "cpu") -> dict[str, Record]:
    """The last record of each part on one device."""
    own = [r for r in records if r["settings"].get("bench") == "efficiency" and r["settings"]["device"] == device]
    return {r["settings"]["part"]: r for r in own}


def matrix_rate(record: Record, dtype: str, width: int) -> float:
    """Operations a second of the machine's products in that process; the better of before and after the part.

    `width` is a model's; the product measured is that of the nearest width.
    """
    found = [rates["products"].get(dtype, {}) for rates in record["rates"]]
    near = min(found[0], key=lambda w: abs(int(w) - width), default=None)
    return max(rates[near] for rates in found) if near is not None else float("nan")


def copy_rate(record: Record) -> float:
    """Bytes a second that the machine reads and writes when it copies a block."""
    return float(max(rates["copies"] for rates in record["rates"]))


def ways(record: Record | None, width: int) -> pd.DataFrame:
    """A row per way of a part on real text.

    Columns: way, method, runs, dtype, best, seconds (of a run), share (of the matrix rate, in an epoch of training
    alone), floor (seconds of that epoch at the full rate), padding (computed tokens that are no text), score, times
    (faster than the Trainer's best of the same method).
    """
    rows = []
    for m in record["results"] if record else ():
        row = {name: m[name] for name in ("way", "method", "runs", "dtype", "score")} | {"best": m.get("best", False)}
        row["seconds"] = m["seconds"] / m["runs"]
        if "training_seconds" in m:
            needed = OPERATIONS.get(m["method"], 4) * m["weights"] * m["real_tokens"]
            floor = needed / matrix_rate(record or {}, m["dtype"], width)
            row |= {"floor": floor / m["runs"], "share": floor / m["training_seconds"]}
            row["padding"] = 1 - m["real_tokens"] / m["computed_tokens"]
        rows.append(row)
    frame = pd.DataFrame(rows, columns=[*_WAYS])
    best = frame[frame["best"].astype(bool)].set_index("method")["seconds"]
    frame["times"] = frame["method"].map(best) / frame["seconds"]
    return frame


_WAYS = ("way", "method", "runs", "dtype", "best", "seconds", "floor", "share", "padding", "score")
_OF_MODEL: tuple[str, ...] = ("way", "method", "runs", "precision", "seconds a run", "times the Trainer's best")
_OF_MODEL += ("share of the matrix rate", "padding", "accuracy, %")
_SHAPES: tuple[str, ...] = (
    "shape",
    "weights in products",
    "runs",
    "rows a run x tokens",
    "precision",
    "ms a step",
)
_SHAPES += ("ms at the full rate", "share")


def of_model(frame: pd.DataFrame) -> pd.DataFrame:
    """`ways` as text."""
    rows = []
    for row in frame.to_dict("records"):
        of_bank = pd.notna(row["share"])
        rows.append(
            {
                "way": row["way"] + (", its best settings" if row["best"] else ""),
                "method": method_name(row["method"]),
                "runs": int(row["runs"]),
                "precision": row["dtype"],
                "seconds a run": _number(row["seconds"]),
                "times the Trainer's best": f"{row['times']:.2f}",
                "share of the matrix rate": f"{row['share']:.0%}" if of_bank else "",
                "padding": f"{row['padding']:.1%}" if of_bank else "",
                "accuracy, %": f"{100 * row['score']:.1f}",
            }
        )
    return pd.DataFrame(rows, columns=[*_OF_MODEL])


def _number(x: float) -> str:
    """A time with one decimal, or two significant digits where it is below one."""
    return f"{x:,.1f}" if x >= 1 else f"{x:.2g}"


def _of(frame: pd.DataFrame, column: str, **wanted: Any) -> float:
    """One number of `ways`; nan where that way was not measured."""
    for name, value in wanted.items():
        frame = frame[frame[name] == value]
    return float(frame[column].iloc[0]) if len(frame) else float("nan")


def targets(encoder: pd.DataFrame, prompts: pd.DataFrame, memory: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """What was aimed at, what was measured, and whether it is met."""
    bank: dict[str, Any] = {"way": "bank", "method": "b_v"}
    rows = []

    def row(*what: Any, **more: Any) -> None:
        rows.append(_target(*what, **more))

    nine = _of(encoder, "times", runs=9, dtype="bfloat16", **bank)
    row("nine runs in a bank, bfloat16: times the Trainer's best, a run", nine, 2.5, "{:.2f}")
    row(
        "one run, bfloat16: times the Trainer's best",
        _of(encoder, "times", runs=1, dtype="bfloat16", **bank),
        1.8,
        "{:.2f}",
    )
    for dtype, wanted in (("float32", 0.75), ("bfloat16", 0.5)):
        share = _of(encoder, "share", runs=9, dtype=dtype, **bank)
        row(f"training steps of nine runs, {dtype}: share of the matrix rate", share, wanted, "{:.0%}")
    for dtype in ("float32", "bfloat16"):
        peak = {m["runs"]: m["peak"] for m in memory if m["dtype"] == dtype}
        ratio = peak[9] / peak[1] if {1, 9} <= peak.keys() else float("nan")
        row(f"peak memory of nine runs over that of one, {dtype}", ratio, 1.5, "{:.2f}", at_most=True)
    slow = _of(encoder, "seconds", way="authors' protocol", method="b_v")
    fast = _of(encoder, "seconds", runs=9, dtype="bfloat16", **bank)
    row("nine runs in a bank, bfloat16: times the authors' protocol, a run", slow / fast, 25, "{:.1f}")
    one = _of(prompts, "times", runs=1, dtype="bfloat16", **bank)
    row(f"{short_name('SmolLM2-135M-Instruct-Q4_1')} as prompts, one run: times the Trainer's best", one, 1.5, "{:.2f}")
    return pd.DataFrame(rows)


def _target(what: str, measured: float, wanted: float, form: str, at_most: bool = False) -> dict[str, Any]:
    met = measured <= wanted if at_most else measured >= wanted
    text = MISSING if np.isnan(measured) else form.format(measured)
    sign = "at most " if at_most else "at least "
    return {"what": what, "target": sign + form.format(wanted), "measured": text, "met": bool(met)}


def targets_on_a_card(card: pd.DataFrame, record: Record | None) -> pd.DataFrame:
    """As `targets`, of a GPU: `card` is `ways` of BERT-base's shape, `record` that of the shapes."""
    bank: dict[str, Any] = {"way": "bank", "method": "b_v", "dtype": "bfloat16"}
    many = _of(card, "seconds", runs=30, **bank)
    slow = _of(card, "seconds", way="authors' protocol", method="b_v")
    steps = {(m["shape"], m["runs"], m["rows"], m["length"]): m for m in (record["results"] if record else ())}
    share = over = float("nan")
    if (m := steps.get(("BERT-base", 16, 4, 128))) is not None:
        share = 4 * m["weights"] * m["tokens"] / matrix_rate(record or {}, m["dtype"], m["width"]) / m["seconds"]
    if (m := steps.get(("LLaMA2-7B", 1, 4, 128))) is not None:
        over = m["peak"] / (m["model_bytes"] + kept_bytes(m))
    return pd.DataFrame(
        [
            _target("thirty runs of BERT-base's shape: times the authors' protocol, a run", slow / many, 50, "{:.1f}"),
            _target(
                "thirty runs of BERT-base's shape: times the Trainer's best, a run",
                _of(card, "times", runs=30, **bank),
                8,
                "{:.1f}",
            ),
            _target("steps of sixteen runs of BERT-base's shape: share of the matrix rate", share, 0.4, "{:.0%}"),
            _target("LLaMA2-7B's shape: peak memory over what it needs", over, 1.15, "{:.2f}", at_most=True),
        ]
    )


def kept_bytes(m: Mapping[str, Any]) -> int:
    """Bytes of what the gradient of b_v in every layer of a LLaMA cannot do without, in 2 bytes a number.

    For each layer and token: the inputs of both norms, query, key, value and output of the attention, and the two
    halves of the gated feed-forward part.
    """
    return int(2 * m["layers"] * m["tokens"] * (6 * m["width"] + 2 * m["inner"]))


def growth(record: Record | None) -> pd.DataFrame:
    """Steps as one size grows: grown, value, seconds, and the exponent of a power law fitted to them."""
    frame = pd.DataFrame(
        record["results"] if record else [], columns=["grown", "runs", "length", "layers", "width", "seconds"]
    )
    names = {"R": "runs"}
    frame["value"] = [row[names.get(row["grown"], row["grown"])] for row in frame.to_dict("records")]
    fits = {name: np.polyfit(np.log(p["value"]), np.log(p["seconds"]), 1) for name, p in frame.groupby("grown")}
    frame["exponent"] = frame["grown"].map({name: fit[0] for name, fit in fits.items()})
    frame["fitted"] = [float(np.exp(np.polyval(fits[g], np.log(v)))) for g, v in zip(frame["grown"], frame["value"])]
    return frame[["grown", "value", "seconds", "exponent", "fitted"]]


def shapes(record: Record | None) -> pd.DataFrame:
    """Steps of b_v in the shapes of published models, beside the time of their operations at the full rate."""
    rows = []
    for m in record["results"] if record else ():
        floor = 4 * m["weights"] * m["tokens"] / matrix_rate(record or {}, m["dtype"], m["width"])
        rows.append(
            {
                "shape": m["shape"],
                "weights in products": f"{m['weights'] / 1e6:.0f} million",
                "runs": m["runs"],
                "rows a run x tokens": f"{m['rows']} x {m['length']}",
                "precision": m["dtype"],
                "ms a step": _number(1000 * m["seconds"]),
                "ms at the full rate": _number(1000 * floor),
                "share": f"{floor / m['seconds']:.0%}",
            }
        )
    return pd.DataFrame(rows, columns=[*_SHAPES])


def breakdown(record: Record | None) -> pd.DataFrame:
    """Shares of the time of a bank of nine by kind of operator, a row per precision."""
    rows = {m["dtype"]: m["breakdown"] for m in record["results"]} if record else {}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return frame.div(frame.sum(axis=1), axis=0)
