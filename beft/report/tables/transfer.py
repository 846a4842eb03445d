"""Tables of domain transfer: runs on the task that they were trained on and on others, and who loses less.

Frames of `dataframes.transfers`; metrics are shown x 100, differences in points.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .. import comparisons
from ..dataframes import by_trained_numbers, on_own_task
from ..majority import majority_of, majority_text, not_learned
from ..names import method_name, model_name, runs_text, task_name
from .cells import named, over_seeds

PLACE = ("model", "trained on", "rows")
BASE, OTHERS = "b_v", ("lora", "full")
OWN = "its own task"


def scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Every method on the task that it was trained on and on the targets; above them the majority class of each.

    Columns: model, trained on, rows; method, by rising count of trained numbers (the head's included); seeds; "its own
    task" and a column per target: the metric of the last epoch on the validation split, "mean [low, high]" in percent.
    Raises BeftError where a cell has several runs of a method for one seed.
    """
    rows = []
    comparisons.one_run_each(frame.drop_duplicates("key"))
    for cell, part in comparisons.by_cell(frame):
        views = {OWN: on_own_task(part)} | {task_name(str(t)): own for t, own in part.groupby("target", sort=False)}
        place = dict(zip(PLACE, (model_name(cell["model"]), task_name(cell["task"]), str(part["train_size"].iloc[0]))))
        row = place | {"method": "majority", "trained numbers": "none", "seeds": "none"}
        rows.append(row | {view: majority_text(majority_of(runs)) for view, runs in views.items()})
        for method in by_trained_numbers(part):
            own = {view: runs[runs["method"] == method] for view, runs in views.items()}
            row = place | {"method": method_name(method), "trained numbers": f"{own[OWN]['trained'].iloc[0]:,}"}
            row |= {"seeds": str(own[OWN]["seed"].nunique())}
            rows.append(row | {view: runs_text(runs) for view, runs in own.items()})
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*PLACE, "method", "trained numbers", "seeds", OWN])


def losses(frame: pd.DataFrame, base: str = BASE, others: Sequence[str] = OTHERS) -> pd.DataFrame:
    """Whether `base` loses less on the way to a target than the other methods, with the verdict on each.

    What a run loses is its score on its own task minus that on the target; "ahead" is who loses less. A row per target
    and other method, columns as `cells.over_seeds`, in points; no verdict where one of the two has not learned its own
    task. Who has learnt less has less to lose: read `on_targets` beside it.
    """
    compared = _compared(frame.assign(final=-frame["change"], majority=np.nan), base, others)
    cells = comparisons.by_cell(_sized(frame))
    unlearned = {tuple(cell.values()): not_learned(on_own_task(part)) for cell, part in cells}
    places = compared[list(comparisons.CELL)].itertuples(index=False, name=None)
    pairs = zip(places, compared["first"], compared["second"], strict=True)
    left = [tuple(m for m in pair if m in unlearned[place]) for place, *pair in pairs]
    return _judged(compared.assign(not_learned=pd.Series(left, compared.index, dtype=object), lower=True))


def on_targets(frame: pd.DataFrame, base: str = BASE, others: Sequence[str] = OTHERS) -> pd.DataFrame:
    """Whether `base` scores higher on a target than the other methods, with the verdict on each; rows as `losses`."""
    return _judged(_compared(frame, base, others))


def _sized(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(regime=frame["train_size"])


def _compared(frame: pd.DataFrame, base: str, others: Sequence[str]) -> pd.DataFrame:
    """`comparisons.compare` of `base` with the others on every target, with the number of rows as the regime."""
    sized, pairs = _sized(frame), [(base, other) for other in others]
    parts = [
        comparisons.compare(part, pairs, absent=True).assign(target=target)
        for target, part in sized.groupby("target", sort=False)
    ]
    return pd.concat(parts, ignore_index=True) if parts else comparisons.compare(sized, pairs).assign(target="")


def _judged(compared: pd.DataFrame) -> pd.DataFrame:
    names = {"model": compared["model"].map(model_name), "task": compared["task"].map(task_name)}
    table = named(compared.assign(**names, target=compared["target"].map(task_name)))
    return over_seeds([*PLACE, "target", "comparison"], table.rename(columns={"task": PLACE[1], "regime": PLACE[2]}))
