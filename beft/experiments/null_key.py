"""Runs that need no training: where no key's bias has an effect, a run of b_k is the run of the head alone.

Both draw the same rows, head and dropout from the seed, and every gradient but that of $b_k$ is the same; that one is
zero but for rounding (THEORY section 1). So the numbers of the head's run are those of $b_k$.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..anatomy.projections import key_bias_is_null
from ..bank.baselines import open_bank
from ..study import Run, parse_method
from .context import Context

SAME_AS = "same_as"
"""Field of a record whose numbers were computed as those of another run: the key of that run's record."""


def stand_in(context: Context, run: Run) -> Run | None:
    """The run of the head alone whose numbers are those of `run`; None where it has to be trained.

    That is a run of $b_k$, in any form, on a classifier whose architecture makes every bias on the keys null.
    """
    if context.study.prompted or parse_method(run.method).term != "k":
        return None
    return replace(run, method="head") if key_bias_is_null(context.loaded.model).null else None


def record_by(context: Context, run: Run, head: dict[str, Any]) -> dict[str, Any]:
    """The record of `run` from that of its stand-in: its own settings and numbers of parameters, all else the head's.

    Its field `same_as` names the head's record.
    """
    study = context.study
    with open_bank(context.loaded.model, [run.method], [run.seed], study.dtype, sites=study.sites) as bank:
        parameters = bank.parameter_counts(0)
    settings = head["settings"] | {"method": run.method}
    left = {name: value for name, value in head.items() if name not in ("key", "checksum", "schema")}
    return left | {"settings": settings, "parameters": parameters, SAME_AS: head["key"]}
