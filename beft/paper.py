"""The paper's settings and printed numbers, as data with their source (`paper.json`, beside this file).

A printed number is compared with one of ours only where model, task and training size are the paper's; anywhere else
the cell says why it is not. Beside another real model on the same task and training size it is shown as that of the
paper's model (`beside`), never beside a stand-in. Rows of one's own are never the paper's, whatever their file is
called. Nothing is interpolated.
"""

import json
import math
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

DECODER_EPOCHS = 5  # PROTOCOL, decoders
CLASSIFIER = "bert-base-cased"  # whose numbers stand beside those of other encoders
# How the source of rows of one's own begins (`data.own_file.source_of`); a named task's is a data folder or the hub.
_OWN = ("file ", "data frame", "train data frame")


@cache
def data() -> dict[str, Any]:
    """Everything in `paper.json`: source, encoder settings, printed results."""
    return json.loads(files(__package__).joinpath("paper.json").read_text(encoding="utf-8"))


def same_model(name: str) -> str | None:
    """The paper's model of that name, under its short or its hub name; None if the paper did not use it."""
    return next((model for model, names in data()["models"].items() if name in names), None)


def of_own_rows(settings: Mapping[str, Any]) -> bool:
    """Whether a run is of rows of one's own, by its `data_source` (`dataframes.settings_of`); False where unknown."""
    return str(settings.get("data_source")).startswith(_OWN)


def printed(settings: dict[str, Any]) -> dict[str, Any] | None:
    """The paper's result for a run with these settings: {"percent", "source", "settings"}, or None.

    Model, task (prompted or not), training size and method must be the paper's, and the rows not one's own; epochs and
    rate may differ (see `column`).
    """
    if of_own_rows(settings):
        return None
    for result in _of_model(settings):
        here = (settings["task"], settings["train_size"])
        there = (result["task"], result["settings"]["train_size"])
        if here == there and settings["method"] in result["percent"]:
            return {**result, "percent": result["percent"][settings["method"]]}
    return None


def _of_model(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The paper's results with the model of these settings, as a classifier or prompted like it."""
    name, prompted = same_model(settings["model"]), bool(settings.get("prompted"))
    return [r for r in data()["results"] if r["model"] == name and bool(r.get("prompted")) == prompted]


def column(settings: dict[str, Any]) -> str:
    """The text of the table's paper column for a run: the printed number, or why there is none.

    `settings` needs model, task, method, train_size, rate and epochs, as in a record, and `data_source` to tell rows
    of one's own from a task of the same name (`dataframes.settings_of`).
    """
    if of_own_rows(settings):
        return "not comparable: own rows"
    if same_model(settings["model"]) is None:
        return "not comparable: other model"
    results = _of_model(settings)
    if settings["task"] not in {r["task"] for r in results}:
        return "not comparable: other task"
    if settings["train_size"] not in {r["settings"]["train_size"] for r in results if r["task"] == settings["task"]}:
        return "not comparable: other training size"
    result = printed(settings)
    if result is None:
        return "not printed"
    other = [name for name in ("rate", "epochs") if settings[name] != result["settings"][name]]
    return f"{result['percent']:.1f}" + (f" (at another {' and '.join(other)})" if other else "")


def difference(settings: dict[str, Any], percent: float) -> float | None:
    """Ours minus the paper's in points, for a result of ours in percent; None where there is no number to set beside.

    As in `printed`, epochs and rate may differ from the paper's; `column` says where they do.
    """
    result = printed(settings)
    return percent - result["percent"] if result is not None and math.isfinite(percent) else None


def is_stand_in(model: str) -> bool:
    """Whether a model is one of the tiny ones, made for tests and demonstrations: nothing of the paper is beside it."""
    return model.startswith("tiny-") or "data/models/" in model


def beside(settings: dict[str, Any], substitute: bool = False) -> list[dict[str, Any]]:
    """The printed results of the paper's BERT-base on the task and training size of a run of any model.

    The results are those of `data`, with {"percent", "settings", "source"}. Empty for prompted runs, for a stand-in of
    model or data (`substitute`), for rows of one's own, and where the paper prints none. `settings` needs model, task
    and train_size, and `data_source` as of `column`.
    """
    if substitute or of_own_rows(settings) or settings.get("prompted") or is_stand_in(str(settings["model"])):
        return []
    wanted = (CLASSIFIER, settings["task"], settings["train_size"])
    results = [r for r in data()["results"] if not r.get("prompted") and r.get("printed", True)]
    return [r for r in results if (r["model"], r["task"], r["settings"]["train_size"]) == wanted]
