"""What b_q, b_k and b_v can do in a given model: reach, entropy of the attention, and the perturbation test.

The closed forms are in `attention`; here they are evaluated on a Hugging Face model, at the places `anatomy`
names. Nothing is trained.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..anatomy.projections import describe, key_bias_is_null
from ..anatomy.sites import TERMS, Anatomy, Site
from ..data.batching import encode
from ..errors import BeftError, unknown
from .attention import attend, jacobian_q

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Sensitivity:
    """Per layer, over heads and real tokens; every array is (layers,).

    Attributes:
        rms: root mean square of the Frobenius norm of do_i/db_q, over sqrt(d): 1 would be b_v's.
        frobenius: mean of the same.
        spectral: mean spectral norm of do_i/db_q (nan if not asked for).
        entropy: mean entropy of a_i in nats.
        uniform: mean entropy of a uniform attention over the same real tokens, the largest possible.
        tokens: real tokens counted.
        head_size: d.
    """

    rms: np.ndarray
    frobenius: np.ndarray
    spectral: np.ndarray
    entropy: np.ndarray
    uniform: np.ndarray
    tokens: int
    head_size: int

    @property
    def directions(self) -> np.ndarray:
        """How many of the d directions b_q has any grip on: (Frobenius norm / spectral norm)^2 of the means."""
        return (self.frobenius * self.head_size**0.5 / self.spectral) ** 2


@dataclass(frozen=True)
class Change:
    """Change of an output: |y' - y| / |y| over the batch, and the largest |y' - y| of an entry."""

    relative: float
    largest: float


def reach(model: nn.Module, batches: Batch | Sequence[Batch]) -> dict[str, np.ndarray]:
    """The reach of each term, per layer: root mean square Frobenius norm of its Jacobian over sqrt(d_head).

    A score before any training, from one pass (THEORY section 2). b_v has 1 and b_k 0 by proof; b_q is measured.

    Args:
        model: a model `anatomy` knows, whose key bias is null.
        batches: one tokenised batch (input_ids or pixel_values, attention_mask) or several, padded on the right.

    Returns:
        term -> (layers,), dimensionless.

    Raises:
        BeftError: where the key bias is not null or positions enter the logits: the formula for b_q does not hold.
    """
    measured = sensitivity(model, batches, spectral=False)
    return {"q": measured.rms, "k": np.zeros_like(measured.rms), "v": np.ones_like(measured.rms)}


def sensitivity(model: nn.Module, batches: Batch | Sequence[Batch], spectral: bool = True) -> Sensitivity:
    """Norms of do_i/db_q and entropies of the attention, per layer, from one pass. Arguments as in `reach`."""
    anatomy = describe(model)
    verdict = key_bias_is_null(model)
    reason = None if verdict.null else verdict.reason
    if "relative" in anatomy.positions:
        reason = reason or "its attention adds terms of the position"
    if "another scale of the logits" in anatomy.extras or anatomy.sites[0].attention != "self":
        reason = reason or "its attention is another one than the formula's"
    if reason is not None:
        raise BeftError(
            f"reach is not defined yet for {anatomy.family} with {anatomy.positions} positions, because {reason}: "
            "rank its terms by another score"
        )
    sums = np.zeros((5, anatomy.layers))
    heads = tokens = 0
    for batch in [batches] if isinstance(batches, Mapping) else batches:
        projected = capture(model, batch, anatomy)
        for layer in range(anatomy.layers):
            q, k, v = (projected[term][layer] for term in TERMS)  # (B, H, T, d)
            real = _real(batch, q)  # (B, T)
            seen = visible(real, anatomy.causal)
            _, weights = attend(q, k, v, seen)
            rows = real[:, None, :].expand(weights.shape[:3])  # (B, H, T): queries that are real tokens
            jacobian = jacobian_q(weights, v, k)[rows]  # (real tokens x heads, d, d)
            norm = torch.linalg.matrix_norm(jacobian) / k.shape[-1] ** 0.5
            largest = _spectral(jacobian) if spectral else norm * torch.nan
            entropy = torch.special.entr(weights).sum(-1)[rows]
            uniform = seen.sum(-1).log().expand_as(rows)[rows]
            sums[:, layer] += [float(x.double().sum()) for x in (norm**2, norm, largest, entropy, uniform)]
        tokens += int(real.sum())
        heads = rows.shape[1]
    if tokens == 0:
        raise BeftError("no real token in these batches: check the texts and the attention mask")
    square, norm_mean, spectral_mean, entropy_mean, uniform_mean = sums / (tokens * heads)
    return Sensitivity(
        np.sqrt(square), norm_mean, spectral_mean, entropy_mean, uniform_mean, tokens, anatomy.head_size
    )


def tokenize(
    tokenizer: Any, texts: Sequence[tuple[str, ...]], batch_size: int = 16, max_length: int = 128
) -> list[Batch]:
    """Texts, one tuple of columns per row, as padded batches of at most `batch_size` rows, in order."""
    encoded = encode(tokenizer, texts, max_length)
    starts = range(0, len(texts), batch_size)
    rows = [np.arange(start, min(start + batch_size, len(texts))) for start in starts]
    return [encoded.rows(index, torch.device("cpu")) for index in rows]


def capture(model: nn.Module, batch: Batch, anatomy: Anatomy | None = None) -> dict[str, list[Tensor]]:
    """Outputs of the projections in one pass, without dropout: term -> one (B, heads, T, d_head) per layer."""
    anatomy = anatomy or describe(model)
    found: dict[tuple[str, int], Tensor] = {}

    def record(site: Site, output: Tensor) -> None:
        found[site.term, site.layer] = site.part.take(output).detach()

    with _hooks(model, anatomy.sites, record), _evaluating(model), torch.no_grad():
        model(**batch)
    return {
        term: [
            found[term, layer].unflatten(-1, (-1, anatomy.head_size)).transpose(-2, -3)
            for layer in range(anatomy.layers)
        ]
        for term in TERMS
    }


def perturb(
    model: nn.Module, batch: Batch, sites: Sequence[Site], seed: int = 0, scale: float = 1.0
) -> Change:
    """How the output changes when N(0, scale^2) is added to the biases at `sites`: the null test.

    The output is the logits, or the last hidden states of the real tokens for a model without a head. Works in
    the model's own dtype and on projections without a bias; the model itself stays as it is.
    """
    generator = torch.Generator().manual_seed(seed)
    shifts = {s: scale * torch.randn(s.size, generator=generator) for s in sites}

    def add(site: Site, output: Tensor) -> Tensor:
        return output + site.part.put(shifts[site], output.shape[-1]).to(output)

    with _evaluating(model), torch.no_grad():
        before = _output(model, batch)
        with _hooks(model, sites, add):
            after = _output(model, batch)
    change = after - before
    return Change(float(change.norm() / before.norm()), float(change.abs().max()))


def perturbation_table(
    model: nn.Module, batch: Batch, dtypes: Sequence[str] = tuple(DTYPES), seed: int = 0
) -> list[dict[str, Any]]:
    """`perturb` for every term and precision: rows {"term", "precision", "relative", "largest"}.

    Raises BeftError for a precision that is not in `DTYPES`.
    """
    anatomy = describe(model)
    rows = []
    for name in dtypes:
        if name not in DTYPES:
            raise unknown("precision", name, DTYPES)
        cast = copy.deepcopy(model).to(DTYPES[name])
        inputs = {key: x.to(DTYPES[name]) if x.is_floating_point() else x for key, x in batch.items()}
        for term in TERMS:
            change = perturb(cast, inputs, anatomy.of(term), seed)
            rows.append({"term": f"b_{term}", "precision": name, **asdict(change)})
    return rows


def _spectral(matrices: Tensor) -> Tensor:
    """Largest singular value of matrices (n, a, b): (n,). Much faster for many small ones than their SVD."""
    gram = matrices @ matrices.transpose(-1, -2)
    return torch.linalg.eigvalsh(gram)[..., -1].clamp_min(0).sqrt()


def _output(model: nn.Module, batch: Batch) -> Tensor:
    output = model(**batch)
    if getattr(output, "logits", None) is not None:
        return output.logits.double()
    hidden = output.last_hidden_state
    return hidden[_real(batch, hidden.unsqueeze(1))].double()


def visible(real: Tensor, causal: bool) -> Tensor:
    """Which keys a query sees, (B, 1, 1 or T, T), where `real` (B, T) says which tokens are not padding."""
    seen = real[:, None, None, :]
    return seen & torch.ones(2 * real.shape[-1:], dtype=torch.bool).tril() if causal else seen


def _real(batch: Batch, states: Tensor) -> Tensor:
    """Which of the tokens of states (B, ., T, .) are not padding: (B, T), boolean."""
    mask = batch.get("attention_mask")
    if mask is not None:
        return mask.bool()
    return torch.ones(states.shape[0], states.shape[-2], dtype=torch.bool, device=states.device)


@contextlib.contextmanager
def _hooks(model: nn.Module, sites: Sequence[Site], act: Any) -> Iterator[None]:
    """Call act(site, output) on the output of every site's module; what it returns, if anything, replaces it."""
    handles = [
        model.get_submodule(site.module).register_forward_hook(
            lambda module, args, output, site=site: act(site, output)
        )
        for site in sites
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
