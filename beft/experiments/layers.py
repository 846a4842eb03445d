"""Which layers of a term to tune: runs of one layer each, and of the few that something puts first.

Runs of one layer cost less than runs of the whole term: their backward pass ends there, and those of the same layer
share a bank (`packing`).
"""

from collections.abc import Mapping, Sequence

from ..anatomy.projections import describe
from ..errors import BeftError
from ..models import loading
from ..study import Run, Study, layers_of, parse_method
from .grid import Cell

Jobs = list[tuple[Study, list[Run]]]


def alone(cells: Sequence[Cell], terms: Sequence[str]) -> Jobs:
    """The head, each term in all of its layers, and each term in every one layer alone, in each cell.

    A language model has no head to train: without any run it is `zero_shot.score_untuned`.

    Raises BeftError for a method that is not a single term, such as all_biases.
    """
    for term in terms:
        method = parse_method(term)
        if not method.term or method.form or method.layers:
            raise BeftError(f"{term} is no single term with layers of its own: give some of b_q, b_k and b_v")
    jobs = []
    for cell in cells:
        ones = [layers_of(term, [layer]) for term in terms for layer in range(_depth(cell.study))]
        head = [] if cell.study.prompted else ["head"]
        jobs.append((cell.study, _runs(cell, [*head, *terms, *ones])))
    return jobs


def few(cells: Sequence[Cell], orders: Sequence[Mapping[str, Sequence[Sequence[int]]]], counts: Sequence[int]) -> Jobs:
    """Each term in the first `count` layers of each order, for every count; a set of layers once.

    Args:
        orders: of each cell, {term: orders of its layers, from 0, best first}.
        counts: numbers of layers; those that are not below the number of a model's layers are left out.
    """
    jobs = []
    for cell, by_term in zip(cells, orders, strict=True):
        names = [
            layers_of(term, order[:count])
            for term, own in by_term.items()
            for order in own
            for count in counts
            if 0 < count < len(order)
        ]
        jobs.append((cell.study, _runs(cell, list(dict.fromkeys(names)))))
    return jobs


def _depth(study: Study) -> int:
    """Layers of a study's model, an encoder or, of a prompted study, a language model."""
    if study.prompted:
        return describe(loading.load_causal(study.model, offline=study.offline).model).layers
    return describe(loading.load(study.model, labels=2, offline=study.offline).model).layers


def _runs(cell: Cell, methods: Sequence[str]) -> list[Run]:
    """Every method with every seed, at the rate that the cell has for its term."""
    rates = {method: cell.rates.get(method.partition("[")[0], cell.rate) for method in methods}
    return [Run(method, seed, rates[method]) for method in methods for seed in cell.seeds]
