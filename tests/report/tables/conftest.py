"""Records of debiasing made by hand, whose answers are known."""

from __future__ import annotations

import pytest
from fake_records import patch, tuned_model

from beft.report.tables import debiasing

NATS = {"none": [2.0], "full": [0.2, 0.4], "lora": [0.5, 0.7], "b_q": [1.0, 1.2], "b_v": [1.4, 1.8]}
GAPS = {"none": [0.30, 0.34], "lora": [0.20, 0.25], "b_v": [0.31, 0.33]}


@pytest.fixture
def patches():
    """Patches against gender, two seeds of each."""
    records = [patch(m, seed, nats) for m, values in NATS.items() for seed, nats in enumerate(values)]
    return debiasing.upstream(records)


@pytest.fixture
def tuned():
    """Models fine-tuned with some of them; the gap of origin is not defined."""
    records = [
        tuned_model(m, seed, {"accuracy": 0.8, "gap gender": gap, "gap origin": None})
        for m, values in GAPS.items()
        for seed, gap in enumerate(values)
    ]
    return debiasing.downstream(records)
