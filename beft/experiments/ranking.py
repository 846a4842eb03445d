"""Scores of the bias terms of a model on a task, a ranking record per seed."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..anatomy.projections import key_bias_is_null
from ..anatomy.sites import TERMS
from ..bank.bank import BiasBank
from ..data.batching import encode
from ..data.datasets import draw
from ..errors import BeftError
from ..progress import Bar
from ..records.schema import key
from ..records.store import Store
from ..study import Run, Study
from ..theory.expressiveness import reach
from ..theory.scores import fisher, fisher_batch, mag_angle, magnitude
from ..training.classification import losses, targets
from ..training.device import default_device
from ..training.loop import fit
from . import cluster
from .context import Context, Shelf

Record = dict[str, Any]
BY_CHANGE = {"magnitude": magnitude, "mag_angle": mag_angle}  # scores of a bias before and after a run


def score_study(study: Study, seeds: Sequence[int], rate: float, store: Store, progress: bool = True) -> list[Record]:
    """Score the terms of a model on a task, one ranking record per seed; what `store` has is not computed again.

    Magnitude and Mag+Angle come from a run that tunes all biases (after every epoch and at the end), Fisher and reach
    from the pre-trained model, before any training. `study.dtype` is the precision of training and gradients; rankings
    belong in float32 (THEORY section 5), other precisions show what goes wrong. `reach` is null for a model where it is
    not defined. Raises BeftError: as `sweep.run`.
    """
    return score_all([(study, seeds, rate)], store, progress)[0]


def score_all(
    jobs: Sequence[tuple[Study, Sequence[int], float]],
    store: Store,
    progress: bool = True,
    scheduler: str | None = None,
) -> list[list[Record]]:
    """`score_study` of every (study, seeds, rate): in this process, or on the workers of a Dask cluster.

    Args:
        scheduler: as in `sweep.run_all`; by default the environment's BEFT_SCHEDULER, else this process.
    """
    shelf = Shelf()
    wanted: list[list[dict[str, Any]]] = []
    missing: list[tuple[Context, list[Run]]] = []
    for study, seeds, rate in jobs:
        context = Context(replace(study, validate="last"), shelf)
        runs = [Run("all_biases", seed, rate) for seed in seeds]
        wanted.append(ranking_settings(context, runs))
        if left := [run for run, s in zip(runs, wanted[-1], strict=True) if store.find(s) is None]:
            missing.append((context, left))
    if missing:
        store.check_writable()
    address = scheduler or os.environ.get("BEFT_SCHEDULER")
    # rows whose gradients are taken once, and that are trained on in every epoch
    work = [sum(c.settings(r)["train_size"] for r in runs) * (1 + c.study.epochs) for c, runs in missing]
    with Bar(total=sum(work), desc="rankings", unit="row", unit_scale=True, disable=not (progress and missing)) as bar:
        if address and missing:
            tasks = [(c.study, runs, [key(s) for s in ranking_settings(c, runs)]) for c, runs in missing]
            for i, _ in cluster.run_each(address, _rank_on_worker, tasks, store.location):
                bar.update(work[i])
        else:
            for context, runs in missing:
                score_missing(context, runs, store, progress, bar.update)
    return [[record for s in settings if (record := store.find(s)) is not None] for settings in wanted]


def _rank_on_worker(study: Study, runs: list[Run], names: list[str], location: str, threads: int) -> list[str]:
    store = Store(location)
    cluster.on_worker(study, runs, names, threads, ranking_settings, lambda c: score_missing(c, runs, store, False))
    return sorted(store.written)


def ranking_settings(context: Context, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What identifies the rankings by runs that tune all biases."""
    return [context.settings(run) | {"kind": "ranking", "method": None} for run in runs]


def score_missing(
    context: Context,
    runs: list[Run],
    store: Store,
    progress: bool,
    advance: Callable[[int], Any] = lambda rows: None,
) -> None:
    """Score the terms by each of `runs` and write the records; `advance` is called with the rows that are done with."""
    key_bias = key_bias_is_null(context.loaded.model)
    null = {"null": key_bias.null, "reason": key_bias.reason}
    before = [before_training(context, run, advance=advance) for run in runs]
    by_epoch: list[list[dict[str, Any]]] = [[] for _ in runs]
    label = f"ranking, {context.study.dtype} x {len(runs)}"
    shown = label if progress else False
    epochs = fit(context.loaded, context.data, context.study, runs, progress=shown, advance=advance)
    for epoch in epochs:
        if epoch.number:
            for i, rows in enumerate(by_epoch):
                rows.append({"epoch": epoch.number} | changes_of(epoch.bank, i))
        if epoch.last:
            for i, (result, wanted) in enumerate(zip(epoch.results, ranking_settings(context, runs), strict=True)):
                last = {n: v for n, v in by_epoch[i][-1].items() if n != "epoch"}
                norms = {t: epoch.bank.biases(i, t)[0].norm(dim=1).tolist() for t in TERMS}
                scores = last | before[i] | {"norms": norms}
                more = {"scores": scores, "by_epoch": by_epoch[i], "key_bias_null": null}
                store.write(context.record(result, wanted, "ranking", **more))


def changes_of(bank: BiasBank, run: int) -> dict[str, dict[str, list[float]]]:
    """The scores by the change of each bias so far, {score: {term: (L,) list}}."""
    moved = {term: [b.numpy() for b in bank.biases(run, term)] for term in TERMS}
    return {
        name: {term: [score(x, y) for x, y in zip(b0, b1, strict=True)] for term, (b0, b1) in moved.items()}
        for name, score in BY_CHANGE.items()
    }


def before_training(
    context: Context, run: Run, batch: int = 8, at_once: int = 64, advance: Callable[[int], Any] = lambda rows: None
) -> dict[str, Any]:
    """Fisher (both forms) and reach of every term and layer at the pre-trained weights, {score: {term: (L,) list}}.

    Per-example gradients are those of a bank in which every example is a run of its own.

    Args:
        batch: size of the batches of `fisher_batch` (the authors' is 8).
        at_once: examples in the bank, a multiple of `batch`.
        advance: is called with the number of examples that are done with, bank by bank.
    """
    loaded, study = context.loaded, context.study
    rows = draw(context.data, study.regime, run.seed, study.tuning).train
    encoded = encode(loaded.tokenizer, [context.labelled.train.rows[i] for i in rows], study.max_length)
    labels = targets(context.data.train.labels[rows])
    gradients: dict[tuple[str, int], list[np.ndarray]] = {}
    means: dict[tuple[str, int], list[np.ndarray]] = {}
    whole: list[float] = []
    loaded.model.to(default_device())
    for start in range(0, len(rows), at_once):
        index = np.arange(start, min(start + at_once, len(rows)))
        R = len(index)
        with BiasBank(loaded.model, ["all_biases"] * R, [run.seed] * R, study.dtype) as bank:
            logits = bank(torch.arange(R, device=bank.device), None, **encoded.rows(index, bank.device))
            losses(logits, labels[index].to(bank.device)).sum().backward()
            grads = {
                slot.parameter: slot.values.grad.flatten(1).cpu() for slot in bank.slots if slot.values.grad is not None
            }
            groups = [slice(at, at + batch) for at in range(0, R, batch)]
            whole += [float(sum(g[at].mean(0).square().sum() for g in grads.values()) ** 0.5) for at in groups]
            for site in bank.anatomy.sites:
                own = site.part.take(grads[f"{site.module}.bias"])
                batches = np.stack([own[at].mean(0) for at in groups])
                gradients.setdefault((site.term, site.layer), []).append(own.numpy())
                means.setdefault((site.term, site.layer), []).append(batches)
        advance(R)
    layers = range(bank.anatomy.layers)
    scores: dict[str, Any] = {
        "fisher": {t: [fisher(np.concatenate(gradients[t, i])) for i in layers] for t in TERMS},
        "fisher_batch": {t: [fisher_batch(np.concatenate(means[t, i]), whole) for i in layers] for t in TERMS},
        "reach": None,
    }
    sample = np.arange(min(len(rows), at_once))
    try:
        measured = reach(loaded.model.to("cpu"), encoded.rows(sample, torch.device("cpu")))
        scores["reach"] = {term: values.tolist() for term, values in measured.items()}
    except BeftError:
        pass  # not defined for this architecture; the record has null
    return scores
