"""The data and model of a study, the identity of its runs, and the record of a finished one."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..bank.saved import About, write_about
from ..data import sources as data_sources
from ..data.datasets import Dataset, draw
from ..errors import BeftError
from ..models import files, loading
from ..records.provenance import build_record, origin
from ..study import Result, Run, Study
from ..training.device import default_device
from . import memory
from .memory import Plan

# Of the settings of a run, which model and rows it is of; the third only where `files.model_identity` has it.
MODEL_AND_DATA = ("model", "model_sha256", "model_config_sha256", "task", "data_fingerprint")


@dataclass
class Shelf:
    """What the studies of one sweep share: each task's rows, where each model is, and the model read last."""

    data: dict[tuple[Any, ...], Dataset] = field(default_factory=dict)
    files: dict[tuple[str, bool], files.ModelFiles] = field(default_factory=dict)
    model: dict[tuple[str, int | None, str], loading.Loaded] = field(default_factory=dict)


class Context:
    """The data and model of a study; the model is read when a run is missing, not before.

    Args:
        study: the study.
        shelf: what other studies of the same sweep have read; its own by default.
    """

    def __init__(self, study: Study, shelf: Shelf | None = None) -> None:
        self.study, self.shelf = study, shelf or Shelf()
        options = tuple(sorted(study.labels.items())) if study.labels else ()
        task = (study.task, study.offline, study.prompted, study.evaluated, study.validation, study.template, options)
        model = (study.model, study.offline)
        if task not in self.shelf.data:
            self.shelf.data[task] = _rows_of(study)
        if model not in self.shelf.files:
            self.shelf.files[model] = files.find(study.model, offline=study.offline)
        self.data, self.files = self.shelf.data[task], self.shelf.files[model]

    @property
    def loaded(self) -> loading.Loaded:
        """The model, read once."""
        outputs = None if self.study.prompted else self.data.task.outputs
        # a classifier is read in float32 whatever the study's dtype, and is the same one for all of them
        dtype = self.study.dtype if outputs is None else "float32"
        wanted, shelf = (self.study.model, outputs, dtype), self.shelf.model
        if wanted not in shelf:
            shelf.clear()  # one at a time: models are large
            name, offline = self.study.model, self.study.offline
            if outputs is None:
                _ = self.plan  # that a model fits is known before it is read
                shelf[wanted] = loading.load_causal(name, offline=offline, dtype=dtype)
            else:
                shelf[wanted] = loading.load(name, labels=outputs, offline=offline)
            known, read = self.files, shelf[wanted]
            changed = (known.sha256, known.config_sha256) != (read.sha256, read.config_sha256)
            if known.folder is not None and changed:  # the keys of the runs would be wrong
                raise BeftError(f"the files of model {name!r} changed while they were in use: start again")
        return shelf[wanted]

    @cached_property
    def plan(self) -> Plan | None:
        """How a bank on a language model is trained; None for classifiers. Raises BeftError where it does not fit."""
        if self.data.prompt is None or self.files.folder is None:
            return None
        config = memory.config_of(self.files.folder)
        loading.check_causal(config, self.study.model)
        longest = min(self.study.max_length, self.data.prompt.max_length)
        return memory.plan(config, memory.largest_bank(), longest, dtype=self.study.dtype)

    @property
    def labelled(self) -> Dataset:
        """The rows of a task whose texts have labels. Raises BeftError for one that is prompted."""
        if self.data.prompt is not None:
            raise BeftError(f"{self.study.task} is prompted here, and this needs texts with labels: leave prompted out")
        return self.data

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
            "model": short(self.study.model),
            **files.model_identity(self.files),
            "task": self.data.task.name,
            "data_fingerprint": self.data.fingerprint,
            **({"validation": Path(self.study.validation).name} if self.study.validation else {}),
        }

    def note_prompt(self, folder: Path) -> None:
        """Write a prompt of one's own beside an adapter or a checkpoint, so that `api.Tuned.load` reads either."""
        prompt, task = self.data.prompt, self.data.task
        if prompt is not None and prompt.wording is not None:
            longest = min(self.study.max_length, prompt.max_length)
            write_about(folder, About(task.labels, task.text_columns, longest, prompt.wording))

    def subject(self, rows: dict[str, int] | None = None) -> dict[str, Any]:
        """The `model` and `data` blocks of a record."""
        return origin(short(self.study.model), self.files, self.data, rows or {})

    def record(self, result: Result, settings: dict[str, Any], kind: str = "run", **more: Any) -> dict[str, Any]:
        """The record of one finished run, or of another kind that comes from one."""
        return build_record(
            kind,
            settings,
            self.subject(result.rows),
            default_device(),
            parameters=result.parameters,
            epochs=result.epochs,
            final=result.final,
            best=result.best,
            seconds=result.seconds,
            bank=result.bank,
            outcome=result.outcome,
            **more,
        )


def _rows_of(study: Study) -> Dataset:
    if not study.prompted:
        return data_sources.load(
            study.task, offline=study.offline, validation=study.validation, evaluated=study.evaluated
        )
    return data_sources.load_prompts(
        study.task,
        offline=study.offline,
        evaluated=study.evaluated or data_sources.EVALUATED,
        template=study.template,
        labels=study.labels,
        validation=study.validation,
    )


def short(model: str) -> str:
    """A model's name without the folders of one machine; hub names keep their owner."""
    return Path(model).name if Path(model).expanduser().is_dir() else model
