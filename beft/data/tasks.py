"""Tasks: columns, labels, metrics, and the paper's settings. Another task is another entry of `tasks.json`."""

import math
import warnings
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from pydantic import TypeAdapter

from ..errors import BeftError, unknown

METRICS = ("accuracy", "f1", "macro_f1", "matthews", "spearman", "pearson")
CORRELATIONS = ("matthews", "spearman", "pearson")
"""Metrics that one answer for all rows leaves undefined, counted as 0."""
PAPER = "Huang et al. 2026 and their published code"
GENERATED = "generated text; sizes, rate and epochs are this package's choice, not the paper's"
RATED = "sentences that people rated; sizes, rate and epochs are this package's choice, not the paper's"


@dataclass(frozen=True)
class Task:
    """A task in the paper's protocol.

    Attributes:
        name: as in settings and on the command line.
        suite: the folder of `BEFT_DATA` that holds it (see `HUB` for its place on the hub), or where else it is from:
            "microworld", "rated_sentences".
        text_columns: the columns a model reads, in order, one or two; "word+sentence1" joins two by a colon.
        label_column: the column with the label codes 0..len(labels) - 1, or with the values of a regression.
        labels: the names of the codes, in order; none for a regression.
        metrics: metrics of `score`; rates and epochs are chosen by the first.
        regimes: training rows per regime (the paper's low, medium and high; cb and wic have `low` only).
        rate: the learning rate.
        epochs: passes over the training rows, by model; see `epochs_for`.
        source: of these settings.
        validation: the split that is reported, and further ones scored after the last epoch, by their file names.
    """

    name: str
    suite: str
    text_columns: tuple[str, ...]
    label_column: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    regimes: dict[str, int]
    rate: float
    epochs: dict[str, int]
    source: str
    validation: tuple[str, ...] = ("validation",)

    @property
    def metric(self) -> str:
        """The first of `metrics`."""
        return self.metrics[0]

    @property
    def regression(self) -> bool:
        """Whether labels are values instead of classes."""
        return not self.labels

    @property
    def outputs(self) -> int:
        """Logits of a head: one per class, or one for a regression."""
        return len(self.labels) or 1

    def epochs_for(self, model: str) -> tuple[int, str]:
        """Epochs for a model and the source of that number: the paper's, or by default its number for BERT-base."""
        name = model.rsplit("/", 1)[-1]
        if name in self.epochs:
            return self.epochs[name], self.source
        first = next(iter(self.epochs))
        return self.epochs[first], f"that of {first}: there is none for {name}"


HUB = {  # suite -> its data set on the Hugging Face hub; the task is a configuration of it
    "glue": "nyu-mll/glue",
    "super_glue": "aps/super_glue",
    "squad": "rajpurkar/squad",
    "drop": "ucinlp/drop",
    "bias_in_bios": "LabHC/bias_in_bios",
}
# Tasks whose configuration, and folder, has another name: WSC with corrected spans, as in the paper's code.
CONFIGURATIONS = {"wsc": "wsc.fixed"}
# The table of encoder settings of the paper (PROTOCOL), the tasks of rated sentences and the generated ones. `source`
# names settings that neither the paper nor the published code gives.
_TABLE = files(__package__).joinpath("tasks.json").read_text(encoding="utf-8")
TASKS: dict[str, Task] = {task.name: task for task in TypeAdapter(list[Task]).validate_json(_TABLE)}


def get_task(name: str) -> Task:
    """The task of that name. Raises BeftError, with the nearest names, where there is none."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]


def score(metric: str, labels: np.ndarray, predictions: np.ndarray) -> float:
    """The value of a metric, higher is better.

    Args:
        metric: "accuracy", "f1" (of class 1) and "macro_f1" in 0..1; "matthews" (0 where one class is predicted),
            "spearman" and "pearson" in -1..1 (nan where all predictions are one value).
        labels: true codes or values, `(N,)`.
        predictions: predicted ones, `(N,)`.

    Raises BeftError for an unknown metric, for lengths that differ and for no rows.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.ndim != 1 or not len(labels):
        raise BeftError(
            f"cannot score predictions of shape {predictions.shape} against labels of shape {labels.shape}: "
            "give two vectors of the same length, with at least one row"
        )
    if metric in ("spearman", "pearson"):
        from scipy import stats

        correlation = stats.spearmanr if metric == "spearman" else stats.pearsonr
        if len(labels) < 2:
            return math.nan
        with warnings.catch_warnings():  # constant predictions have the correlation nan
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            return float(correlation(labels, predictions).statistic)
    from sklearn import metrics  # here: the import is slow, and looking up a task does not need it

    if metric == "accuracy":
        return float(metrics.accuracy_score(labels, predictions))
    if metric == "matthews":
        return float(metrics.matthews_corrcoef(labels, predictions))
    average = "binary" if metric == "f1" else "macro"
    return float(metrics.f1_score(labels, predictions, average=average, zero_division=0.0))


def majority_score(metric: str, labels: np.ndarray) -> float:
    """The metric of the most frequent code of labels (N,) as the answer to every row.

    0 for correlations, which one answer for all rows leaves undefined.
    """
    if metric in CORRELATIONS:
        return 0.0
    labels = np.asarray(labels)
    return score(metric, labels, np.full_like(labels, np.bincount(labels).argmax()))
