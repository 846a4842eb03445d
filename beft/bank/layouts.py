"""A language model as one of another family that computes the same and has places for biases of its own."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from ..anatomy.architectures import head_size
from ..errors import BeftError, reason_of, unknown
from .bank import filled

PROBE = 64
"""Tokens of a text by which two models are compared."""
ALIKE = {torch.float32: 1e-4, torch.float64: 1e-6}
"""The largest difference of two logits, by the largest logit, of one arithmetic in another order."""
ALIKE_ROUNDED = 2.0**-6
"""The same in bfloat16 and float16."""
BY_LENGTH = ("dynamic", "longrope")
"""Rotary frequencies that change with the length of a text, so that a short one says nothing of a long one."""
ADAPTER = "save an adapter instead"


@dataclass(frozen=True)
class Layout:
    """A family that others are written as.

    Attributes:
        model, config: its classes in transformers.
        flags: settings that give query, key and value a bias.
    """

    model: Any
    config: Any
    flags: Mapping[str, Any] = field(default_factory=dict)


# Qwen2 has biases of query, key and value and no others. LLaMA has that of the output too, which stays zero here.
LAYOUTS: Mapping[str, Layout] = {
    "qwen2": Layout(Qwen2ForCausalLM, Qwen2Config),
    "llama": Layout(LlamaForCausalLM, LlamaConfig, {"attention_bias": True}),
}
# Of the family alone: what is no number of the model, and what says which tokens attend to which.
_NOT_CARRIED = ("model_type", "architectures", "transformers_version", "head_dim", "layer_types", "sliding_window")


def in_layout(model: Any, layout: str) -> Any:
    """A copy of a causal language model as one of the family `layout`, with the same parameters and logits.

    Biases that the family has and the model has not are zero; query, key and value of one projection are taken apart.
    Raises BeftError: what `check_layout` says; a model that does not give the same logits there.
    """
    config = check_layout(model, layout)
    state = _taken_apart(model.state_dict(), model.config)
    made = LAYOUTS[layout].model
    shapes = _shapes(made, config)
    zero = {name: torch.zeros(shape, dtype=model.dtype) for name, shape in shapes.items() if name not in state}
    kept = {name: tensor for name, tensor in (zero | state).items() if name in shapes}
    with torch.random.fork_rng(devices=[]):  # a model that is made draws weights, though they are replaced at once
        exported = filled(model, config, kept, made).requires_grad_(False)
    exported.generation_config = copy.deepcopy(model.generation_config)
    difference, size = apart(model, exported)
    if not difference <= ALIKE.get(model.dtype, ALIKE_ROUNDED) * size:  # NaN too
        raise BeftError(
            f"this {model.config.model_type} model does not compute in the layout {layout} what it does in its own "
            f"(logits of up to {size:.3g} differ by {difference:.3g}): {ADAPTER}"
        )
    return exported


def check_layout(model: Any, layout: str) -> Any:
    """The config of a model in another layout, found without computing anything; the model may have no values.

    Raises BeftError: no such layout; a model that is no causal language model, attends to a window only, has
    frequencies that change with the length of a text, or parts that the layout has no place for.
    """
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    own, kind = model.config, LAYOUTS[layout]
    if model.get_output_embeddings() is None or own.is_encoder_decoder:
        raise BeftError(f"{type(model).__name__} is no causal language model, which layouts are for: leave layout out")
    if (window := _window(own)) is not None:
        raise BeftError(
            f"this {own.model_type} model attends to the last {window} tokens only, which its copy in the layout "
            f"{layout} would not: {ADAPTER}"
        )
    rope = getattr(own, "rope_parameters", None) or {}
    if rope.get("rope_type") in BY_LENGTH:
        raise BeftError(
            f"the rotary frequencies of this {own.model_type} model change with the length of a text "
            f"({rope['rope_type']}), which is not checked in the layout {layout}: {ADAPTER}"
        )
    config = _config(own, kind)
    try:
        shapes = _shapes(kind.model, config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # of transformers, for a size that is not there
        raise _no_place(own, layout, reason_of(error)) from error
    state = _taken_apart(model.state_dict(), own)
    for name, shape in shapes.items():
        if name not in state and name.endswith("_proj.bias"):
            continue  # zero there
        if name not in state or state[name].shape != shape:
            raise _no_place(own, layout, f"it has no {name} of {tuple(shape)}")
    for name, tensor in state.items():
        if name not in shapes and not (name.endswith(".bias") and not tensor.is_meta and not tensor.any()):
            raise _no_place(own, layout, f"it also has {name}")
    return config


def apart(model: Any, other: Any) -> tuple[float, float]:
    """The largest difference of two models' logits on one text of PROBE tokens, and the largest logit."""
    one, two = (logits_of(each) for each in (model, other))
    return float((one - two).abs().max()), float(one.abs().max())


@torch.no_grad()
def logits_of(model: Any) -> Tensor:
    """Logits (1, T, V) in float64 of a text that is the same for every model of that vocabulary."""
    length = min(PROBE, getattr(model.config, "max_position_embeddings", None) or PROBE)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (1, length), generator=draw)
    return model(input_ids=ids.to(model.device), use_cache=False).logits.double().cpu()


def _window(config: Any) -> int | None:
    """Tokens that attention is cut to, where that is fewer than the model has positions for."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    used = getattr(config, "use_sliding_window", True) and (kinds is None or "sliding_attention" in kinds)
    return window if window and used and window < config.max_position_embeddings else None


def _config(own: Any, kind: Layout) -> Any:
    """The config of the layout with all that the model's own says too."""
    named = {name for name in kind.config().to_dict() if hasattr(own, name)} - {*_NOT_CARRIED, *kind.flags}
    given = {name: copy.deepcopy(getattr(own, name)) for name in named if "window" not in name}
    if getattr(own, "num_attention_heads", None) and head_size(own) * own.num_attention_heads != own.hidden_size:
        given["head_dim"] = head_size(own)
    config = kind.config(**given, **kind.flags)
    config.dtype = own.dtype
    return config


def _shapes(made: Any, config: Any) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in made(config).state_dict().items()}


def _taken_apart(state: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
    """Parameters with query, key and value, and the two halves of a gated layer, by themselves (Phi-3 joins them)."""
    parts: dict[str, Tensor] = {}
    for name, tensor in state.items():
        layer, _, leaf = name.rpartition(".")
        if layer.endswith("qkv_proj"):
            heads = config.num_attention_heads
            q, kv = (n * head_size(config) for n in (heads, getattr(config, "num_key_value_heads", heads)))
            pieces = zip(("q_proj", "k_proj", "v_proj"), tensor.split([q, kv, kv]))
        elif layer.endswith("gate_up_proj"):
            pieces = zip(("gate_proj", "up_proj"), tensor.chunk(2))
        else:
            parts[name] = tensor
            continue
        parts |= {f"{layer.rpartition('.')[0]}.{part}.{leaf}": piece.contiguous() for part, piece in pieces}
    return parts


def _no_place(config: Any, layout: str, reason: str) -> BeftError:
    return BeftError(f"this {config.model_type} model cannot be written in the layout {layout} ({reason}): {ADAPTER}")


def give_biases(model: Any, modules: Sequence[str]) -> None:
    """Let linear layers (exact names) have a bias, zero at first, that no checkpoint of the model's family holds."""
    for name in modules:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        layer.bias = nn.Parameter(torch.zeros(layer.out_features, dtype=layer.weight.dtype, device=layer.weight.device))
