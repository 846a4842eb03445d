"""Which runs are missing, and running just those, in banks; every finished bank is written before the next begins.

A sweep is a list of jobs, each a study (model, task, regime, ...) and its runs (method, seed, rate). It is run in this
process, or by the workers of a Dask cluster (see `cluster`); the banks are the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..bank.bank import BiasBank, bank_on
from ..bank.peft_adapter import holds_adapter, load_adapter, merge, save_adapter
from ..errors import BeftError, OutOfMemory
from ..models import files as model_files
from ..records.run_log import log_runs
from ..records.schema import key
from ..records.store import Store
from ..study import WEIGHT_METHODS, Result, Run, Study, split_method
from ..training.loop import fit
from . import cluster
from .context import Context, Shelf, record_of, short
from .packing import bank_size as measured_size
from .packing import former_banks, pack

Record = dict[str, Any]
Job = tuple[Study, Sequence[Run]]
Todo = tuple[Context, list[list[Run]], list[Run]]  # former banks to repeat, and runs that are in none


def run(
    study: Study, runs: Sequence[Run], store: Store, progress: bool = True, bank_size: int | None = None
) -> list[Record]:
    """The records of `runs`, in order; those that `store` lacks are trained first. See `run_all`."""
    return run_all([(study, runs)], store, progress, bank_size)[0]


def run_all(
    jobs: Sequence[Job],
    store: Store,
    progress: bool = True,
    bank_size: int | None = None,
    scheduler: str | None = None,
) -> list[list[Record]]:
    """The records of every job, in order; those that `store` lacks are trained first.

    Missing runs of the same study share banks of at most `bank_size` runs, by default as many as fit into memory; a
    bank that does not fit after all is halved. An interrupt loses at most an epoch: finished banks have their records,
    the current one has a checkpoint, and the same call goes on from there.

    Args:
        scheduler: a Dask scheduler ("tcp://host:8786") or "local:N" for N workers here; by default the environment's
            BEFT_SCHEDULER, else this process. `store` must then be a folder or URL that all workers reach.

    Raises:
        BeftError: whatever data, model, memory or cluster say; records already written stay.
    """
    shelf = Shelf()
    contexts = [Context(study, shelf) for study, _ in jobs]
    settings = [[c.settings(r) for r in runs] for c, (_, runs) in zip(contexts, jobs, strict=True)]
    records = {key(s): recorded(store, s) for part in settings for s in part}
    missing: dict[str, tuple[Context, dict[str, Run]]] = {}
    for context, (_, runs), part in zip(contexts, jobs, settings, strict=True):
        for r, s in zip(runs, part, strict=True):
            if records[key(s)] is None:
                missing.setdefault(key(context.common()), (context, {}))[1].setdefault(key(s), r)
    todo = []
    kept = store.all("run") if missing else []
    for context, wanted in missing.values():
        former = former_banks(context, list(wanted.values()), kept)
        rest = [r for r in wanted.values() if not any(r in bank for bank in former)]
        todo.append((context, former, rest))
    count = sum(len(runs) for _, runs in missing.values())
    failed = 0
    address = scheduler or os.environ.get("BEFT_SCHEDULER")
    work = sum(_rows(context, [*rest, *sum(former, [])]) for context, former, rest in todo)
    with tqdm(total=work, desc="sweep", unit="row", unit_scale=True, disable=not (progress and todo)) as bar:
        if address and todo:
            done = _on_cluster(address, todo, store, bank_size, bar)
        else:
            done = _here(todo, store, bank_size, bar)
        for written in done:
            new = {record["key"]: record for record in written if records.get(record["key"], 0) is None}
            records |= new
            failed += sum(record["outcome"] != "ok" for record in new.values())
    log_runs(done=count - failed, reused=len(records) - count, failed=failed)
    return [[records[key(s)] or recorded(store, s) for s in part] for part in settings]  # type: ignore[misc]


def _banks(
    context: Context, former: list[list[Run]], rest: list[Run], size: int | None
) -> Iterator[list[Run]]:
    yield from former
    if rest:
        yield from pack(context, rest, size or measured_size(context, rest))


def _here(todo: Sequence[Todo], store: Store, bank_size: int | None, bar: tqdm) -> Iterator[list[Record]]:
    """Train every bank in this process."""
    for context, former, rest in todo:
        for members in _banks(context, former, rest, bank_size):
            yield train(context, members, store, progress=not bar.disable, seen=bar.update)


def _on_cluster(
    address: str,
    todo: Sequence[Todo],
    store: Store,
    bank_size: int | None,
    bar: tqdm,
) -> Iterator[list[Record]]:
    """Train every bank on some worker."""
    banks = [
        (context, members)
        for context, former, rest in todo
        for members in _banks(context, former, rest, bank_size)
    ]
    tasks = [(c.study, runs, [key(c.settings(r)) for r in runs]) for c, runs in banks]
    for i in cluster.train_each(address, tasks, store.location):
        context, runs = banks[i]
        bar.update(_rows(context, runs))
        yield [record for r in runs if (record := store.find(context.settings(r))) is not None]


def adapter(study: Study, run_: Run, store: Store) -> Path:
    """Folder of a run's PEFT adapter. Weights are kept beside the records; where they are not, the run is repeated.

    Raises:
        BeftError: the run has no adapter because it diverged, trains weights or a bias that PEFT's BEFT cannot hold, or
            is a head-only run of a model without a pooler.
    """
    if run_.method in WEIGHT_METHODS:
        raise BeftError(
            f"a {run_.method} run trains weights, which no BEFT adapter holds: export() writes a plain model"
        )
    context = Context(study)
    wanted = context.settings(run_)
    # when validation is scored has no bearing on the weights
    record = recorded(store, wanted) or store.find(wanted | {"validate": "last"})
    if record is not None:
        context.study = replace(study, validate=record["settings"]["validate"])
    name = key(context.settings(run_))
    folder = store.fetch(name)
    if folder is None:
        if not _may_hold(context, run_):
            raise BeftError(
                f"a {run_.method} run of {short(study.model)} trains no bias that PEFT's BEFT can hold: export() "
                "writes a plain checkpoint"
            )
        if record is None or record["outcome"] == "ok":
            record = train(context, [run_], store, progress=True, again=True)[0]
        folder = store.fetch(name)
        if folder is None:
            raise BeftError(f"the {run_.method} run of seed {run_.seed} has no adapter: {record['outcome']}")
    return folder


def _may_hold(context: Context, run_: Run) -> bool:
    """Whether such a run has an adapter; a bank of it says so without being trained."""
    with bank_on(context.loaded.model, [run_.method], [run_.seed]) as bank:
        return holds_adapter(bank, 0)


def export(study: Study, run_: Run, store: Store, folder: str | Path) -> Path:
    """Write a run as a plain checkpoint with its tokenizer, which any loader takes: see `adapters.merge`.

    Its bias comes from its adapter; a run without one is repeated.

    Raises:
        BeftError: as `adapters.merge`, and for a run that diverged.
    """
    context, folder = Context(study), Path(folder)
    tokenizer = context.loaded.tokenizer
    if run_.method in WEIGHT_METHODS or not _may_hold(context, run_):

        def write(bank: BiasBank, results: list[Result]) -> None:
            results[0].raise_if_lost()
            merge(bank, 0, folder, tokenizer)

        fit(context.loaded, context.data, study, [run_], on_end=write, progress=run_.method)
        return folder
    kept = adapter(study, run_, store)
    with bank_on(context.loaded.model, [split_method(run_.method)[0]], [run_.seed]) as bank:
        load_adapter(bank, 0, kept)
        merge(bank, 0, folder, tokenizer)
    return folder


def recorded(store: Store, settings: dict[str, Any]) -> Record | None:
    """The record of these settings; a run scored after each epoch also serves where the last one was asked for."""
    record = store.find(settings)
    if record is None and settings["validate"] == "last":
        record = store.find(settings | {"validate": "each"})
    return record


def train(
    context: Context,
    runs: list[Run],
    store: Store,
    progress: bool = False,
    seen: Callable[[int], Any] = lambda rows: None,
    again: bool = False,
) -> list[Record]:
    """Train a bank and write its records; half of it at a time where memory does not do.

    Args:
        seen: is told how many training rows were seen, epoch by epoch.
        again: train even what has a record, for its adapter.

    Raises:
        OutOfMemory: not even one run fits.
    """
    settings = [context.settings(r) for r in runs]
    name = key({"bank": [key(s) for s in settings]})
    with store.lock(name):  # another sweep on the same store may have trained it while we waited
        found = [recorded(store, s) for s in settings]
        halves: list[list[Run]] = []
        if again or None in found:
            try:
                _fit(context, runs, settings, name, store, progress, seen)
            except OutOfMemory as error:
                if len(runs) == 1:
                    raise
                tqdm.write(f"{error}; going on with banks of half the size")
                halves = [runs[: len(runs) // 2], runs[len(runs) // 2 :]]
        else:
            seen(_rows(context, runs))
        for part in (
            halves
        ):  # after the handler: while it runs, the error's traceback holds the bank that did not fit
            train(context, part, store, progress, seen, again)
    return [record for s in settings if (record := recorded(store, s)) is not None]


def _fit(
    context: Context,
    runs: list[Run],
    settings: list[dict[str, Any]],
    name: str,
    store: Store,
    progress: bool,
    seen: Callable[[int], Any],
) -> None:
    checkpoint = store.folder / "checkpoints" / f"{name}.safetensors"
    total, told = _rows(context, runs), 0

    def tell(bank: BiasBank, epoch: int) -> None:
        nonlocal told
        rows = total * epoch // context.study.epochs - told
        told += rows
        seen(rows)

    def keep(bank: BiasBank, results: list[Result]) -> None:
        """Adapters, then records, while the checkpoint is still there: a kill in between loses one epoch."""
        for i, result in enumerate(results):
            if result.outcome == "ok" and holds_adapter(bank, i):
                folder = store.folder / "adapters" / f"{key(settings[i])}.{os.getpid()}.tmp"
                save_adapter(
                    bank, i, folder, model_files.HUB.get(context.study.model, short(context.study.model))
                )
                store.keep(folder, key(settings[i]))
        for result, wanted in zip(results, settings, strict=True):
            if recorded(store, wanted) is None:  # runs are repeated for their weights, or for their company
                store.write(record_of(context, result, wanted))

    label = f"{', '.join(dict.fromkeys(r.method for r in runs))} x {len(runs)}"
    plan = context.plan
    fit(
        context.loaded,
        context.data,
        context.study,
        runs,
        on_epoch=tell,
        on_end=keep,
        checkpoint=None if runs[0].method == "full" else checkpoint,  # three times the model at every epoch
        progress=label if progress else False,
        chunk_tokens=plan.tokens if plan else None,
        checkpointing=bool(plan and plan.checkpointing and runs[0].method not in WEIGHT_METHODS),
    )


def _rows(context: Context, runs: Sequence[Run]) -> int:
    """Training rows that these runs see over all epochs."""
    return sum(context.settings(r)["train_size"] for r in runs) * context.study.epochs
