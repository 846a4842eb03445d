"""Prompt tuning (Lester et al. 2021): PEFT's virtual tokens in front of a text's embeddings, trained and nothing else.

As PEFT has it, they stand in front of everything: what a classifier reads at the first place is a virtual token.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PromptEmbedding, PromptTuningConfig, TaskType
from torch import Tensor, nn

from .. import paper
from ..anatomy.projections import backbone_of
from ..errors import BeftError

MODULE = "beft_prompt"  # PEFT's embedding of the prompt, while it is on the model
WEIGHT = f"{MODULE}.embedding.weight"


def config_for(model: Any, tokens: int) -> PromptTuningConfig:
    """PEFT's config of a prompt on this model."""
    config = PromptTuningConfig(
        task_type=TaskType.FEATURE_EXTRACTION
        if model.get_output_embeddings() is not None
        else TaskType.SEQ_CLS,
        num_virtual_tokens=tokens,
        token_dim=model.get_input_embeddings().embedding_dim,
        num_transformer_submodules=1,
        num_layers=model.config.num_hidden_layers,
        num_attention_heads=model.config.num_attention_heads,
    )
    config.inference_mode = True
    return config


def add_prompt(model: Any, seed: int) -> Tensor:
    """Put a prompt on an encoder until `without_prompt`; returns what it holds at first: embeddings of drawn tokens.

    (V, d), drawn from the seed.

    Raises:
        BeftError: a model that is not an encoder: of a decoder's, positions and caches would have to count it.
    """
    name, backbone, family = backbone_of(model)
    if family.causal or model.config.is_encoder_decoder:
        raise BeftError(f"prompt tuning is for encoders here and {type(model).__name__} is none: use prefix")
    tokens = paper.data()["prompt"]["tokens"]
    words = model.get_input_embeddings()
    with torch.random.fork_rng(devices=[]):  # its own initial values are not used
        prompt = PromptEmbedding(config_for(model, tokens), words).to(words.weight.device)
    model.add_module(MODULE, prompt.requires_grad_(False))
    hooks = [backbone.register_forward_pre_hook(_Front(model, tokens), with_kwargs=True)]
    if model.get_output_embeddings() is not None:
        hooks.append(backbone.register_forward_hook(_Behind(tokens)))
    vars(model)["beft_prompt_hooks"] = hooks
    drawn = torch.randint(words.num_embeddings, (tokens,), generator=torch.Generator().manual_seed(seed))
    return words.weight.detach()[drawn.to(words.weight.device)].clone().float()


class _Front:
    """Before a call of the backbone: ids become embeddings with the prompt in front, which the mask counts."""

    def __init__(self, model: Any, tokens: int) -> None:
        self.model, self.tokens = model, tokens

    def __call__(self, backbone: nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        ids = args[0] if args else inputs.pop("input_ids")
        embedded = self.model.get_input_embeddings()(ids)
        every = torch.arange(self.tokens, device=ids.device)
        prompt = getattr(self.model, MODULE)(every).to(embedded.dtype)  # (V, d)
        front = prompt.expand(len(ids), -1, -1)
        mask = args[1] if len(args) > 1 else inputs.get("attention_mask")
        mask = torch.ones_like(ids) if mask is None else mask
        inputs["inputs_embeds"] = torch.cat([front, embedded], dim=1)
        inputs["attention_mask"] = torch.cat([mask.new_ones(len(mask), self.tokens), mask], dim=1)
        inputs["token_type_ids"] = None  # as PEFT, which has none for virtual tokens
        return (), inputs


class _Behind:
    """Behind it, for a language model's head: the hidden states of the text's own tokens."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def __call__(self, backbone: nn.Module, args: Any, out: Any) -> Any:
        out["last_hidden_state"] = out["last_hidden_state"][:, self.tokens :]
        return out


def without_prompt(model: Any) -> Any:
    """Take the prompt off again."""
    if hasattr(model, MODULE):
        for hook in vars(model).pop("beft_prompt_hooks"):
            hook.remove()
        delattr(model, MODULE)
    return model
