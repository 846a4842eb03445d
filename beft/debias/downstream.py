"""PEFTDebias, phase two: a patch in the model, frozen, and everything else fine-tuned on a task; a record each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..bank.bank import BiasBank
from ..bank.baselines import WeightBank
from ..data.batching import ChunkCost
from ..data.datasets import Dataset, draw
from ..errors import BeftError
from ..models.files import model_identity
from ..models.loading import Loaded
from ..progress import Bar, log_runs
from ..records.provenance import build_record, origin
from ..records.store import Store
from ..study import Run, Study
from ..training.classification import Classification, logits, predictions
from ..training.device import default_device
from ..training.loop import Epoch, fit
from ..training.objective import Scores
from .patches import Patch, check_base, fingerprint

Record = dict[str, Any]
Measure = Callable[[np.ndarray], dict[str, Any]]  # predictions (N,) of the test rows -> measures


@dataclass(frozen=True)
class Tuning:
    """What the fine-tuned models of a task share.

    Attributes:
        loaded: a classifier, as `models.load` gives it, of the same weights as the patches; of a prompted task the
            causal language model itself.
        data: the rows; its validation split is the test split that is reported.
        study: settings of the training. Scored after the last epoch alone.
        measure: what is measured on a classifier's predictions, identified by `measured` in words.
        language: of a prompted task, what is measured of the fine-tuned language model: (bank, run) -> measures, also
            identified by `measured`. Its score on the task is the measure "accuracy".
    """

    loaded: Loaded
    data: Dataset
    study: Study
    measure: Measure
    measured: str
    language: Callable[[Any, int], dict[str, Any]] | None = None

    def settings(self, patched: str, method: str, seed: int, rate: float) -> Record:
        """What identifies a fine-tuned model; `patched` is the key of its patch's record, or "none"."""
        study = {n: v for n, v in self.study.identity().items() if n not in ("model", "validate")}
        study |= {"task": self.data.task.name, "data_fingerprint": self.data.fingerprint}
        own = {"kind": "debias", "model": self.loaded.name, **model_identity(self.loaded)}
        own |= study | {"measured": self.measured, "patch": patched}
        return own | {"method": method, "seed": seed, "rate": rate}


@dataclass(frozen=True)
class Patched:
    """A fine-tuning to do: `patch` gives the patch where it is needed; None without one. `key` is its record's."""

    method: str
    seed: int
    key: str = "none"
    patch: Callable[[], Patch] | None = None


class _WithPredictions(Classification):
    """A classification that keeps its predictions of the test rows; None for a run whose logits are no numbers."""

    predicted: list[np.ndarray | None]

    def scores(self, bank: BiasBank, validate: bool, last: bool, cost: ChunkCost) -> Scores:
        scores = super().scores(bank, False, False, cost)
        if validate and last:
            everything = np.arange(len(self.data.validation))
            scored = logits(bank, self.held_out, [everything] * bank.R, cost)
            self.predicted = [predictions(x).numpy() if torch.isfinite(x).all() else None for x in scored]
        return scores


def fine_tune(
    tuning: Tuning, wanted: Sequence[Patched], rate: float, store: Store, progress: bool = True
) -> list[Record]:
    """The records of `wanted`, in order; models that `store` has no record of are trained first, one after another.

    Raises BeftError: a patch of another model, a frozen patch that moved, or bad data or memory.
    """
    settings = [tuning.settings(w.key, w.method, w.seed, rate) for w in wanted]
    missing = [i for i, s in enumerate(settings) if store.find(s) is None]
    if missing:
        store.check_writable()
    visits = (len(draw(tuning.data, tuning.study.regime, wanted[i].seed, tuning.study.tuning).train) for i in missing)
    total, quiet = sum(visits) * tuning.study.epochs, not (progress and missing)
    label = f"fine-tuning {len(missing)} models"
    with Bar(total=total, desc=label, unit="row", unit_scale=True, mininterval=5.0, disable=quiet) as bar:
        for i in missing:
            store.write(_trained(tuning, wanted[i], rate, settings[i], bar))
    log_runs(done=len(missing), reused=len(wanted) - len(missing), failed=0)
    return [record for s in settings if (record := store.find(s)) is not None]


def _trained(tuning: Tuning, wanted: Patched, rate: float, settings: Record, bar: Bar) -> Record:
    patch = wanted.patch() if wanted.patch else None
    if patch is not None:
        check_base(patch, tuning.loaded.sha256)
    run, hashes, measures = Run("full", wanted.seed, rate), [], {}
    objective = _WithPredictions if tuning.data.prompt is None else None
    options: Record = {"objective": objective, "frozen": patch, "advance": bar.update}
    for epoch in fit(tuning.loaded, tuning.data, tuning.study, [run], **options):
        if patch is not None and patch.stays and (epoch.last or not epoch.number):
            assert isinstance(epoch.bank, WeightBank)
            hashes.append(fingerprint(epoch.bank, patch))
        if epoch.last:  # with the bank on the model
            measures = _measures(tuning, epoch)
    if len(set(hashes)) > 1:
        raise BeftError(f"the {wanted.method} patch moved while the rest of the model was fine-tuned: report this")
    (result,) = epoch.results
    about: Record = {}
    if patch is not None:
        about = {"sha256": patch.sha256(), "frozen": patch.stays, "size": patch.size}
        about |= dict(zip(("before", "after"), hashes))
    return build_record(
        "debias",
        settings,
        origin(tuning.loaded.name, tuning.loaded, tuning.data, result.rows),
        default_device(),
        epochs=result.epochs,
        measures=measures,
        patch=about,
        seconds=result.seconds,
        outcome=result.outcome,
    )


def _measures(tuning: Tuning, epoch: Epoch) -> Record:
    """What is measured after the last epoch; nothing of a run that diverged."""
    (result,) = epoch.results
    if result.outcome != "ok":
        return {}
    if isinstance(epoch.objective, _WithPredictions):
        predicted = epoch.objective.predicted[0]
        return {} if predicted is None else tuning.measure(predicted)
    accuracy = result.epochs[-1]["validation"]
    language = {} if tuning.language is None else tuning.language(epoch.bank, 0)
    return {} if accuracy is None else {"accuracy": accuracy} | language
