"""Which layers of a term to tune: runs of one layer each, a forward search, and the few layers that something chose.

Runs of one layer cost less than runs of the whole term: their backward pass ends there, and those of the same layer
share a bank (`packing`). One layer alone may want another rate than all of them: it is chosen on the tuning split.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from ..anatomy.projections import describe
from ..errors import BeftError
from ..models import loading
from ..records.store import Store
from ..study import Run, Study, layers_of, parse_method, split_method
from . import sweep
from .grid import Cell

Jobs = list[tuple[Study, list[Run]]]
Rates = dict[str, float]
Record = dict[str, Any]


def rates_alone(cells: Sequence[Cell], terms: Sequence[str], rates: Sequence[float], store: Store) -> list[Rates]:
    """Of each cell the rate of runs in named layers, {term: rate}; the cell's own where there is nothing to choose.

    Three layers, low, in the middle and high, are tuned alone at each of `rates` with the first seed. The rate with the
    best mean score on the tuning split, which must be there, is taken, the smaller of two equal ones.
    """
    own = [{term: _own_rate(cell, term) for term in terms} for cell in cells]
    if not rates:
        return own
    tried: Jobs = []
    for cell in cells:
        if not cell.study.tuning:
            raise BeftError("rates of single layers are chosen on a tuning split: give the cell a held_out above 0")
        depth = _depth(cell.study)
        probes = sorted({depth // 6, depth // 2, depth - 1 - depth // 6})
        names = [layers_of(term, [layer]) for term in terms for layer in probes]
        tried.append((cell.study, [Run(name, cell.seeds[0], rate) for name in names for rate in sorted(rates)]))
    return [
        found | _best(records, lambda r: split_method(r["settings"]["method"])[0])
        for found, records in zip(own, sweep.run_all(tried, store), strict=True)
    ]


def choosing(cells: Sequence[Cell], seeds: Sequence[int]) -> list[Cell]:
    """The same cells with the seeds of the runs that choose layers; without any given, each cell's own.

    What chooses are many runs, what compares the chosen layers with all of them few: these can have more seeds.
    """
    return [replace(cell, seeds=tuple(seeds) or cell.seeds) for cell in cells]


def whole(cells: Sequence[Cell], terms: Sequence[str]) -> Jobs:
    """What single layers are measured by, in each cell: the head, and each term in all of its layers.

    A language model has no head to train: without any run it is `zero_shot.score_untuned`.
    """
    methods = list(dict.fromkeys(terms))
    return [(c.study, _runs(c, methods if c.study.prompted else ["head", *methods], {})) for c in cells]


def alone(cells: Sequence[Cell], terms: Sequence[str], rates: Sequence[Rates] | None = None) -> Jobs:
    """Each term in every one layer alone, in each cell.

    Args:
        rates: of each cell, of runs in one layer, as `rates_alone` has them; by default those of the cell.

    Raises BeftError for a method that is not a single term, such as all_biases.
    """
    _check_terms(terms)
    return [
        (cell.study, _runs(cell, [layers_of(t, [layer]) for t in terms for layer in range(_depth(cell.study))], own))
        for cell, own in zip(cells, rates or [{}] * len(cells), strict=True)
    ]


def forward(
    cells: Sequence[Cell], terms: Sequence[str], steps: int, store: Store, rates: Sequence[Rates] | None = None
) -> list[dict[str, list[int]]]:
    """Of each cell the layers of each term in the order of a greedy forward search, from 0: {term: layers}.

    Every step tunes each layer that is left together with those that are chosen, with every seed of the cell, and
    chooses the one with the best mean score on the tuning split, the lower of two equal ones: a layer that repeats what
    a chosen one does is passed over, which an order by single layers cannot do. After `steps` layers the others
    follow by their scores in the last step. n steps of L layers are n * L - n * (n - 1) / 2 runs a term and seed.

    Args:
        steps: how many layers are chosen; of a model with fewer layers, all of them.
        rates: of runs in named layers, as of `alone`; a search has one rate, so that its sets differ in layers only.

    Raises BeftError for a cell without a tuning split, and for a method that is not a single term.
    """
    _check_terms(terms)
    if terms and not all(cell.study.tuning for cell in cells):
        raise BeftError("a forward search chooses layers on a tuning split: give the cell a held_out above 0")
    found: list[dict[str, list[int]]] = [{term: [] for term in terms} for _ in cells]
    rest: list[dict[str, list[int]]] = [{term: list(range(_depth(cell.study))) for term in terms} for cell in cells]
    for _ in range(steps):
        jobs: Jobs = []
        for cell, chosen, left, own in zip(cells, found, rest, rates or [{}] * len(cells), strict=True):
            names = [layers_of(term, [*chosen[term], layer]) for term in terms for layer in sorted(left[term])]
            jobs.append((cell.study, _runs(cell, names, own)))
        for chosen, left, records in zip(found, rest, sweep.run_all(jobs, store), strict=True):
            scores = _tuning_scores(records)
            for term in terms:
                mean = {layer: _mean(scores[layers_of(term, [*chosen[term], layer])]) for layer in left[term]}
                left[term] = sorted(mean, key=lambda layer: (-mean[layer], layer))
                chosen[term] += left[term][:1]
                del left[term][:1]
    return [{term: chosen[term] + left[term] for term in terms} for chosen, left in zip(found, rest, strict=True)]


def _check_terms(terms: Sequence[str]) -> None:
    for term in terms:
        method = parse_method(term)
        if not method.term or method.form or method.layers:
            raise BeftError(f"{term} is no single term with layers of its own: give some of b_q, b_k and b_v")


def _tuning_scores(records: Sequence[Record]) -> dict[str, list[float]]:
    """Scores on the tuning split by method."""
    scores: dict[str, list[float]] = {}
    for r in records:
        scores.setdefault(r["settings"]["method"], []).append(_tuning_score(r))
    return scores


def _tuning_score(r: Record) -> float:
    """Minus infinity for a run that failed and where nothing is held out."""
    tuning = r["final"]["tuning"] if r["outcome"] == "ok" else None
    return -math.inf if tuning is None else float(tuning)


def few(
    cells: Sequence[Cell],
    orders: Sequence[Mapping[str, Sequence[Sequence[int]]]],
    counts: Sequence[int],
    store: Store,
    rates: Sequence[Rates] | None = None,
    tried: Sequence[float] = (),
) -> list[list[Record]]:
    """The records of each term in the first `count` layers of each order, for every count; a set of layers once.

    A set of several layers has the best rate on the tuning split, with the first seed, of those `tried`, that of one
    layer and that of all.

    Args:
        orders: of each cell, {term: orders of its layers, from 0, best first}.
        counts: numbers of layers; those that are not below the number of a model's layers are left out.
        rates: as of `alone`; one layer alone keeps its rate.
    """
    named: list[list[str]] = []
    for by_term in orders:
        sets = [(t, order[:n]) for t, own in by_term.items() for order in own for n in counts if 0 < n < len(order)]
        named.append(list(dict.fromkeys(layers_of(term, chosen) for term, chosen in sets)))
    trials: Jobs = []
    for cell, names, own in zip(cells, named, rates or [{}] * len(cells), strict=True):
        runs = []
        for name in names:
            term, chosen, _ = split_method(name)
            of_one = own.get(term, _own_rate(cell, term))
            offered = sorted({*tried, of_one, _own_rate(cell, term)})
            if chosen.isdecimal() or not cell.study.tuning:  # one layer, or nothing to choose by
                offered = [of_one]
            runs += [Run(name, cell.seeds[0], rate) for rate in offered]
        trials.append((cell.study, runs))
    chosen_rates = [_best(records, lambda r: r["settings"]["method"]) for records in sweep.run_all(trials, store)]
    jobs: Jobs = [
        (cell.study, [Run(name, seed, best.get(name, _own_rate(cell, name))) for name in names for seed in cell.seeds])
        for cell, names, best in zip(cells, named, chosen_rates, strict=True)
    ]
    return sweep.run_all(jobs, store)


def _best(records: Sequence[Record], group: Callable[[Record], str]) -> Rates:
    """Of each group of records the rate with the best mean tuning score; one rate alone needs no score."""
    scores: dict[str, dict[float, list[float]]] = {}
    for r in records:
        scores.setdefault(group(r), {}).setdefault(r["settings"]["rate"], []).append(_tuning_score(r))
    return {name: max(sorted(own), key=lambda rate: _mean(own[rate])) for name, own in scores.items()}


def _mean(values: Sequence[float]) -> float:
    """The mean of scores, such that equal ones have equal means whatever the order that they are added in."""
    return round(fmean(values), 9)


def _own_rate(cell: Cell, method: str) -> float:
    """The rate that a cell has for the term of a method."""
    return cell.rates.get(split_method(method)[0], cell.rate)


def _depth(study: Study) -> int:
    """Layers of a study's model, an encoder or, of a prompted study, a language model."""
    if study.prompted:
        return describe(loading.load_causal(study.model, offline=study.offline).model).layers
    return describe(loading.load(study.model, labels=2, offline=study.offline).model).layers


def _runs(cell: Cell, methods: Sequence[str], rates: Rates) -> list[Run]:
    """Every method with every seed: named layers at the rate of `rates` for their term, else at that of the cell."""
    found = {}
    for method in methods:
        term, layers, _ = split_method(method)
        found[method] = rates[term] if layers and term in rates else _own_rate(cell, method)
    return [Run(method, seed, found[method]) for method in methods for seed in cell.seeds]
