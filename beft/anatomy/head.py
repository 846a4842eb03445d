"""What a model has beside its attention: the biases of its layers, its pooler, its head. Found by exact names."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D

from .architectures import HEAD
from .projections import backbone_of
from .sites import LINEAR, find, join, walk

WITH_BIAS = (nn.Linear, Conv1D, nn.Conv1d, nn.Conv2d, nn.LayerNorm)


@dataclass(frozen=True)
class HeadParts:
    """The pooler's dense layer, if there is one, and the linear layers of the classification head."""

    pooler: str | None
    modules: tuple[str, ...]


def bias_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear, convolution or layer norm with a bias inside the backbone, by exact name, in model order.

    Embeddings' norms and projections are included; the pooler and whatever stands outside the backbone are not.
    Raises BeftError for an unknown architecture.
    """
    name, backbone, family = backbone_of(model)
    pooler = join(name, family.pooler) if family.pooler else None
    return {
        full: module
        for full, module in ((join(name, part), module) for part, module in backbone.named_modules())
        if isinstance(module, WITH_BIAS) and module.bias is not None and full != pooler
    }


def classifier(model: nn.Module) -> HeadParts:
    """The pooler's dense layer (its bias is trained beside every method) and the head's linear layers (all of it).

    Raises BeftError for an unknown architecture. A bare backbone has no `modules`.
    """
    name, _, family = backbone_of(model)
    parent = name.rpartition(".")[0]
    places = [join(name, family.pooler)] if family.pooler else []
    if name and family.head_pooler:
        places.append(join(parent, family.head_pooler))
    poolers = [place for place in places if isinstance(find(model, place), LINEAR)]
    modules = [join(parent, part) for part in HEAD] if name else []
    return HeadParts(
        pooler=poolers[0] if poolers else None,
        modules=tuple(part for part in modules if isinstance(find(model, part), LINEAR)),
    )


def last_mixer(model: nn.Module) -> str | None:
    """Name of the module of the last layer after which only the first token still matters to a classifier.

    It takes two inputs (B, T, d), the attention's output and the residual, and neither it nor anything behind it
    mixes tokens. None where the head reads more, or where this is not known of the family.
    """
    name, backbone, family = backbone_of(model)
    if family.mixed is None or not classifier(model).modules:
        return None
    return join(name, family.stack, str(len(walk(backbone, family.stack)) - 1), family.mixed)
