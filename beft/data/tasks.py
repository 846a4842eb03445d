"""Tasks: columns, labels, metrics, and the paper's settings. Another task is another entry of `TASKS`."""

import math
import warnings
from dataclasses import dataclass

import numpy as np

from ..errors import BeftError, unknown

PAPER = "Huang et al. 2026 and their published code"


@dataclass(frozen=True)
class Task:
    """A task in the paper's protocol.

    Attributes:
        name: as in settings and on the command line.
        suite: the folder of `BEFT_DATA` that holds it (see `HUB` for its place on the hub).
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


def _encoders(base: int, others: int | None = None) -> dict[str, int]:
    """Epochs of BERT-base, and of BERT-large and RoBERTa-base where the paper has them."""
    further = {} if others is None else {"bert-large-cased": others, "roberta-base": others}
    return {"bert-base-cased": base} | further


def _sizes(low: int, medium: int, high: int) -> dict[str, int]:
    return {"low": low, "medium": medium, "high": high}


_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
GENERATED = "generated text; sizes, rate and epochs are this package's choice, not the paper's"
_WORLD = {
    "regimes": _sizes(1000, 2000, 4000),
    "rate": 3e-3,
    "epochs": {"all-MiniLM-L6-v2": 6},
    "source": GENERATED,
}


def _world(name: str, columns: tuple[str, ...], labels: tuple[str, ...], *metrics: str) -> Task:
    return Task(f"microworld_{name}", "microworld", columns, "label", labels, metrics, **_WORLD)  # type: ignore[arg-type]


# PROTOCOL of the paper, table of encoder settings: (name, suite, columns, label column, labels, metrics, regimes, rate,
# epochs, source). `source` names settings that neither the paper nor the published code gives.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("sst2", "glue", ("sentence",), "label", ("negative", "positive"), ("accuracy",),
             _sizes(1000, 5000, 11000), 4e-4, _encoders(16, 30), PAPER),
        Task("rte", "glue", _PAIR, "label", _ENTAILMENT, ("accuracy",),
             _sizes(300, 900, 1200), 1e-3, _encoders(30, 30), PAPER),
        Task("qqp", "glue", ("question1", "question2"), "label", ("not_duplicate", "duplicate"), ("accuracy", "f1"),
             _sizes(1000, 5000, 9000), 4e-4, _encoders(30), PAPER),
        Task("qnli", "glue", ("question", "sentence"), "label", _ENTAILMENT, ("accuracy",),
             _sizes(1000, 5000, 9000), 1e-4, _encoders(30), PAPER),
        Task("mnli", "glue", ("premise", "hypothesis"), "label", ("entailment", "neutral", "contradiction"),
             ("accuracy",), _sizes(1000, 5000, 9000), 1e-4, _encoders(30), PAPER,
             validation=("validation_matched", "validation_mismatched")),
        Task("cola", "glue", ("sentence",), "label", ("unacceptable", "acceptable"), ("matthews",),
             _sizes(1710, 3420, 4275), 7e-4, _encoders(16), PAPER),
        Task("mrpc", "glue", _PAIR, "label", ("not_equivalent", "equivalent"), ("accuracy", "f1"),
             _sizes(367, 1191, 1835), 7e-4, _encoders(60), PAPER),
        Task("stsb", "glue", _PAIR, "label", (), ("spearman", "pearson"),
             _sizes(287, 1150, 2300), 1e-4, _encoders(60), PAPER),
        Task("cb", "super_glue", ("premise", "hypothesis"), "label", ("entailment", "contradiction", "neutral"),
             ("macro_f1",), {"low": 250}, 1e-3, _encoders(60, 60), f"{PAPER}; its regime table lacks cb: all 250 rows"),
        Task("wic", "super_glue", ("word+sentence1", "sentence2"), "label", ("other_sense", "same_sense"),
             ("accuracy",), {"low": 1000}, 1e-3, _encoders(16, 30),
             f"{PAPER}; its regime table lacks wic: 1,000 rows are this package's choice"),
        _world("sentiment", ("text",), ("negative", "positive"), "accuracy"),
        _world("entailment", ("premise", "hypothesis"), _ENTAILMENT, "accuracy"),
        _world("acceptability", ("text",), ("unacceptable", "acceptable"), "matthews"),
        _world("similarity", ("text_a", "text_b"), (), "spearman", "pearson"),
    )
}  # fmt: skip


def get_task(name: str) -> Task:
    """The task of that name. Raises BeftError, with the nearest names, where there is none."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]


METRICS = ("accuracy", "f1", "macro_f1", "matthews", "spearman", "pearson")


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
            warnings.simplefilter("ignore", stats.ConstantInputWarning)
            warnings.simplefilter("ignore", stats.NearConstantInputWarning)
            return float(correlation(labels, predictions).statistic)
    from sklearn import metrics  # here: the import is slow, and looking up a task does not need it

    if metric == "accuracy":
        return float(metrics.accuracy_score(labels, predictions))
    if metric == "matthews":
        return float(metrics.matthews_corrcoef(labels, predictions))
    average = "binary" if metric == "f1" else "macro"
    return float(metrics.f1_score(labels, predictions, average=average, zero_division=0.0))
