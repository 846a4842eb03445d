"""Scores of the bias terms of a model on a task, a ranking record per seed.

They come from the gradients before training and from a run that tunes all biases, as in the paper. A language model
on prompts that has no biases of its own is scored by its gradients alone: its terms are given some of zero, and
whatever a run makes of these has Mag+Angle 1.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..anatomy.projections import describe, key_bias_is_null
from ..anatomy.sites import TERMS, Site, width_of
from ..bank.bank import BiasBank
from ..bank.slots import BiasSlot, Slot, bias_slots
from ..data.batching import encode
from ..data.datasets import draw
from ..errors import BeftError
from ..progress import Bar
from ..records.provenance import build_record
from ..records.schema import key
from ..records.store import Store
from ..study import Run, Study
from ..theory.expressiveness import reach
from ..theory.scores import fisher, fisher_batch, mag_angle, magnitude
from ..training.classification import losses, targets
from ..training.device import default_device
from ..training.loop import fit
from ..training.multiple_choice import Prompted
from . import cluster
from .context import Context, Shelf

Record = dict[str, Any]
PROMPTS_AT_ONCE = 16  # their logits are as wide as the vocabulary
BY_CHANGE = {"magnitude": magnitude, "mag_angle": mag_angle}  # scores of a bias before and after a run


def score_study(study: Study, seeds: Sequence[int], rate: float, store: Store, progress: bool = True) -> list[Record]:
    """Score the terms of a model on a task, one ranking record per seed; what `store` has is not computed again.

    Magnitude and Mag+Angle come from a run that tunes all biases (after every epoch and at the end), Fisher and reach
    from the pre-trained model, before any training; a prompted study of a model without biases has Fisher alone.
    `study.dtype` is the precision of training and gradients; rankings belong in float32 (THEORY section 5), other
    precisions show what goes wrong. `reach` is null for prompts, and for a model where it is not defined. Raises
    BeftError: as `sweep.run`.
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
    # rows whose gradients are taken once, and that are trained on in every epoch; workers look at the models themselves
    passes = [1 if not address and _untrained(c) else 1 + c.study.epochs for c, _ in missing]
    work = [sum(c.settings(r)["train_size"] for r in own) * n for (c, own), n in zip(missing, passes, strict=True)]
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
    if _untrained(context):
        for run, settings in zip(runs, ranking_settings(context, runs), strict=True):
            began = time.perf_counter()
            scores: Any = before_training(context, run, advance=advance)
            found: Any = {"scores": scores, "by_epoch": [], "key_bias_null": null}
            found["seconds"] = time.perf_counter() - began
            store.write(build_record("ranking", settings, context.subject(), default_device(), **found))
        return
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


def _untrained(context: Context) -> bool:
    """Whether scores are of gradients alone: of prompts, by a model that has no bias of its own for a run to change."""
    return context.study.prompted and not any(site.has_bias for site in describe(context.loaded.model).sites)


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
    losses_of = _prompts(context, run) if study.prompted else _texts(context, rows)
    gradients: dict[tuple[str, int], list[np.ndarray]] = {}
    means: dict[tuple[str, int], list[np.ndarray]] = {}
    whole: list[float] = []
    loaded.model.to(default_device())
    at_once = min(at_once, PROMPTS_AT_ONCE) if study.prompted else at_once
    for start in range(0, len(rows), at_once):
        index = np.arange(start, min(start + at_once, len(rows)))
        R = len(index)
        with _bank_of_examples(loaded.model, R, run.seed, study) as bank:
            losses_of(bank, index).sum().backward()
            grads = [(slot, slot.values.grad.flatten(1).cpu()) for slot in bank.slots if slot.values.grad is not None]
            groups = [slice(at, at + batch) for at in range(0, R, batch)]
            whole += [float(sum(g[at].mean(0).square().sum() for _, g in grads) ** 0.5) for at in groups]
            for site in bank.anatomy.sites:
                width = width_of(loaded.model.get_submodule(site.module))
                own = next(own for slot, g in grads if (own := _gradient_at(site, width, slot, g)) is not None)
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
    if study.prompted:
        return scores
    encoded = encode(loaded.tokenizer, [context.labelled.train.rows[i] for i in rows[:at_once]], study.max_length)
    sample = np.arange(len(encoded.lengths))
    try:
        measured = reach(loaded.model.to("cpu"), encoded.rows(sample, torch.device("cpu")))
        scores["reach"] = {term: values.tolist() for term, values in measured.items()}
    except BeftError:
        pass  # not defined for this architecture; the record has null
    return scores


def _bank_of_examples(model: Any, R: int, seed: int, study: Study) -> BiasBank:
    """A bank of R runs, one for each example, of all biases; on prompts, of those of the three terms."""
    if not study.prompted:
        return BiasBank(model, ["all_biases"] * R, [seed] * R, study.dtype)

    def every_term() -> list[Slot]:
        return [slot for term in TERMS for slot in bias_slots(model, [f"b_{term}"] * R, [seed] * R)]

    return BiasBank(model, ["b_v"] * R, [seed] * R, study.dtype, every_term)


def _gradient_at(site: Site, width: int, slot: Slot, gradient: Tensor) -> Tensor | None:
    """The part of a slot's gradient (R, p) that is of the bias at a site, (R, d); None for a slot of another place.

    A slot has the bias of the site, or the whole one of a fused projection, of `width` entries.
    """
    if not isinstance(slot, BiasSlot) or slot.module != site.module:
        return None
    if slot.part == site.part:
        return gradient
    return site.part.take(gradient) if slot.part.size == width else None


def _texts(context: Context, rows: np.ndarray) -> Callable[[BiasBank, np.ndarray], Tensor]:
    """The losses (B,) of labelled texts, by their places in `rows`, each under a run of its own."""
    texts = [context.labelled.train.rows[i] for i in rows]
    encoded = encode(context.loaded.tokenizer, texts, context.study.max_length)
    labels = targets(context.data.train.labels[rows])

    def of(bank: BiasBank, index: np.ndarray) -> Tensor:
        logits = bank(torch.arange(bank.R, device=bank.device), None, **encoded.rows(index, bank.device))
        return losses(logits, labels[index].to(bank.device))

    return of


def _prompts(context: Context, run: Run) -> Callable[[BiasBank, np.ndarray], Tensor]:
    """The losses (B,) of prompts, by their places among the rows that a run draws, each under a run of its own."""
    drawn = draw(context.data, context.study.regime, run.seed, context.study.tuning)
    objective = Prompted(context.loaded, context.data, context.study, [drawn])

    def of(bank: BiasBank, index: np.ndarray) -> Tensor:
        return objective.loss(bank, torch.arange(bank.R, device=bank.device), None, drawn.train[index])

    return of
