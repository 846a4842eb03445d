"""Domain transfer: runs trained on one task and scored on others without further training, a record per run.

A bank is trained as in a sweep, and scored on the targets while it is still on the model, because nothing keeps what
LoRA or full fine-tuning have trained. Its runs get the records that a sweep would have written.
"""

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..bank.adapter_files import fault_of
from ..bank.bank import BiasBank
from ..bank.baselines import open_bank
from ..bank.peft_adapter import load_adapter
from ..bank.virtual_tokens import reserve_virtual_tokens
from ..data.batching import CHUNKS, encode
from ..data.datasets import Dataset
from ..data.tasks import majority_score
from ..errors import BeftError, brief
from ..models.tokens import check_ids
from ..progress import Bar, log_runs
from ..records.provenance import build_record
from ..records.schema import key
from ..records.store import Store
from ..study import Run, Study, parse_method
from ..training.classification import logits, predictions, score_of
from ..training.device import default_device, repeatable
from ..training.loop import Epoch
from . import cluster, packing, sweep
from .context import Context, Shelf

Record = dict[str, Any]
Ended = Mapping[str, Any]
"""How a run ended: `parameters`, `final` and `outcome` of its record."""
Scores = dict[str, dict[str, Any]]
"""Of a run on each target, see `score_targets`."""


def transfer_all(
    jobs: Sequence[sweep.Job],
    targets: Sequence[str],
    store: Store,
    progress: bool = True,
    scheduler: str | None = None,
) -> list[list[Record]]:
    """Every run's score on its own validation split and on those of `targets`: a record per run, in order.

    What `store` has is not computed again. A run whose adapter is kept is loaded, any other is trained, goes on from
    its checkpoint after an interruption, and gets its ordinary record too where that is missing.

    Args:
        jobs: studies of tasks with classes, each with its runs, of any method.
        targets: tasks with the same classes, by name or path. The metric is that of the task trained on.
        scheduler: as in `sweep.run_all`; by default the environment's BEFT_SCHEDULER, else this process.

    Raises BeftError: as `sweep.run_all`; as `targets_of`, before anything is trained.
    """
    sweep.check(jobs, store, scheduler=scheduler)
    shelf = Shelf()
    contexts = [Context(study, shelf) for study, _ in jobs]
    wanted = [
        transfer_settings(context, runs, targets_of(context, targets))
        for context, (_, runs) in zip(contexts, jobs, strict=True)
    ]
    todo: list[_Missing] = []
    for context, (_, runs), settings in zip(contexts, jobs, wanted, strict=True):
        missing = [run for run, s in zip(runs, settings, strict=True) if store.find(s) is None]
        kept = [run for run in missing if _kept(context, run, store) is not None]
        if missing:
            todo.append(_Missing(context, runs, kept, [run for run in missing if run not in kept]))
    if todo:
        store.check_writable()
    address = scheduler or os.environ.get("BEFT_SCHEDULER")
    work = sum(sweep.row_visits(part.context, part.trained) for part in todo)
    with Bar(total=work, desc="transfer", unit="row", unit_scale=True, disable=not (progress and todo)) as bar:
        banks = ((part.context, bank) for part in todo for bank in part.banks(store))
        if address and todo:
            _on_cluster(address, list(banks), targets, store, bar)
        else:
            for context, bank in banks:
                score_bank(context, targets, bank, store, not bar.disable, bar.update)
    records = [[record for s in settings if (record := store.find(s)) is not None] for settings in wanted]
    _log(records, store)
    return records


@dataclass(frozen=True)
class _Missing:
    """The runs of a job that have no transfer record: `kept` by their adapters or lost, and those to be `trained`."""

    context: Context
    runs: Sequence[Run]
    kept: list[Run]
    trained: list[Run]

    def banks(self, store: Store) -> Iterator[list[Run]]:
        """Which of them share a bank: those to be trained as in a sweep of all runs of the job, the others apart."""
        yield from packing.pack(self.context, self.kept)
        names = {run: key(self.context.settings(run)) for run in self.runs}
        wanted = {name: run for run, name in names.items()}
        yield from packing.divide(self.context, wanted, {names[run] for run in self.trained}, store)


def _log(records: Sequence[Sequence[Record]], store: Store) -> None:
    """Count the runs, like a sweep."""
    unique = {record["key"]: record["outcome"] for part in records for record in part}
    outcomes = [outcome for name, outcome in unique.items() if name in store.written]
    done = outcomes.count("ok")
    log_runs(done=done, reused=len(unique) - len(outcomes), failed=len(outcomes) - done)


def _on_cluster(
    address: str, banks: Sequence[tuple[Context, list[Run]]], targets: Sequence[str], store: Store, bar: Bar
) -> None:
    tasks = [(c.study, runs, [key(s) for s in transfer_settings(c, runs, targets_of(c, targets))]) for c, runs in banks]
    work = functools.update_wrapper(functools.partial(_score_on_worker, list(targets)), _score_on_worker)
    for i, written in cluster.run_each(address, work, tasks, store.location):
        store.written.update(written)
        bar.update(sweep.row_visits(*banks[i]))


def _score_on_worker(
    targets: list[str], study: Study, runs: list[Run], names: list[str], location: str, threads: int
) -> list[str]:
    store = Store(location)

    def settings(context: Context, runs: list[Run]) -> list[dict[str, Any]]:
        return transfer_settings(context, runs, targets_of(context, targets))

    cluster.on_worker(study, runs, names, threads, settings, lambda c: score_bank(c, targets, runs, store))
    return sorted(store.written)


def targets_of(context: Context, names: Sequence[str]) -> dict[str, Dataset]:
    """The rows of the target tasks, by the tasks' names.

    Raises BeftError: a source that is prompted or has values; no targets; one that cannot be found, is the source, has
    other classes or another number of texts in a row, or the name of another one.
    """
    source = context.labelled.task
    if source.regression:
        raise BeftError(f"{source.name} has values and no classes: give a task with classes to score on others")
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise BeftError(f"targets {brief(names)} are no list of tasks: give e.g. ['product_sentiment']")
    found: dict[str, Dataset] = {}
    for name in names:
        data = Context(replace(context.study, task=name, validation=None), context.shelf).data
        target = data.task
        if target.labels != source.labels:
            classes = f"the classes {', '.join(target.labels)}" if target.labels else "values and no classes"
            raise BeftError(
                f"target {target.name} has {classes}, and {source.name} {', '.join(source.labels)}: give targets with "
                "the same classes, of the same names"
            )
        if len(target.text_columns) != len(source.text_columns):
            raise BeftError(
                f"a row of target {target.name} has {len(target.text_columns)} texts, and one of {source.name} "
                f"{len(source.text_columns)}: give targets with as many"
            )
        if target.name == source.name or target.name in found:
            twice = "is what the runs are trained on" if target.name == source.name else "is given twice"
            raise BeftError(f"target {target.name} {twice}: give other tasks, or files of other names")
        found[target.name] = data
    return found


def transfer_settings(context: Context, runs: Sequence[Run], targets: Mapping[str, Dataset]) -> list[dict[str, Any]]:
    """What identifies the transfer of each run: the run, and the targets' rows."""
    more = {"kind": "transfer", "targets": {name: data.fingerprint for name, data in targets.items()}}
    # when validation is scored has no bearing on the weights
    return [context.settings(run) | {"validate": "last"} | more for run in runs]


def score_bank(
    context: Context,
    targets: Sequence[str],
    runs: list[Run],
    store: Store,
    progress: bool = False,
    advance: Callable[[int], Any] = lambda rows: None,
) -> None:
    """Load or train the runs of a bank, score them on the targets, and write what `store` lacks.

    Args:
        advance: as of `sweep.train`.

    Raises OutOfMemory: not even one run fits.
    """
    data = targets_of(context, targets)
    wanted = dict(zip(runs, transfer_settings(context, runs, data), strict=True))

    def missing(some: Sequence[Run]) -> bool:
        return any(store.find(wanted[run]) is None for run in some)

    def keep(run: Run, ended: Ended, own: Scores, seconds: float) -> None:
        if missing([run]):
            store.write(_record(context, wanted[run], data, ended, own, seconds))

    def finish(epoch: Epoch) -> None:
        began = time.perf_counter()
        scores = score_targets(context, epoch.bank, data)
        seconds = (time.perf_counter() - began) / len(scores)
        for result, own in zip(epoch.results, scores, strict=True):
            ended = {"parameters": result.parameters, "final": result.final, "outcome": result.outcome}
            keep(result.run, ended, own, seconds)

    kept = {run: found for run in runs if (found := _kept(context, run, store)) is not None}
    if not missing(runs):  # the same runs in another job
        advance(sweep.row_visits(context, [run for run in runs if run not in kept]))
    elif len(kept) == len(runs):
        for scored in _score_kept(context, kept, data):
            keep(*scored)
    else:
        sweep.train(context, runs, store, progress, advance, missing, finish)


def _kept(context: Context, run: Run, store: Store) -> tuple[Record, Any] | None:
    """The record of a run that needs no training, with the folder of its adapter; without one where it was lost."""
    record = sweep.recorded(store, context.settings(run))
    if record is None or record["outcome"] != "ok":
        return None if record is None else (record, None)
    folder = store.fetch(record["key"], fault_of)
    return None if folder is None else (record, folder)


def _score_kept(
    context: Context, kept: Mapping[Run, tuple[Record, Any]], targets: Mapping[str, Dataset]
) -> Iterator[tuple[Run, Ended, Scores, float]]:
    """Runs by their adapters: each with its record, its scores on the targets and the seconds that they took."""
    whole = {run: folder for run, (_, folder) in kept.items() if folder is not None}
    for run in kept.keys() - whole.keys():
        yield run, kept[run][0], {}, 0.0
    if not whole:
        return
    began, study = time.perf_counter(), context.study
    methods, seeds = [parse_method(run.method).base for run in whole], [run.seed for run in whole]
    model = context.loaded.model.to(default_device())
    with open_bank(model, methods, seeds, study.dtype, sites=study.sites) as bank:
        for i, folder in enumerate(whole.values()):
            load_adapter(bank, i, folder)
        scores = score_targets(context, bank, targets)
    seconds = (time.perf_counter() - began) / len(scores)
    for run, own in zip(whole, scores, strict=True):
        yield run, kept[run][0], own, seconds


def score_targets(context: Context, bank: BiasBank, targets: Mapping[str, Dataset]) -> list[Scores]:
    """Every run of a bank on the targets' validation splits, {target: {"score", "recalls"}} each.

    The score is by the source's metric; recalls are the shares of the rows of each class that are predicted right, by
    which the report takes out of it how many rows of each class a target has. None where logits are no numbers. Raises
    BeftError for texts with tokens that the model does not know.
    """
    metric = context.data.task.metric
    longest = reserve_virtual_tokens(context.study, bank.model, bank.methods).max_length
    scores: list[Scores] = [{} for _ in range(bank.R)]
    for name, data in targets.items():
        rows, labels = data.validation.rows, data.validation.labels
        encoded = encode(context.loaded.tokenizer, rows, longest)
        check_ids(encoded.columns["input_ids"], bank.model)
        with repeatable(bank.device):
            values = logits(bank, encoded, [np.arange(len(rows))] * bank.R, CHUNKS[bank.device.type])
        for own, x in zip(scores, values, strict=True):
            value = score_of(metric, labels, x)
            own[name] = {"score": value, "recalls": None if value is None else recalls(labels, predictions(x).numpy())}
    return scores


def recalls(labels: np.ndarray, predicted: np.ndarray) -> list[float]:
    """The share of the rows of each class with rows, of labels (N,), that are predicted right."""
    return [float((predicted[own] == code).mean()) for code in range(labels.max() + 1) if (own := labels == code).any()]


def _record(
    context: Context,
    settings: dict[str, Any],
    targets: Mapping[str, Dataset],
    ended: Ended,
    scores: Scores,
    seconds: float,
) -> Record:
    """The record of a transfer; a run that was lost has no scores on the targets."""
    ok, metric = ended["outcome"] == "ok", context.data.task.metric
    nothing = {"score": None, "recalls": None}
    own = {name: (scores[name] if ok else nothing) | _about(data, metric) for name, data in targets.items()}
    subject = context.subject()
    subject["data"]["substitute"] |= any(data.substitute for data in targets.values())
    return build_record(
        "transfer",
        settings,
        subject,
        default_device(),
        parameters=ended["parameters"],
        source={"score": ended["final"]["validation"]} | _about(context.data, metric),
        targets=own,
        seconds=seconds,
        outcome=ended["outcome"],
    )


def _about(data: Dataset, metric: str) -> dict[str, Any]:
    """A validation split: the score of its majority class, the rows of each class, and where they are from."""
    labels = data.validation.labels
    about = {"majority": majority_score(metric, labels), "classes": np.bincount(labels, minlength=data.task.outputs)}
    return about | {"source": data.source, "substitute": data.substitute}
