"""The authors' protocol written plainly, to measure against and to check the bank with (PROTOCOL, encoders).

One run at a time on a copy of the model: every sentence padded to `max_length`, batches of 16, `requires_grad` on the
model's own biases, torch's AdamW, dropout by `model.train()`, the training and the validation split scored after each
epoch, float32. A run sees the same rows in the same order, from the same head, as the run of that seed in a bank.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from beft.anatomy import projections as anatomy
from beft.data.datasets import Dataset, Split, draw
from beft.data.tasks import score
from beft.errors import BeftError, unknown
from beft.models.loading import Loaded
from beft.study import METHODS, Run, Study
from beft.training.classification import losses, predictions, targets
from beft.training.device import default_device


@dataclass(frozen=True)
class Rows:
    """Tokenised rows: model inputs (N, max_length), the tokens that carry text (N,), labels (N,)."""

    columns: dict[str, Tensor]
    lengths: np.ndarray
    labels: Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, index: np.ndarray, longest: bool, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs (B, T) and labels (B,) of the rows `index` (B,): T is max_length, or the longest of the batch."""
        T = int(self.lengths[index].max()) if longest else None
        picked = torch.from_numpy(index)
        return {n: x[picked, :T].to(device) for n, x in self.columns.items()}, self.labels[picked].to(device)


def tokenise(tokenizer: Any, split: Split, max_length: int) -> Rows:
    """A split with every row padded to `max_length`."""
    texts = [list(column) for column in zip(*split.rows, strict=True)]
    settings = {"truncation": True, "max_length": max_length, "padding": "max_length", "padding_side": "right"}
    columns = tokenizer(*texts, **settings, return_tensors="pt")
    return Rows(dict(columns), columns["attention_mask"].sum(1).numpy(), targets(split.labels))


def rows_of(loaded: Loaded, data: Dataset, study: Study, seed: int) -> tuple[Rows, Rows]:
    """The training rows that a run of this seed draws, and the validation rows."""
    drawn = draw(data, study.regime, seed, study.tuning).train
    train = Split(tuple(data.train.rows[i] for i in drawn), data.train.labels[drawn])
    return tuple(tokenise(loaded.tokenizer, split, study.max_length) for split in (train, data.validation))  # type: ignore[return-value]


def prepare(loaded: Loaded, method: str, seed: int) -> tuple[Any, list[nn.Parameter]]:
    """A copy of the model with a head drawn from `seed`, and the parameters that `method` trains in it.

    Raises:
        BeftError: unknown method; a model without biases of that term, or with q, k and v in one projection.
    """
    if method not in (*METHODS, "full"):
        raise unknown("method", method, (*METHODS, "full"))
    model = copy.deepcopy(loaded.model)
    biases: list[Any] = []
    if method == "all_biases":
        biases = [module.bias for module in anatomy.bias_modules(model).values()]
    elif method not in ("head", "full"):
        for site in anatomy.describe(model).of(method[-1]):
            bias = model.get_submodule(site.module).bias
            if bias is None or len(bias) != site.size:
                raise BeftError(
                    f"{loaded.name} has no separate bias at {site.module}: the plain loop needs a model with one"
                )
            biases.append(bias)
    head = anatomy.classifier(model)
    if method == "full":
        biases = [p for name, p in model.named_parameters() if name.rpartition(".")[0] not in head.modules]
    elif head.pooler is not None:
        biases.append(model.get_submodule(head.pooler).bias)
    generator, std = torch.Generator().manual_seed(seed), getattr(model.config, "initializer_range", 0.02)
    layers = [model.get_submodule(name) for name in head.modules]
    with torch.no_grad():
        for layer in layers:  # as a bank draws the heads of its runs
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * std)
            layer.bias.zero_()
    parameters = [*biases, *(p for layer in layers for p in layer.parameters())]
    for parameter in parameters:
        parameter.requires_grad_(True)
    return model, parameters


def adamw(parameters: Sequence[nn.Parameter], rate: float, eps: float) -> torch.optim.AdamW:
    """The paper's optimiser: no weight decay, betas 0.9 and 0.999, constant rate."""
    return torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.999), eps=eps, weight_decay=0.0)


def train_step(
    model: Any, optimizer: torch.optim.Optimizer, inputs: dict[str, Tensor], labels: Tensor, clip: float
) -> float:
    """One step on one batch; returns its mean loss."""
    loss = losses(model(**inputs).logits, labels).mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], clip)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def logits(model: Any, rows: Rows, batch_size: int, longest: bool) -> Tensor:
    """Logits (N, C) of all rows, in order, without dropout; the model is left in eval mode."""
    model.eval()
    device = next(model.parameters()).device
    index = np.arange(len(rows))
    batches = [index[at : at + batch_size] for at in range(0, len(rows), batch_size)]
    return torch.cat([model(**rows.batch(b, longest, device)[0]).logits.cpu() for b in batches])


def fit(
    loaded: Loaded,
    data: Dataset,
    study: Study,
    run: Run,
    *,
    longest: bool = False,
    score_training: bool = True,
    dropout: bool = True,
) -> list[dict[str, Any]]:
    """Train one run; a row per epoch: epoch, train_loss and validation_loss, training, validation (scores).

    Args:
        longest: pad a batch to its longest sentence instead of to `study.max_length`.
        score_training: score the training split too after each epoch, as the authors do; None where not.
        dropout: off to compare with a bank, whose masks come from elsewhere.
    """
    train, validation = rows_of(loaded, data, study, run.seed)
    model, parameters = prepare(loaded, run.method, run.seed)
    device = torch.device(default_device())
    model.to(device)
    optimizer = adamw(parameters, run.rate, study.eps)
    epochs = []
    for epoch in range(1, study.epochs + 1):
        model.train(dropout)
        order = np.random.default_rng([run.seed, epoch]).permutation(len(train))
        total = 0.0
        for at in range(0, len(order), study.batch_size):
            index = order[at : at + study.batch_size]
            inputs, labels = train.batch(index, longest, device)
            total += len(index) * train_step(model, optimizer, inputs, labels, study.clip)
        scores: dict[str, float | None] = {"training": None}
        if score_training:
            scores["training"] = _score(data, train, logits(model, train, study.batch_size, longest))
        scored = logits(model, validation, study.batch_size, longest)
        scores["validation"] = _score(data, validation, scored)
        scores["validation_loss"] = float(losses(scored, validation.labels).mean())
        epochs.append({"epoch": epoch, "train_loss": total / len(order), **scores})
    return epochs


def _score(data: Dataset, rows: Rows, x: Tensor) -> float:
    return score(data.task.metric, rows.labels.numpy(), predictions(x).numpy())
