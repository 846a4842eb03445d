"""One attention head with its three biases in closed form, and what each of them can do to the output.

With n tokens, head size d and value size d_v (THEORY, setting and sections 1 to 4):

    l_ij = (W_q x_i + b_q) . (W_k x_j + b_k) / sqrt(d)     logits (n, n)
    a_i  = softmax_j(l_ij)                                 weights (n, n)
    o_i  = sum_j a_ij (W_v x_j + b_v)                      outputs (n, d_v)

Everything is torch and keeps the dtype it is given, so float64 in gives float64 out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor


@dataclass(frozen=True)
class Head:
    """One head: W_q and W_k (d, D), W_v (d_v, D), b_q and b_k (d,), b_v (d_v,)."""

    W_q: Tensor
    W_k: Tensor
    W_v: Tensor
    b_q: Tensor
    b_k: Tensor
    b_v: Tensor

    def queries(self, x: Tensor) -> Tensor:
        """x (n, D) -> (n, d)."""
        return x @ self.W_q.T + self.b_q

    def keys(self, x: Tensor) -> Tensor:
        """x (n, D) -> (n, d)."""
        return x @ self.W_k.T + self.b_k

    def values(self, x: Tensor) -> Tensor:
        """x (n, D) -> (n, d_v)."""
        return x @ self.W_v.T + self.b_v

    def __call__(self, x: Tensor, mask: Tensor | None = None, sink: float | None = None) -> tuple[Tensor, Tensor]:
        """x (n, D) -> outputs (n, d_v), weights (n, n). See `attend` for `mask` and `sink`."""
        return attend(self.queries(x), self.keys(x), self.values(x), mask, sink)

    def shifted(self, term: str, shift: Tensor) -> Head:
        """The same head with `shift` added to the bias of `term` ("q", "k" or "v")."""
        name = f"b_{term}"
        return replace(self, **{name: getattr(self, name) + shift})


def random_head(
    seed: int = 0, tokens: int = 6, width: int = 4, size: int = 2, value_size: int = 2
) -> tuple[Head, Tensor]:
    """A head with standard normal weights and biases in float64, and inputs x (tokens, width)."""
    draw = torch.Generator().manual_seed(seed)

    weights, biases = [(size, width), (size, width), (value_size, width)], [(size,), (size,), (value_size,)]
    shapes = [*weights, *biases, (tokens, width)]
    *numbers, x = (torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes)
    return Head(*numbers), x


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, sink: float | None = None
) -> tuple[Tensor, Tensor]:
    """Softmax attention of projected q (..., n, d), k (..., m, d), v (..., m, d_v).

    Args:
        mask: boolean, broadcastable to (..., n, m); False forbids a key.
        sink: logit of one extra slot whose value is zero and whose key carries no bias (gpt-oss, THEORY 1).

    Returns:
        outputs (..., n, d_v) and weights (..., n, m). The rows sum to 1, with a sink to 1 - a_sink.
    """
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    if sink is not None:
        logits = torch.cat([logits, logits.new_full((*logits.shape[:-1], 1), sink)], dim=-1)
    weights = torch.softmax(logits, dim=-1)[..., : k.shape[-2]]
    return weights @ v, weights


def tilt(weights: Tensor, keys: Tensor, shift: Tensor) -> Tensor:
    """What adding `shift` to b_q makes of attention weights: an exponential tilt, THEORY section 3.

    a'_ij is proportional to a_ij exp(shift . k_j / sqrt(d)): one factor per key, the same for every query.
    Weights (n, m), keys (m, d), shift (d,) -> (n, m); or weights (m,) of one query, many shifts (..., d) -> (..., m).
    """
    return torch.softmax(torch.log(weights) + shift @ keys.T / keys.shape[-1] ** 0.5, dim=-1)


def jacobian_q(weights: Tensor, values: Tensor, keys: Tensor) -> Tensor:
    """do_i/db_q = Cov_{j ~ a_i}(v_j, k_j) / sqrt(d), THEORY section 2.

    Args:
        weights: (..., n, m) with rows that sum to 1.
        values: (..., m, d_v).
        keys: (..., m, d).

    Returns:
        (..., n, d_v, d), one matrix per query.
    """
    products = (values.unsqueeze(-1) * keys.unsqueeze(-2)).flatten(-2)  # (..., m, d_v * d)
    mean_product = (weights @ products).unflatten(-1, (values.shape[-1], keys.shape[-1]))
    mean_v, mean_k = weights @ values, weights @ keys
    return (mean_product - mean_v.unsqueeze(-1) * mean_k.unsqueeze(-2)) / keys.shape[-1] ** 0.5


def jacobian_v(weights: Tensor, value_size: int) -> Tensor:
    """do_i/db_v = s_i I, s_i the row sum of the weights (..., n, m) -> (..., n, d_v, d_v)."""
    identity = torch.eye(value_size, dtype=weights.dtype)
    return weights.sum(-1)[..., None, None] * identity


def jacobian_by_autograd(head: Head, x: Tensor, term: str) -> Tensor:
    """do_i/db of "q", "k" or "v" by automatic differentiation, to check the formulas against: (n, d_v, d)."""
    still = torch.zeros_like(getattr(head, f"b_{term}"))
    return torch.autograd.functional.jacobian(lambda shift: head.shifted(term, shift)(x)[0], still)


def spread(weights: Tensor, points: Tensor) -> Tensor:
    """The largest standard deviation of points (m, d) under each row of weights (n, m), over all directions: (n,)."""
    mean = weights @ points
    second = torch.einsum("nm,md,me->nde", weights, points, points)
    covariance = second - mean.unsqueeze(-1) * mean.unsqueeze(-2)
    return torch.linalg.eigvalsh(covariance)[..., -1].clamp_min(0).sqrt()


def diameter(points: Tensor) -> Tensor:
    """The largest distance between two of the points (m, d)."""
    return (points.unsqueeze(0) - points.unsqueeze(1)).norm(dim=-1).max()


def sensitivity_bounds(weights: Tensor, values: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Spectral norm of do_i/db_q and its two bounds (THEORY section 2), each (n,), increasing.

    Returns:
        the norm, sigma_v sigma_k / sqrt(d), and diam(V) diam(K) / (4 sqrt(d)).
    """
    root = keys.shape[-1] ** 0.5
    norm = torch.linalg.matrix_norm(jacobian_q(weights, values, keys), ord=2)
    by_spread = spread(weights, values) * spread(weights, keys) / root
    by_diameter = diameter(values) * diameter(keys) / (4 * root)
    return norm, by_spread, by_diameter.expand_as(norm)


def reached(head: Head, x: Tensor, query: int = 0, largest: float = 40.0, rays: int = 24) -> dict[str, np.ndarray]:
    """Where each bias of a head of size 2 and value size 2 can take the output of one query (THEORY section 3).

    Args:
        x: inputs (n, D).
        query: which token's output.
        largest: length of the longest shift of b_q; every ray grows to it from zero in 200 steps.
        rays: directions.

    Returns:
        values (n, 2); output (2,), before any change; v, q (rays, 200, 2) and k (rays, 1, 2), the outputs under the
        shifts of each bias. b_v's are scaled to 0.6 of the values' diameter, b_k's all have length 10.
    """
    outputs, weights = head(x)
    values, start = head.values(x), outputs[query].numpy()
    angles = torch.linspace(0, 2 * torch.pi, rays + 1, dtype=x.dtype)[:-1]
    directions = torch.stack([angles.cos(), angles.sin()], dim=-1)  # (rays, 2)
    lengths = torch.linspace(0, largest**0.5, 200, dtype=x.dtype) ** 2
    shifts = directions[:, None] * lengths[None, :, None]  # (rays, 200, 2)
    return {
        "values": values.numpy(),
        "output": start,
        "v": start + float(0.6 * diameter(values)) * shifts.numpy() / largest,
        "q": (tilt(weights[query], head.keys(x), shifts) @ values).numpy(),
        "k": np.stack([head.shifted("k", 10 * d)(x)[0][query].numpy() for d in directions])[:, None],
    }


def outside_hull(points: Tensor, values: Tensor) -> np.ndarray:
    """How far points (p, d_v) are from being convex combinations of values (m, d_v): residuals (p,), 0 inside.

    Solves for non-negative weights that sum to one; works in any dimension, flat hulls included.
    """
    system = np.vstack([values.detach().numpy().T, np.ones(len(values))])
    return np.array([nnls(system, np.append(point, 1.0))[1] for point in points.detach().numpy()])


def merge_into_output_bias(b_o: Tensor, W_o: Tensor, b_v: Tensor) -> Tensor:
    """b_o + W_o b_v: the output bias that makes b_v redundant, exactly, without attention dropout (THEORY 4).

    b_o (D,), W_o (D, d_v), b_v (d_v,) -> (D,).
    """
    return b_o + W_o @ b_v


def dropped_row_sums(weights: Tensor, p: float, draws: int, seed: int = 0) -> Tensor:
    """Row sums of weights (n, m) under attention dropout, which is what do_i/db_v becomes: (draws, n).

    Their mean is 1 and their variance p/(1-p) sum_j a_ij^2 (THEORY section 2).
    """
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(draws, *weights.shape, generator=generator, dtype=weights.dtype) >= p
    return (weights * kept / (1 - p)).sum(-1)
