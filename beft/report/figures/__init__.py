"""The figures, in one style (`beft.report.style`)."""

from ..._lazy import hand_on

__getattr__, __all__ = hand_on(
    __name__,
    modules=(
        "cells",
        "debiasing",
        "efficiency",
        "expressiveness",
        "fine_tuning",
        "layers",
        "ranking",
        "real",
        "transfer",
    ),
)
