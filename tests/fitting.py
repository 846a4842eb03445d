"""`fit` to its end, with a look at the bank on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beft.study import Result
from beft.training.loop import fit


def fitted(
    *arguments: Any,
    at_epoch: Callable[[Any, int], Any] | None = None,
    at_end: Callable[[Any, list[Result]], Any] | None = None,
    **more: Any,
) -> list[Result]:
    """The results of `fit`.

    Args:
        at_epoch: called with the bank and the number of epochs done.
        at_end: called with the bank and the results after the last epoch.
    """
    results: list[Result] = []
    for epoch in fit(*arguments, **more):
        results = epoch.results
        if at_epoch is not None:
            at_epoch(epoch.bank, epoch.number)
        if at_end is not None and epoch.last:
            at_end(epoch.bank, epoch.results)
    return results
