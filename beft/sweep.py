"""Which runs are missing, and running just those, in banks; every finished bank is written before the next begins."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from . import data as data_module
from . import models
from .adapters import save_adapter
from .anatomy import describe
from .bank import BiasBank
from .data import TaskData, draw
from .errors import BeftError
from .records import Store, key, provenance
from .slots import shares_places
from .study import WEIGHT_METHODS, Result, Run, Study
from .training import default_device, fit

BANK = 24  # runs: enough sentences a step for chunks of nearly equal lengths


class Context:
    """The data and model of a study; the model is read when a run is missing, not before."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.data: TaskData = data_module.load(study.task, offline=study.offline)
        self.found = models.find(study.model, offline=study.offline)
        self._loaded: models.Loaded | None = None

    @property
    def loaded(self) -> models.Loaded:
        """The model, read once."""
        if self._loaded is None:
            self._loaded = models.load(
                self.study.model, labels=self.data.task.outputs, offline=self.study.offline
            )
        return self._loaded

    def settings(self, run: Run) -> dict[str, Any]:
        """What identifies a run: its key is a hash of this."""
        rows = draw(self.data, self.study.regime, run.seed, self.study.tuning)
        return self.common() | {
            "train_size": len(rows.train),
            "tuning_size": len(rows.tuning),
            "method": run.method,
            "seed": run.seed,
            "rate": float(run.rate),
        }

    def common(self) -> dict[str, Any]:
        """The part of the settings that all runs of the study share; a path is named by its last part."""
        return self.study.identity() | {
            "model": _short(self.study.model),
            "model_sha256": self.found.sha256,
            "task": self.data.task.name,
            "data_fingerprint": self.data.fingerprint,
        }

    def origin(self) -> dict[str, Any]:
        """The `model` and `data` blocks of a record."""
        f, d = self.found, self.data
        return {
            "model": {
                "name": _short(self.study.model),
                "source": f.source,
                "revision": f.revision,
                "sha256": f.sha256,
            },
            "data": {
                "task": d.task.name,
                "source": d.source,
                "fingerprint": d.fingerprint,
                "metric": d.task.metric,
                "substitute": d.substitute,
            },
        }


def run(
    study: Study, runs: Sequence[Run], store: Store, progress: bool = True, bank_size: int = BANK
) -> list[dict[str, Any]]:
    """The records of `runs`, in order; those that `store` lacks are trained first.

    Runs share banks of at most `bank_size`. An interrupt loses at most an epoch: finished banks have
    their records, the current one has a checkpoint, and the same call goes on from there.

    Raises:
        BeftError: whatever data, model or memory say; records already written stay.
    """
    context = Context(study)
    settings = [context.settings(r) for r in runs]
    records = {key(s): _recorded(store, s) for s in settings}
    missing = {key(s): r for r, s in zip(runs, settings, strict=True) if records[key(s)] is None}
    reused, failed = len(records) - len(missing), 0
    banks = list(pack(context, list(missing.values()), bank_size))
    with tqdm(total=len(missing), desc="runs", unit="run", disable=not (progress and missing)) as bar:
        for members in banks:
            written = _train(context, members, store, progress)
            records |= {key(context.settings(r)): record for r, record in zip(members, written, strict=True)}
            failed += sum(record["outcome"] != "ok" for record in written)
            bar.update(len(members))
    _log(done=len(missing) - failed, reused=reused, failed=failed)
    return [records[key(s)] for s in settings]  # type: ignore[misc]


def adapter(study: Study, run_: Run, store: Store) -> Path:
    """Folder of a run's PEFT adapter. Weights are kept beside the records; where they are not, the run is repeated.

    Raises:
        BeftError: the run has no adapter because it diverged, trains weights, or is a head-only run of a model without
            a pooler.
    """
    if run_.method in WEIGHT_METHODS:
        raise BeftError(
            f"a {run_.method} run trains weights, which no BEFT adapter holds: beft.tune gives a plain model"
        )
    context = Context(study)
    record = _recorded(store, context.settings(run_))
    if record is not None:  # which may be that of a study that scores each epoch
        context.study = replace(study, validate=record["settings"]["validate"])
    folder = store.folder / "adapters" / key(context.settings(run_))
    if not folder.exists():
        if record is None or record["outcome"] == "ok":
            record = _train(context, [run_], store, progress=True)[0]
        if not folder.exists():
            raise BeftError(f"the {run_.method} run of seed {run_.seed} has no adapter: {record['outcome']}")
    return folder


def _recorded(store: Store, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The record of these settings; a run scored after each epoch also serves where the last one was asked for."""
    record = store.find(settings)
    if record is None and settings["validate"] == "last":
        record = store.find(settings | {"validate": "each"})
    return record


def pack(context: Context, runs: Sequence[Run], size: int) -> Iterator[list[Run]]:
    """Heads alone together, because they need no backward pass through the encoder, and all else together.

    Runs that train weights have a bank each.
    """
    yield from ([r] for r in runs if r.method in WEIGHT_METHODS)
    heads = [r for r in runs if r.method == "head"]
    for mine in (heads, [r for r in runs if r.method not in ("head", *WEIGHT_METHODS)]):
        alone = mine and shares_places(describe(context.loaded.model), [r.method for r in mine])
        count = len(mine) if alone else -(-len(mine) // size)
        for i in range(count):  # of nearly equal sizes
            yield mine[i * len(mine) // count : (i + 1) * len(mine) // count]


def _train(context: Context, runs: list[Run], store: Store, progress: bool) -> list[dict[str, Any]]:
    settings = [context.settings(r) for r in runs]
    name = key({"bank": [key(s) for s in settings]})
    checkpoint = store.folder / "checkpoints" / f"{name}.safetensors"

    def keep(bank: BiasBank, results: list[Result]) -> None:
        """Adapters, then records, while the checkpoint is still there: a kill in between loses one epoch."""
        for i, result in enumerate(results):
            holds = result.parameters["bias"] or result.parameters["pooler"]
            if result.outcome == "ok" and holds and not bank.trains_weights:
                folder = store.folder / "adapters" / key(settings[i])
                partial = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
                save_adapter(
                    bank, i, partial, models.HUB.get(context.study.model, _short(context.study.model))
                )
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(partial, folder)
        for result, wanted in zip(results, settings, strict=True):
            if store.find(wanted) is None:  # `adapter` repeats runs for their weights only
                store.write(record_of(context, result, wanted))

    label = f"{', '.join(dict.fromkeys(r.method for r in runs))} x {len(runs)}"
    fit(
        context.loaded,
        context.data,
        context.study,
        runs,
        on_end=keep,
        checkpoint=None if runs[0].method == "full" else checkpoint,  # three times the model at every epoch
        progress=label if progress else False,
    )
    return [store.find(wanted) for wanted in settings]  # type: ignore[misc]


def record_of(context: Context, result: Result, settings: dict[str, Any]) -> dict[str, Any]:
    """The record of one finished run."""
    origin = context.origin()
    origin["data"] = origin["data"] | {"rows": result.rows}
    return {
        "kind": "run",
        "settings": settings,
        **origin,
        **provenance(default_device()),
        "parameters": result.parameters,
        "epochs": result.epochs,
        "final": result.final,
        "best": result.best,
        "seconds": result.seconds,
        "bank": result.bank,
        "outcome": result.outcome,
    }


def _short(model: str) -> str:
    """A model's name without the folders of one machine; hub names keep their owner."""
    return Path(model).name if Path(model).expanduser().is_dir() else model


def _log(**counts: int) -> None:
    """Tell the runner (`beft.reproduce`) what this sweep did, if one is listening."""
    path = os.environ.get("BEFT_RUN_LOG")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(counts) + "\n")
