"""One call for one's own data: tune a bias, keep the adapter, predict."""

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .bank.adapter_files import folder_of
from .bank.handover import check_handover, check_method, save_model, share_adapter, tuned_model
from .bank.saved import About, read_classifier, write_about
from .bank.virtual_tokens import reserve_virtual_tokens
from .data import sources as data_module
from .data.datasets import Dataset
from .data.own_prompt import Wording
from .data.texts import rows_of
from .errors import BeftError, brief, unknown
from .models import loading as models
from .paths import check_folder
from .records.folders import explained
from .study import Result, Run, Study
from .training.classification import predict
from .training.loop import fit
from .training.prompting import option_probabilities

_Call = TypeVar("_Call", bound=Callable[..., Any])


@dataclass
class Tuned:
    """A tuned classifier, or a language model that was tuned on a prompt with an option for each label.

    Attributes:
        model: a plain transformers model, the bias merged and the head in place; of a prompt PEFT's, with its tokens.
        tokenizer: its tokenizer.
        labels: names of the classes, in the order of the logits or options; none for a regression.
        result: parameters, epochs and outcome of the run; None for a model that `load` read.
        max_length: tokens that texts are cut to.
        columns: the columns of texts that it was tuned on, one or two but of a prompt; empty where not known.
        metric: the task's metric, that of `score`.
        majority: the score that always naming the largest class would have as an accuracy; None for a regression.
        wording: the prompt of a language model; None for a classifier with a head.
    """

    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    result: Result | None
    max_length: int
    columns: tuple[str, ...] = ()
    metric: str = ""
    majority: float | None = None
    wording: Wording | None = None

    @property
    def score(self) -> float | None:
        """The task's metric on the validation rows after the last epoch."""
        return self.result.final["validation"] if self.result is not None else None

    @property
    def about(self) -> About:
        """What stands beside it on disk."""
        return About(self.labels, self.columns, self.max_length, self.wording)

    def predict(self, texts: Any) -> Any:
        """The most probable label of each text or pair of texts; of a regression, its value.

        One text (a `str`) gives one label. Of a prompt with several columns a row is a tuple of texts, in the order of
        `columns`. A list, tuple, array, Series, generator, data set column or DataFrame with
        the columns of the tuning file gives a list of as many. For a model tuned on pairs a tuple of two texts is one
        pair, and gives one label; for a model of single texts it is two texts.

        Raises BeftError: no texts, single texts for a model of pairs or the other way round, or an item that is no text
        (missing, empty, a number unless of a prompt, ...), with its position counted from 1.
        """
        scores = self.probabilities(texts)  # (N, C), or (C,) of one text
        every = scores if scores.ndim == 2 else scores[None]
        answers = [self.labels[i] for i in every.argmax(1)] if self.labels else every[:, 0].tolist()
        return answers if scores.ndim == 2 else answers[0]

    def probabilities(self, texts: Any) -> np.ndarray:
        """Probabilities (N, C) of the classes, in the order of `labels`; values (N, 1) of a regression.

        Of one text (C,) or (1,). What `texts` may be, and what is raised, as in `predict`.
        """
        if self.wording is None:
            return predict(self.model, self.tokenizer, texts, self.max_length, self.columns or None)
        rows, single = rows_of(texts, self.columns, named=True)
        examples = [self.wording.example(row) for row in rows]
        scores = option_probabilities(self.model, self.tokenizer, examples, self.max_length)
        return scores[0] if single else scores

    def save(self, folder: str | Path) -> None:
        """Write a plain checkpoint that an AutoModelFor... loads; of the method `prompt` PEFT's adapter.

        A language model has a README.md with its prompt beside it. `Tuned.load` reads either. How PEFT loads an adapter
        is printed, and in its README.md. Raises BeftError: the folder is a file or cannot be written, or holds an
        adapter beside which a model cannot be.
        """
        check_folder(folder, "folder of the model")
        with explained(f"the folder {folder}"):
            code = save_model(self.model, self.tokenizer, folder)
            write_about(folder, self.about)
        if code is not None:
            print(code)

    @classmethod
    def load(cls, folder: str | Path, *, offline: bool = False) -> "Tuned":
        """A classifier from a checkpoint that `save` wrote, or an adapter that `tune` wrote, merged into its model.

        Checkpoints and PEFT adapters of others are read too, with the labels of their config.

        Args:
            folder: of the checkpoint or adapter.
            offline: never ask the hub for the model below an adapter.

        Raises BeftError: there is neither in the folder, or its files are damaged or belong to something else.
        """
        loaded, about = read_classifier(folder_of(folder), offline)
        own = (about.labels, None, about.max_length, about.columns)
        return cls(loaded.model, loaded.tokenizer, *own, wording=about.wording)


def _one_sentence_on_interrupt(call: _Call) -> _Call:
    """The same function, from which Ctrl-C comes as a KeyboardInterrupt with a sentence and a short traceback."""

    @functools.wraps(call)
    def interruptible(*values: Any, **named: Any) -> Any:
        try:
            return call(*values, **named)
        except KeyboardInterrupt:
            sentence = f"beft.{call.__name__} was interrupted before its end: call it again to start anew"
        raise KeyboardInterrupt(sentence)  # outside the handler, so without the frames of what was interrupted

    return interruptible  # type: ignore[return-value]


@_one_sentence_on_interrupt
def tune(
    task: Any,
    *,
    method: str = "b_v",
    rate: float = 3e-3,
    epochs: int = 8,
    seed: int = 0,
    kind: str | None = None,
    drop: Sequence[str] = (),
    validation: Any = None,
    columns: Mapping[str, str] | None = None,
    adapter: str | Path | None = None,
    progress: bool = True,
    **study: Any,
) -> Tuned:
    """Tune one bias term on a file with columns text (or text_a, text_b) and label, or on a task by name.

    A language model is tuned with `prompted=True`, `template="{text}\\nSentiment: {label}"`, which may name any
    columns, and perhaps `labels={"pos": "good", "neg": "bad"}`; see `data.sources.load_prompts`.

    Args:
        task: "reviews.csv" (or .tsv, .jsonl, .parquet), or a task's name; whatever else `data.sources.load` takes.
        method: b_v, b_q, b_k, all_biases or head; a bias in another form (b_v:lora); lora, adapter, prompt, mask, full.
        kind, drop, validation, columns: how rows of one's own are read, see `data.sources.load`.
        adapter: folder to write the run to as a PEFT adapter, with its tokenizer and a README.md that says how PEFT
            loads it. There is none of mask and full, nor of head on a model without a pooler.
        progress: print what was read and how an adapter is loaded, and show a bar.
        study: other fields of `study.Study`, e.g. model="bert-base-cased", regime="low", offline=True; all
            training rows are used unless `regime` says otherwise.

    Raises BeftError: bad input, one sentence with the remedy; a run that diverged. KeyboardInterrupt, with a
    sentence, on Ctrl-C.
    """
    _check_names(study)
    check_method(method, prompted=study.get("template") is not None)
    named = isinstance(task, str | os.PathLike)
    if not named and not (isinstance(task, Mapping) or hasattr(task, "columns") or hasattr(task, "column_names")):
        raise BeftError(
            f"cannot tune on {type(task).__name__} {brief(task)}: give a file, a table or the name of a task"
        )
    fields: dict[str, Any] = {"regime": "all", "task": task if named else type(task).__name__, "epochs": epochs} | study
    plan, run = Study(**fields), Run(method, seed, rate)
    if adapter is not None:
        check_folder(adapter, "adapter folder")
    given = {"kind": kind, "drop": drop, "validation": validation, "columns": columns, "evaluated": plan.evaluated}
    reading = {
        name: value for name, value in given.items() if not (value is None or isinstance(value, tuple) and not value)
    }
    rows, loaded = _opened(plan, plan.task if named else task, reading, progress)
    plan = reserve_virtual_tokens(plan, loaded.model, [method])
    names, label = rows.task.labels, f"{method} on {rows.task.name}"
    for epoch in fit(loaded, rows, plan, [run], progress=label if progress else False):
        if not epoch.number:
            check_handover(epoch.bank, 0, names, adapter)
        if epoch.last:
            (result,) = epoch.results
            result.raise_if_lost()
            model = tuned_model(epoch.bank, 0, names, plan.model)
            if adapter is not None:
                with explained(f"the adapter folder {adapter}"):
                    code = share_adapter(epoch.bank, 0, adapter, plan.model, names, loaded.tokenizer)
                if progress:
                    print(f"the adapter is in {adapter}, and loaded by\n\n{code}")
    read = tuple((columns or {}).get(column, column) for column in rows.task.text_columns)
    wording = rows.prompt.wording if rows.prompt is not None else None
    about = (read, rows.task.metric, _majority(rows), wording)
    length = min(plan.max_length, rows.prompt.max_length) if rows.prompt is not None else plan.max_length
    tuned = Tuned(model, loaded.tokenizer, names, result, length, *about)
    if adapter is not None:
        with explained(f"the adapter folder {adapter}"):
            write_about(adapter, tuned.about)
    return tuned


def _opened(plan: Study, task: Any, reading: dict[str, Any], progress: bool) -> tuple[Dataset, models.Loaded]:
    """The rows, of which a line is printed, and the model."""
    if plan.prompted:
        reading = {"evaluated": data_module.EVALUATED, "template": plan.template, "labels": plan.labels} | reading
    rows = (data_module.load_prompts if plan.prompted else data_module.load)(task, offline=plan.offline, **reading)
    if progress and rows.summary:
        print(rows.summary)
    if plan.prompted:
        return rows, models.load_causal(plan.model, offline=plan.offline, dtype=plan.dtype)
    return rows, models.load(plan.model, labels=rows.task.outputs, offline=plan.offline)


def _check_names(study: Mapping[str, Any]) -> None:
    """Raise BeftError for a keyword that is none of `tune`."""
    if study.get("prompted", False) is not False and study.get("template") is None:
        raise BeftError(
            "tune with prompted=True takes rows of one's own with template='{text}\\nSentiment: {label}': a task that "
            "has a prompt is run by beft.experiments.sweep.run with Study(..., prompted=True)"
        )
    own = list(inspect.signature(tune).parameters)[:-1]
    names = [*own, *(field.name for field in fields(Study) if field.name not in own)]
    for name in study:
        if name not in names:
            raise unknown("setting of tune", name, names)


def _majority(rows: Dataset) -> float | None:
    """The share of the largest class among the validation rows; None for a regression."""
    if rows.task.regression:
        return None
    labels = rows.validation.labels
    return float(np.bincount(labels).max() / len(labels))
