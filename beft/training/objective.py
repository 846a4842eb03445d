"""What a head is trained to, and what its logits say: classes, or one value."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Array = TypeVar("Array", Tensor, np.ndarray)


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of each example (B,): cross-entropy in nats of codes (B,), squared error of values (B,).

    `logits` is (B, C), with C = 1 for values.
    """
    if targets.is_floating_point():
        return (logits[:, 0].float() - targets.float()).square()
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def targets(labels: object) -> Tensor:
    """Labels (N,) as `losses` takes them: int64 codes, or float32 values."""
    found = torch.as_tensor(labels)
    return found.float() if found.is_floating_point() else found


def predictions(logits: Array) -> Array:
    """What logits (N, C) say: codes (N,), or values (N,) where C is 1. Class probabilities do as well."""
    return logits[:, 0] if logits.shape[-1] == 1 else logits.argmax(-1)
