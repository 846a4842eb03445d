"""Prefix tuning (PROTOCOL, decoders): PEFT's virtual tokens, as keys and values in front of every layer's own."""

from __future__ import annotations

from typing import Any

import torch
from peft import PrefixTuningConfig, TaskType, get_peft_model
from torch import Tensor, nn

from .. import paper
from ..anatomy import projections as anatomy
from ..errors import BeftError

MODULE = "beft_prefix"  # PEFT's encoder of the prefix, while it is on the model
WEIGHT = f"{MODULE}.embedding.weight"


def add_prefix(model: Any, seed: int) -> Tensor:
    """Put a prefix on a causal language model until `without_prefix`; returns what it holds at first.

    It begins as the keys and values of as many tokens, drawn from the seed. (V, 2 * layers * kv-heads * head size).

    Raises:
        BeftError: not a causal language model.
    """
    config = model.config
    if (
        not anatomy.describe(model).causal
        or model.get_output_embeddings() is None
        or config.is_encoder_decoder
    ):
        raise BeftError(f"prefix tuning is for causal language models and {type(model).__name__} is none")
    tokens = paper.data()["prefix"]["tokens"]
    drawn = torch.randint(config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        cache = model(input_ids=drawn.to(model.device), use_cache=True).past_key_values
        kept = [
            side[0].transpose(0, 1).flatten(1)
            for layer in cache.layers
            for side in (layer.keys, layer.values)
        ]
    with torch.random.fork_rng(devices=[]):  # its own initial values are not used
        wrapped = get_peft_model(
            model, PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=tokens)
        )
    model.requires_grad_(False)
    setattr(model, MODULE, wrapped.prompt_encoder["default"])
    hook = model.register_forward_pre_hook(_Front(wrapped, tokens), with_kwargs=True)
    vars(model)["beft_prefix_hook"] = hook
    return torch.cat(kept, dim=1).float()  # (V, ...)


class _Front:
    """Before a call: an empty cache gets the prefix, the mask and the positions count it."""

    def __init__(self, wrapped: Any, tokens: int) -> None:
        self.wrapped, self.tokens = wrapped, tokens

    def __call__(self, model: nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        cache, ids = inputs.get("past_key_values"), inputs["input_ids"]
        if cache is None or cache.get_seq_length() == 0:
            inputs["past_key_values"] = self.wrapped.get_prompt(len(ids))
        mask = inputs.get("attention_mask")
        if mask is not None:  # without one, everything in the cache is attended to anyway
            inputs["attention_mask"] = torch.cat([mask.new_ones(len(mask), self.tokens), mask], dim=1)
        for name in ("position_ids", "cache_position"):
            if inputs.get(name) is not None:
                inputs[name] = inputs[name] + self.tokens
        return args, inputs


def without_prefix(model: Any) -> Any:
    """Take the prefix off again."""
    if hasattr(model, MODULE):
        vars(model).pop("beft_prefix_hook").remove()
        delattr(model, MODULE)
    return model
