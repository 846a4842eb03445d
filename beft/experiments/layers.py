"""Which layers of a term to tune: runs of one layer each, and of the few that something puts first.

Runs of one layer cost less than runs of the whole term: their backward pass ends there, and those of the same layer
share a bank (`packing`). One layer alone wants a larger rate than all of them: it is chosen on the tuning split.
"""

import math
from collections.abc import Callable, Mapping, Sequence
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


def alone(cells: Sequence[Cell], terms: Sequence[str], rates: Sequence[Rates] | None = None) -> Jobs:
    """The head, each term in all of its layers, and each term in every one layer alone, in each cell.

    A language model has no head to train: without any run it is `zero_shot.score_untuned`.

    Args:
        rates: of each cell, of runs in one layer, as `rates_alone` has them; by default those of the cell.

    Raises BeftError for a method that is not a single term, such as all_biases.
    """
    for term in terms:
        method = parse_method(term)
        if not method.term or method.form or method.layers:
            raise BeftError(f"{term} is no single term with layers of its own: give some of b_q, b_k and b_v")
    jobs = []
    for cell, own in zip(cells, rates or [{}] * len(cells), strict=True):
        ones = [layers_of(term, [layer]) for term in terms for layer in range(_depth(cell.study))]
        head = [] if cell.study.prompted else ["head"]
        jobs.append((cell.study, _runs(cell, [*head, *terms, *ones], own)))
    return jobs


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
        tuning = r["final"]["tuning"] if r["outcome"] == "ok" else None
        by_rate = scores.setdefault(group(r), {})
        by_rate.setdefault(r["settings"]["rate"], []).append(-math.inf if tuning is None else tuning)
    return {name: max(sorted(own), key=lambda rate: fmean(own[rate])) for name, own in scores.items()}


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
