"""Which runs are missing, and running them: in banks, in this process or on the workers of a cluster.

`sweep` trains, `ranking` scores biases before anything is trained, `zero_shot` scores a model as it is, `transfer`
scores runs on tasks that they were not trained on; `grid` lists the cells of a table, `context` reads the data and
model of a study once, `memory` says what fits.
"""

from .._lazy import hand_on

__getattr__, __all__ = hand_on(
    __name__,
    {
        "Cell": "grid",
        "cells": "grid",
        "run_all": "sweep",
        "score_untuned": "zero_shot",
        "transfer_all": "transfer",
    },
    modules=("grid", "memory", "ranking", "sweep", "transfer", "zero_shot"),
)
