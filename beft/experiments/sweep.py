"""Which runs are missing, and running just those, in banks; every finished bank is written before the next begins.

A sweep is a list of jobs, each a study (model, task, regime, ...) and its runs (method, seed, rate). It is run in this
process, or by the workers of a Dask cluster (see `cluster`); the banks are the same.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..bank.adapter_files import fault_of
from ..bank.baselines import open_bank
from ..bank.export import check_form, merge
from ..bank.peft_adapter import holds_adapter, load_adapter, save_adapter
from ..bank.virtual_tokens import VIRTUAL
from ..data.batching import CHUNKS
from ..errors import BeftError, OutOfMemory, brief
from ..models import files as model_files
from ..paths import check_folder
from ..progress import Bar, log_runs
from ..records.folders import explained
from ..records.schema import key
from ..records.store import Store
from ..study import WEIGHT_METHODS, Run, Study, parse_method
from ..training.device import default_device
from ..training.loop import Epoch, fit
from . import cluster, null_key
from .context import Context, Shelf, short
from .packing import divide

Record = dict[str, Any]
Job = tuple[Study, Sequence[Run]]


def run(
    study: Study,
    runs: Sequence[Run],
    store: Store,
    progress: bool = True,
    bank_size: int | None = None,
    compute_null: bool = False,
) -> list[Record]:
    """The records of `runs`, in order; those that `store` lacks are trained first. See `run_all`."""
    return run_all([(study, runs)], store, progress, bank_size, compute_null=compute_null)[0]


def run_all(
    jobs: Sequence[Job],
    store: Store,
    progress: bool = True,
    bank_size: int | None = None,
    scheduler: str | None = None,
    compute_null: bool = False,
) -> list[list[Record]]:
    """The records of every job, in order; those that `store` lacks are trained first.

    Missing runs of the same study share banks of at most `bank_size` runs, by default as many as fit into memory; a
    bank that does not fit after all is halved. An interrupt loses at most an epoch: finished banks have their records,
    the current one has a checkpoint, and the same call goes on from there.

    Args:
        scheduler: a Dask scheduler ("tcp://host:8786") or "local:N" for N workers here; by default the environment's
            BEFT_SCHEDULER, else this process. `store` must then be a folder or URL that all workers reach.
        compute_null: train the runs of a null b_k too; else they get the numbers of the head alone, which they are,
            and their records say so in `same_as` (see `null_key`).

    Raises BeftError: bad data, model, memory or cluster, a store that cannot be written (before anything is trained);
    records already written stay.
    """
    check(jobs, store, bank_size, scheduler)
    shelf = Shelf()
    contexts = [Context(study, shelf) for study, _ in jobs]
    settings = [_settings(c, runs) for c, (_, runs) in zip(contexts, jobs, strict=True)]
    records = {key(s): recorded(store, s, compute_null) for own in settings for s in own}
    wanted: dict[str, tuple[Context, dict[str, Run]]] = {}
    by_head: dict[str, tuple[Context, Run, dict[str, Any]]] = {}  # runs that are not trained, with the head's settings
    for context, (_, runs), own in zip(contexts, jobs, settings, strict=True):
        for r, s in zip(runs, own, strict=True):
            name, head = key(s), None
            if records[name] is None and not compute_null:
                head = null_key.stand_in(context, r)
            if head is not None:
                by_head[name] = (context, r, context.settings(head))
                r, name = head, key(by_head[name][2])
                records.setdefault(name, recorded(store, by_head[key(s)][2]))
            wanted.setdefault(key(context.common()), (context, {}))[1].setdefault(name, r)
    missing = [{name for name in runs if records[name] is None} for _, runs in wanted.values()]
    todo = [(context, runs, names) for (context, runs), names in zip(wanted.values(), missing, strict=True) if names]
    address = scheduler or os.environ.get("BEFT_SCHEDULER")
    if todo:
        store.check_writable()
    if progress:  # what was read of rows of one's own
        for line in dict.fromkeys(context.data.summary for context, _, _ in todo if context.data.summary):
            Bar.write(line)
    work = sum(row_visits(context, [runs[name] for name in names]) for context, runs, names in todo)
    outcomes = []  # of what this sweep has trained; another one may have been first
    with Bar(total=work, desc="sweep", unit="row", unit_scale=True, disable=not (progress and todo)) as bar:
        banks = ((c, members) for c, runs, names in todo for members in divide(c, runs, names, store, bank_size))
        here = (train(c, members, store, progress=not bar.disable, advance=bar.update) for c, members in banks)
        finished = _on_cluster(address, list(banks), store, bar) if address and todo else here
        for written in finished:
            new = {record["key"]: record for record in written if records.get(record["key"], 0) is None}
            records |= new
            outcomes += [record["outcome"] for name, record in new.items() if name in store.written]
    for name, (context, r, s) in by_head.items():
        if (head_record := records[key(s)] or recorded(store, s)) is not None:
            borrowed = null_key.record_by(context, r, head_record)
            store.write(borrowed)
            records[name] = store.find(borrowed["settings"])
    done = outcomes.count("ok")
    asked = {key(s) for own in settings for s in own}
    log_runs(done=done, reused=len(asked) - len(outcomes), failed=len(outcomes) - done)
    return [[records[key(s)] or recorded(store, s) for s in own] for own in settings]  # type: ignore[misc]


def check(jobs: Sequence[Job], store: Store, bank_size: int | None = None, scheduler: str | None = None) -> None:
    """Raise BeftError for an argument of a sweep that is not what it has to be."""
    for job in jobs if isinstance(jobs, Sequence) else [jobs]:
        if not (isinstance(job, Sequence) and len(job) == 2 and isinstance(job[0], Study)):
            raise BeftError(f"{brief(job)} is no study with its runs: give a Study, and a list of Run")
        runs = job[1]
        if not isinstance(runs, Sequence) or not all(isinstance(run, Run) for run in runs):
            raise BeftError(f"runs {brief(runs)} are no list of Run: give e.g. [Run('b_v', seed=0, rate=1e-3)]")
    _check_store(store)
    if bank_size is not None and not (type(bank_size) is int and bank_size >= 1):
        raise BeftError(f"bank_size {brief(bank_size)} is not a whole number of at least 1")
    if not isinstance(scheduler, str | None):
        raise BeftError(f"scheduler {brief(scheduler)} is not an address: give tcp://host:port, or local:N")


def _check_store(store: object) -> None:
    if not isinstance(store, Store):
        raise BeftError(
            f"store {brief(store)} is no Store: give Store({brief(store)}), or one of another folder or URL"
        )


def _check_run(study: Study, run_: Run, store: Store) -> None:
    check([(study, [run_])], store)


def _on_cluster(address: str, banks: list[tuple[Context, list[Run]]], store: Store, bar: Bar) -> Iterator[list[Record]]:
    """Train every bank on some worker. What the workers write counts as written by `store`."""
    tasks = [(c.study, runs, [key(s) for s in _settings(c, runs)]) for c, runs in banks]
    for i, written in cluster.run_each(address, _train_on_worker, tasks, store.location):
        context, runs = banks[i]
        store.written.update(written)
        bar.update(row_visits(context, runs))
        yield [record for r in runs if (record := store.find(context.settings(r))) is not None]


def _train_on_worker(study: Study, runs: list[Run], names: list[str], location: str, threads: int) -> list[str]:
    store = Store(location)
    cluster.on_worker(study, runs, names, threads, _settings, lambda c: train(c, runs, store))
    return sorted(store.written)


def _settings(context: Context, runs: Sequence[Run]) -> list[dict[str, Any]]:
    return [context.settings(r) for r in runs]


def recorded(store: Store, settings: dict[str, Any], computed: bool = False) -> Record | None:
    """The record of these settings; a run scored after each epoch also serves where the last one was asked for.

    Args:
        computed: leave out a record that has another run's numbers, see `null_key`.
    """
    for validate in dict.fromkeys((settings["validate"], "each")):
        record = store.find(settings | {"validate": validate})
        if record is not None and not (computed and null_key.SAME_AS in record):
            return record
    return None


def train(
    context: Context,
    runs: list[Run],
    store: Store,
    progress: bool = False,
    advance: Callable[[int], Any] = lambda rows: None,
    wanted: Callable[[Sequence[Run]], bool] = lambda runs: False,
    finish: Callable[[Epoch], Any] = lambda epoch: None,
) -> list[Record]:
    """Train a bank and write its records; half of it at a time where memory does not do.

    Args:
        advance: is called with the number of training rows that were visited, step by step.
        wanted: whether to train these runs even where all have records, for something else that comes of them.
        finish: is called with the last epoch, once adapters and records are written.

    Raises OutOfMemory: not even one run fits.
    """
    settings = _settings(context, runs)
    name = key({"bank": [key(s) for s in settings]})
    with store.lock(name):  # another sweep on the same store may have trained it while we waited
        halves: list[list[Run]] = []
        if None in [recorded(store, s, True) for s in settings] or wanted(runs):
            try:
                _train(context, runs, settings, name, store, progress, advance, finish)
            except OutOfMemory as error:
                if len(runs) == 1:
                    raise
                Bar.write(f"{error}; going on with banks of half the size")
                halves = [runs[: len(runs) // 2], runs[len(runs) // 2 :]]
        else:
            advance(row_visits(context, runs))
        # after the handler: while it runs, the error's traceback holds the bank that did not fit
        for half in halves:
            train(context, half, store, progress, advance, wanted, finish)
    return [record for s in settings if (record := recorded(store, s)) is not None]


def _train(
    context: Context,
    runs: list[Run],
    settings: list[dict[str, Any]],
    name: str,
    store: Store,
    progress: bool,
    advance: Callable[[int], Any],
    finish: Callable[[Epoch], Any],
) -> None:
    checkpoint = store.folder / "checkpoints" / f"{name}.safetensors"
    label = f"{', '.join(dict.fromkeys(r.method for r in runs))} x {len(runs)}"
    epochs = fit(
        context.loaded,
        context.data,
        context.study,
        runs,
        checkpoint=None if runs[0].method == "full" else checkpoint,  # three times the model at every epoch
        progress=label if progress else False,
        advance=advance,
        **_chunks(context, runs[0].method),
    )
    with store.explained():  # of checkpoints and adapters
        for epoch in epochs:
            if epoch.last:
                _write(context, epoch, settings, store)
                finish(epoch)


def _chunks(context: Context, method: str) -> dict[str, Any]:
    """How `fit` is to cut a bank on a language model into chunks."""
    plan = context.plan
    if plan is None:
        return {}
    cost = replace(CHUNKS[default_device()], tokens=plan.tokens)
    return {"cost": cost, "recompute": plan.recompute and method not in WEIGHT_METHODS}


def _write(context: Context, epoch: Epoch, settings: list[dict[str, Any]], store: Store) -> None:
    """Adapters, then records, while the checkpoint is still there: a kill in between loses one epoch."""
    base = model_files.HUB.get(context.study.model, short(context.study.model))
    for i, result in enumerate(epoch.results):
        if result.outcome == "ok" and holds_adapter(epoch.bank, i):
            folder = store.folder / "adapters" / f"{key(settings[i])}.{os.getpid()}.tmp"
            save_adapter(epoch.bank, i, folder, base, context.data.task.labels)
            context.note_prompt(folder)
            store.keep(folder, key(settings[i]))
    for result, wanted in zip(epoch.results, settings, strict=True):
        if recorded(store, wanted, True) is None:  # runs are repeated for their adapters
            store.write(context.record(result, wanted))


def row_visits(context: Context, runs: Sequence[Run]) -> int:
    """Training rows that these runs visit over all epochs."""
    return sum(context.settings(r)["train_size"] for r in runs) * context.study.epochs


def adapter(study: Study, run_: Run, store: Store) -> Path:
    """Folder of a run's PEFT adapter.

    Weights are kept beside the records; where they are not, or not whole, the run is repeated.

    Raises BeftError: the run has no adapter because it diverged, trains weights or a bias that PEFT's BEFT cannot hold,
    or is a head-only run of a model without a pooler.
    """
    _check_run(study, run_, store)
    if run_.method in WEIGHT_METHODS:
        remedy = (
            "save_adapter() of its bank writes PEFT's" if run_.method in VIRTUAL else "export() writes a plain model"
        )
        raise BeftError(f"a {run_.method} run trains weights, of which a sweep keeps no adapter: {remedy}")
    context = Context(study)
    wanted = context.settings(run_)
    # when validation is scored has no bearing on the weights
    record = recorded(store, wanted) or store.find(wanted | {"validate": "last"})
    if record is not None:
        context.study = replace(study, validate=record["settings"]["validate"])
    name = key(context.settings(run_))
    folder = store.fetch(name, fault_of)
    if folder is None:
        if not _may_hold(context, run_):
            raise BeftError(
                f"a {run_.method} run of {short(study.model)} trains no bias that PEFT's BEFT can hold: export() "
                "writes a plain checkpoint"
            )
        if record is None or record["outcome"] == "ok":
            record = train(context, [run_], store, progress=True, wanted=lambda runs: True)[0]
        folder = store.fetch(name, fault_of)
        if folder is None:
            raise BeftError(f"the {run_.method} run of seed {run_.seed} has no adapter: {record['outcome']}")
    return folder


def _may_hold(context: Context, run_: Run) -> bool:
    """Whether such a run has an adapter; that shows in a bank of it that is not trained."""
    with open_bank(context.loaded.model, [run_.method], [run_.seed], sites=context.study.sites) as bank:
        return holds_adapter(bank, 0)


def export(
    study: Study, run_: Run, store: Store, folder: str | Path, *, layout: str | None = None, gguf: str | None = None
) -> Path:
    """Write a run as a plain checkpoint with its tokenizer, which any loader takes: see `bank.export.merge`.

    Its bias comes from its adapter; a run without one is repeated.

    Args:
        layout: "qwen2" or "llama", the family to write a language model as, for one without a flag for biases.
        gguf: "f32", "f16" or "q8_0", to write one GGUF file of such numbers in place of safetensors.

    Raises BeftError: as `merge`, for a run that diverged, and for a folder, a layout or a GGUF file that cannot be
    written (before anything is trained).
    """
    _check_run(study, run_, store)
    folder = check_folder(folder, "folder of the export")
    context = Context(study)
    check_form(context.loaded.model, layout, gguf)
    form: dict[str, Any] = {"layout": layout, "gguf": gguf}
    tokenizer, labels = context.loaded.tokenizer, context.data.task.labels
    if run_.method in WEIGHT_METHODS or not _may_hold(context, run_):
        for epoch in fit(context.loaded, context.data, study, [run_], progress=run_.method):
            if epoch.last:
                epoch.results[0].raise_if_lost()
                with explained(f"the folder {folder}"):
                    merge(epoch.bank, 0, folder, tokenizer, labels, **form)
                    context.note_prompt(folder)
        return folder
    kept = adapter(study, run_, store)
    with open_bank(context.loaded.model, [parse_method(run_.method).base], [run_.seed], sites=study.sites) as bank:
        load_adapter(bank, 0, kept)
        with explained(f"the folder {folder}"):
            merge(bank, 0, folder, tokenizer, labels, **form)
            context.note_prompt(folder)
    return folder
