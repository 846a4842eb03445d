"""Other forms of a tuned bias (paper, Table 4): LoRA, VeRA, VeRA-1D and DoRA of a vector.

A bias of d numbers is read as a matrix of m x n numbers, row by row, m and n the two factors of d nearest to its root
(768 = 24 x 32). A form says which numbers a run trains, packed into one row of the bank's stack, and what they add to
the pre-trained bias. All add nothing at the start.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BeftError

RANK, ALPHA = 8, 1.0  # the paper's
VERA_START = 0.1  # of VeRA's scaling of the rank, as in its paper and in PEFT


@dataclass(frozen=True)
class Form:
    """One way to write the change of a bias.

    Attributes:
        start: (d, draws, pre-trained bias (d,)) -> the trained numbers (p,) that a run begins with.
        delta: (trained (R, p), fixed (R, f), pre-trained bias (d,)) -> what is added to the bias (R, d).
        fixed: (d, draws) -> numbers of a run that are drawn and not trained (f,).
    """

    start: Callable[[int, torch.Generator, Tensor], Tensor]
    delta: Callable[[Tensor, Tensor, Tensor], Tensor]
    fixed: Callable[[int, torch.Generator], Tensor] = lambda d, draws: torch.zeros(0)


def factors(d: int) -> tuple[int, int]:
    """(m, n) with m * n = d and m <= n as near to each other as whole numbers allow: (24, 32) of 768, (1, 7) of 7."""
    m = next(m for m in range(math.isqrt(d), 0, -1) if d % m == 0)
    return m, d // m


def draws(seed: int, module: str, start: int) -> torch.Generator:
    """The random numbers of one run at one place: the same alone and in any bank."""
    digest = hashlib.sha256(f"{seed} {module} {start}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


def _uniform(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """(rows, columns) numbers as LoRA draws its A: Kaiming's uniform with a = sqrt(5), which is +-1/sqrt(columns)."""
    return (2 * torch.rand(rows, columns, generator=generator) - 1) / math.sqrt(columns)


def _lora_start(d: int, generator: torch.Generator, before: Tensor) -> Tensor:
    m, n = factors(d)
    return torch.cat([_uniform(RANK, n, generator).flatten(), torch.zeros(m * RANK)])


def _product(numbers: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """A (R, r, n) and B (R, m, r) of packed numbers (R, r n + m r)."""
    m, n = factors(d)
    return numbers[:, : RANK * n].unflatten(1, (RANK, n)), numbers[:, RANK * n :].unflatten(1, (m, RANK))


def _lora(trained: Tensor, fixed: Tensor, before: Tensor) -> Tensor:
    """A^T B^T alpha / r, flat: A (r, n) drawn, B (m, r) zero at the start; (R, d)."""
    A, B = _product(trained, len(before))
    return (A.mT @ B.mT).flatten(1) * (ALPHA / RANK)


def _vera_start(d: int, generator: torch.Generator, before: Tensor) -> Tensor:
    return torch.cat([torch.full((RANK,), VERA_START), torch.zeros(factors(d)[0])])


def _vera_fixed(d: int, generator: torch.Generator) -> Tensor:
    m, n = factors(d)
    return torch.cat([_uniform(RANK, n, generator).flatten(), _uniform(m, RANK, generator).flatten()])


def _vera(trained: Tensor, fixed: Tensor, before: Tensor) -> Tensor:
    """(diag(b) B diag(s) A)^T, flat: A and B drawn and fixed, s (r,) and b (m,) trained; (R, d)."""
    A, B = _product(fixed, len(before))
    s, b = trained[:, :RANK, None], trained[:, RANK:, None]
    return (b * B @ (s * A)).mT.flatten(1)


def _dora_start(d: int, generator: torch.Generator, before: Tensor) -> Tensor:
    norm = before.norm()
    if norm == 0:
        raise BeftError("a DoRA form scales the pre-trained bias, and here it is zero: use b_v:lora or the plain term")
    return torch.cat([norm[None], _lora_start(d, generator, before)])


def _dora(trained: Tensor, fixed: Tensor, before: Tensor) -> Tensor:
    """g (b0 + B A alpha / r) / |...| - b0 with a trained length g, (R, d); as in DoRA no gradient passes the norm."""
    A, B = _product(trained[:, 1:], len(before))
    direction = before + (B @ A).flatten(1) * (ALPHA / RANK)
    return trained[:, :1] * direction / direction.norm(dim=1, keepdim=True).detach() - before


FORMS: dict[str, Form] = {
    "lora": Form(_lora_start, _lora),
    "vera": Form(_vera_start, _vera, _vera_fixed),
    "vera1d": Form(lambda d, draws, before: torch.zeros(1), lambda t, fixed, before: t.expand(-1, len(before))),
    "dora": Form(_dora_start, _dora),
}
