"""Tables of domain transfer: runs on the task that they were trained on and on others, and who loses less.

Frames of `dataframes.transfers`; metrics are shown x 100, differences in points.
"""

from collections.abc import Sequence

import pandas as pd

from .. import comparisons
from ..dataframes import by_trained_numbers
from ..names import method_name, runs_text
from .cells import named, over_seeds

PLACE = ("model", "trained on", "rows")
BASE, OTHERS = "b_v", ("lora", "full")
OWN = "its own"


def scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Every method on the task that it was trained on and on the targets; above them the largest class of each.

    Columns: model, trained on, rows; method, by rising count of trained numbers (the head's included); seeds; "its own"
    and a column per target: the metric of the last epoch on the validation split, "mean [low, high]" in percent.
    Raises BeftError where a cell has several runs of a method for one seed.
    """
    rows = []
    comparisons.one_run_each(frame.drop_duplicates("key"))
    for cell, part in comparisons.by_cell(frame):
        place = dict(zip(PLACE, (cell["model"], cell["task"], str(part["train_size"].iloc[0]))))
        targets = part.drop_duplicates("target").set_index("target")
        largest = {OWN: targets["source_largest"].iloc[0], **targets["largest"]}
        row = place | {"method": "largest class", "trained numbers": "none", "seeds": "none"}
        rows.append(row | {name: f"{100 * value:.1f}" for name, value in largest.items()})
        for method in by_trained_numbers(part):
            own = part[part["method"] == method]
            row = place | {"method": method_name(method), "trained numbers": f"{own['trained'].iloc[0]:,}"}
            row |= {"seeds": str(own["seed"].nunique()), OWN: runs_text(own.drop_duplicates("key"), "source")}
            rows.append(row | {target: runs_text(own[own["target"] == target]) for target in targets.index})
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*PLACE, "method", "trained numbers", "seeds", OWN])


def losses(frame: pd.DataFrame, base: str = BASE, others: Sequence[str] = OTHERS) -> pd.DataFrame:
    """Whether `base` loses less on the way to a target than the other methods, with the verdict on each.

    What a run loses is its score on its own task minus that on the target; "ahead" is who loses less. A row per target
    and other method, columns as `cells.over_seeds`, in points. Who has learnt less has less to lose: read `on_targets`
    beside it.
    """
    lost = _compared(frame.assign(final=-frame["change"]), base, others)
    return over_seeds([*PLACE, "target", "comparison"], lost.assign(lower=True))


def on_targets(frame: pd.DataFrame, base: str = BASE, others: Sequence[str] = OTHERS) -> pd.DataFrame:
    """Whether `base` scores higher on a target than the other methods, with the verdict on each; rows as `losses`."""
    return over_seeds([*PLACE, "target", "comparison"], _compared(frame, base, others))


def _compared(frame: pd.DataFrame, base: str, others: Sequence[str]) -> pd.DataFrame:
    """`comparisons.compare` of `base` with the others on every target, with the columns of `PLACE`."""
    sized, pairs = frame.assign(regime=frame["train_size"]), [(base, other) for other in others]
    parts = [
        comparisons.compare(part, pairs, absent=True).assign(target=target)
        for target, part in sized.groupby("target", sort=False)
    ]
    table = pd.concat(parts, ignore_index=True) if parts else comparisons.compare(sized, pairs).assign(target="")
    return named(table).rename(columns={"task": "trained on", "regime": "rows"})
