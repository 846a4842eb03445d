"""The effect of b_q, b_k and b_v in a given model: reach, entropy of the attention, and perturbation tests.

The closed forms of `attention` are evaluated on a Hugging Face model, at the sites of `anatomy`. Nothing is trained.
"""

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..anatomy.architectures import SHARED
from ..anatomy.projections import describe, key_bias_is_null
from ..anatomy.sites import LINEAR, TERMS, Anatomy, Site
from ..data.batching import encode
from ..errors import BeftError, unknown
from .attention import attend, jacobian_q

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
Batch = Mapping[str, Tensor]
Act = Callable[[Site, Tensor], Tensor | None]


@dataclass(frozen=True)
class Sensitivity:
    """Per layer, over heads and real tokens; every array is (layers,).

    Attributes:
        rms: root mean square of the Frobenius norm of do_i/db_q over sqrt(d); that of b_v is 1.
        frobenius: mean of the Frobenius norm of do_i/db_q over sqrt(d).
        spectral: mean spectral norm of do_i/db_q (nan if not computed).
        entropy: mean entropy of a_i in nats.
        uniform: mean entropy of uniform attention over the same real tokens, the largest possible.
        tokens: number of real tokens.
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
        """Effective number of the d directions that b_q can move: (Frobenius / spectral norm)^2 of the means."""
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

    Raises BeftError: the key bias is not null or positions enter the logits, so the formula for b_q does not hold.
    """
    measured = sensitivity(model, batches, spectral=False)
    return {"q": measured.rms, "k": np.zeros_like(measured.rms), "v": np.ones_like(measured.rms)}


def sensitivity(model: nn.Module, batches: Batch | Sequence[Batch], spectral: bool = True) -> Sensitivity:
    """Norms of do_i/db_q and entropies of the attention, per layer, from one pass. Arguments as in `reach`."""
    anatomy = describe(model)
    key_bias = key_bias_is_null(model)
    reason = None if key_bias.null else key_bias.reason
    if "relative" in anatomy.positions:
        reason = reason or "its attention adds terms of the position"
    if SHARED in anatomy.extras:
        reason = reason or "it uses a layer at several depths"
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
            mask = visible(real, anatomy.causal)
            _, weights = attend(q, k, v, mask)
            rows = real[:, None, :].expand(weights.shape[:3])  # (B, H, T): queries that are real tokens
            jacobian = jacobian_q(weights, v, k)[rows]  # (real tokens x heads, d, d)
            norm = torch.linalg.matrix_norm(jacobian) / k.shape[-1] ** 0.5
            largest = _spectral(jacobian) if spectral else norm * torch.nan
            entropy = torch.special.entr(weights).sum(-1)[rows]
            uniform = mask.sum(-1).log().expand_as(rows)[rows]
            sums[:, layer] += [float(x.double().sum()) for x in (norm**2, norm, largest, entropy, uniform)]
        tokens += int(real.sum())
        heads = rows.shape[1]
    if tokens == 0:
        raise BeftError("no real token in these batches: check the texts and the attention mask")
    square, norm_mean, spectral_mean, entropy_mean, uniform_mean = sums / (tokens * heads)
    return Sensitivity(np.sqrt(square), norm_mean, spectral_mean, entropy_mean, uniform_mean, tokens, anatomy.head_size)


def tokenize(
    tokenizer: Any, texts: Sequence[tuple[str, ...]], batch_size: int = 16, max_length: int = 128
) -> list[Batch]:
    """Texts, one tuple of columns per row, as padded batches of at most `batch_size` rows, in order."""
    encoded, order = encode(tokenizer, texts, max_length), np.arange(len(texts))
    starts = range(0, len(texts), batch_size)
    return [encoded.rows(order[start : start + batch_size], torch.device("cpu")) for start in starts]


def capture(model: nn.Module, batch: Batch, anatomy: Anatomy | None = None) -> dict[str, list[Tensor]]:
    """Outputs of the projections in one pass, without dropout: term -> one (B, heads, T, d_head) per layer."""
    anatomy = anatomy or describe(model)
    heads: dict[Site, Tensor] = {}

    def record(site: Site, output: Tensor) -> None:
        heads[site] = site.part.take(output).unflatten(-1, (-1, anatomy.head_size)).transpose(-2, -3)

    _forward(model, batch, anatomy.sites, record)
    return {term: [heads[site] for site in anatomy.of(term)] for term in TERMS}


def perturb(model: nn.Module, batch: Batch, sites: Sequence[Site], seed: int = 0, scale: float = 1.0) -> Change:
    """The change of the output when N(0, scale^2) is added to the biases at `sites`: the null test.

    The output is the logits, or the last hidden states of the real tokens for a model without a head. Works in
    the model's own dtype and on projections without a bias. The model is not changed.
    """
    generator = torch.Generator().manual_seed(seed)
    shifts = {s: scale * torch.randn(s.size, generator=generator) for s in sites}
    outputs = _forward(model, batch), _forward(model, batch, sites, _adding(shifts))
    if getattr(outputs[0], "logits", None) is not None:
        before, after = (output.logits.double() for output in outputs)
    else:
        real = _real(batch, outputs[0].last_hidden_state.unsqueeze(1))
        before, after = (output.last_hidden_state[real].double() for output in outputs)
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


def moved_heads(model: nn.Module, batch: Batch, layer: int = 0, entry: int = 0) -> Tensor:
    """The change of each head's output when one entry of the layer's b_v is raised by 1: (heads,), in its units.

    The weights of the attention sum to one, so a value bias arrives entirely, in every query head that shares its
    kv-head (THEORY section 2). The largest change over tokens and entries. Works on models without biases.
    Raises BeftError where the layer's output projection is not found.
    """
    anatomy = describe(model)
    site = anatomy.of("v")[layer]
    attention = site.module.rpartition(".")[0]
    projections = {s.module for s in anatomy.sites}
    outputs = [
        module
        for name, module in model.get_submodule(attention).named_children()
        if isinstance(module, LINEAR) and f"{attention}.{name}" not in projections
    ]
    if len(outputs) != 1:
        raise BeftError(f"{attention} has {len(outputs)} output projections and not one: use another model")
    shift = torch.zeros(site.size)
    shift[entry] = 1.0
    received: list[Tensor] = []  # inputs of the output projection, (B, T, heads * head size)
    inputs: dict[str, Any] = {**batch, "use_cache": False}
    with outputs[0].register_forward_pre_hook(lambda module, args: received.append(args[0])):
        _forward(model, inputs)
        _forward(model, inputs, [site], _adding({site: shift}))
    change = (received[1] - received[0]).abs()
    return change.unflatten(-1, (anatomy.heads, -1)).amax(dim=(0, 1, 3))


def _spectral(matrices: Tensor) -> Tensor:
    """Largest singular value of matrices (n, a, b): (n,). Faster than an SVD for many small matrices."""
    gram = matrices @ matrices.transpose(-1, -2)
    return torch.linalg.eigvalsh(gram)[..., -1].clamp_min(0).sqrt()


def visible(real: Tensor, causal: bool) -> Tensor:
    """The mask of keys per query, (B, 1, 1 or T, T), from that of the tokens that are not padding, `real` (B, T)."""
    keys = real[:, None, None, :]
    before = torch.ones(2 * real.shape[-1:], dtype=torch.bool, device=real.device).tril()
    return keys & before if causal else keys


def _real(batch: Batch, states: Tensor) -> Tensor:
    """The mask of the tokens of states (B, ., T, .) that are not padding: (B, T)."""
    every = torch.ones(states.shape[0], states.shape[-2], device=states.device)
    return batch.get("attention_mask", every).bool()


def _adding(shifts: Mapping[Site, Tensor]) -> Act:
    """What adds its vector (size,) to the output of each site."""
    return lambda site, output: output + site.part.put(shifts[site], output.shape[-1]).to(output)


def _forward(
    model: nn.Module, batch: Mapping[str, Any], sites: Sequence[Site] = (), act: Act = lambda site, output: None
) -> Any:
    """The output of one pass without dropout and gradients; act(site, output) may replace the output of a site."""
    training = model.training
    with contextlib.ExitStack() as stack, torch.no_grad():
        stack.callback(model.train, training)
        model.eval()
        for site in sites:
            module = model.get_submodule(site.module)
            stack.enter_context(module.register_forward_hook(lambda _, args, output, site=site: act(site, output)))
        return model(**batch)
