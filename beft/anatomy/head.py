"""The biases of a model's layers, its pooler and its classification head, by exact names."""

from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D

from .architectures import HEAD
from .projections import backbone_of
from .sites import LINEAR, find, join, walk

WITH_BIAS = (nn.Linear, Conv1D, nn.Conv1d, nn.Conv2d, nn.LayerNorm)


@dataclass(frozen=True)
class ClassifierHead:
    """The pooler's dense layer, if there is one, and the linear layers of the classification head."""

    pooler: str | None
    modules: tuple[str, ...]


def bias_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear, convolution or layer norm with a bias inside the backbone, by exact name, in model order.

    The embeddings' norms and projections are included; the pooler and modules outside the backbone are not.
    Raises BeftError for an unknown architecture.
    """
    name, backbone, family = backbone_of(model)
    pooler = join(name, family.pooler) if family.pooler else None
    return {
        full: module
        for full, module in ((join(name, path), module) for path, module in backbone.named_modules())
        if isinstance(module, WITH_BIAS) and module.bias is not None and full != pooler
    }


def classifier(model: nn.Module) -> ClassifierHead:
    """The pooler's dense layer, whose bias every method trains, and the head's linear layers, trained entirely.

    A bare backbone has no `modules`. Raises BeftError for an unknown architecture.
    """
    name, _, family = backbone_of(model)
    parent = name.rpartition(".")[0]
    places = [join(name, family.pooler)] if family.pooler else []
    if name and family.head_pooler:
        places.append(join(parent, family.head_pooler))
    poolers = [place for place in places if isinstance(find(model, place), LINEAR)]
    layers = [join(parent, path) for path in HEAD] if name else []
    modules = tuple(layer for layer in layers if isinstance(find(model, layer), LINEAR))
    return ClassifierHead(poolers[0] if poolers else None, modules)


def last_mixer(model: nn.Module) -> str | None:
    """Name of the module of the last layer behind which a classifier depends on the first token only.

    It takes two inputs (B, T, d), the attention's output and the residual. Neither it nor anything behind it mixes
    tokens. None where the head reads more tokens, or where this is not known for the family.
    """
    name, backbone, family = backbone_of(model)
    if family.mixed is None or not classifier(model).modules:
        return None
    return join(name, family.stack, str(len(walk(backbone, family.stack)) - 1), family.mixed)
