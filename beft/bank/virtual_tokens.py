"""Virtual tokens, PEFT's: a prefix in front of every layer's keys and values, a prompt in front of the embeddings."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from peft import PrefixTuningConfig, PromptEmbedding, PromptTuningConfig, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import DynamicCache

from .. import paper
from ..anatomy.architectures import first_position
from ..anatomy.projections import backbone_of, describe
from ..errors import BeftError
from ..study import Study
from .caches import whole

VIRTUAL = ("prefix", "prompt")  # the methods
PREFIX, PROMPT = "beft_prefix", "beft_prompt"  # PEFT's modules, while they are on the model


class Prefix:
    """Prefix tuning (PROTOCOL, decoders) on a causal language model, until `remove`.

    Attributes:
        parameter: the name under which the model has it.
        start: the keys and values of as many tokens, drawn from the seed: (V, 2 * layers * kv-heads * head size).

    Raises BeftError: not a causal language model.
    """

    parameter = f"{PREFIX}.embedding.weight"

    def __init__(self, model: Any, seed: int) -> None:
        config = model.config
        decoder = describe(model).causal and not config.is_encoder_decoder
        if not decoder or model.get_output_embeddings() is None:
            raise BeftError(f"prefix tuning is for causal language models and {type(model).__name__} is none")
        self.model, self.tokens = model, virtual_tokens("prefix")
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(config.vocab_size, (1, self.tokens), generator=generator)
        with torch.no_grad():
            # a cache that does not know the model's window keeps all tokens of a prefix that is longer
            cache = model(input_ids=drawn.to(model.device), past_key_values=DynamicCache(), use_cache=True)[
                "past_key_values"
            ]
            kept = [side[0].transpose(0, 1).flatten(1) for layer in cache.layers for side in (layer.keys, layer.values)]
        self.start = torch.cat(kept, dim=1).float()  # (V, ...)
        peft = PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=self.tokens)
        with torch.random.fork_rng(devices=[]):  # its own initial values are not used
            self.wrapped = get_peft_model(model, peft)
        model.requires_grad_(False)
        setattr(model, PREFIX, self.wrapped.prompt_encoder["default"])
        self._hook = model.register_forward_pre_hook(self._put_in_front, with_kwargs=True)

    def _put_in_front(self, model: nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Before a call: an empty cache gets the prefix, the mask and the positions count it.

        A mask that is as long as cache and ids together counts it already, and so do the positions.
        """
        cache, ids = inputs.get("past_key_values"), inputs["input_ids"]
        mask = inputs.get("attention_mask")
        if cache is None or cache.get_seq_length() == 0:
            inputs["past_key_values"] = whole(self.wrapped.get_prompt(len(ids)))
        elif mask is not None and mask.shape[1] == cache.get_seq_length() + ids.shape[1]:
            return args, inputs
        if mask is not None:  # without one, everything in the cache is attended to anyway
            inputs["attention_mask"] = torch.cat([mask.new_ones(len(mask), self.tokens), mask], dim=1)
        for name in ("position_ids", "cache_position"):
            if inputs.get(name) is not None:
                inputs[name] = inputs[name] + self.tokens
        return args, inputs

    def remove(self) -> None:
        """Take the prefix off the model."""
        self._hook.remove()
        delattr(self.model, PREFIX)


class Prompt:
    """Prompt tuning (Lester et al. 2021) on an encoder, until `remove`.

    As PEFT has it, virtual tokens stand in front of everything: a classifier reads the first of them.

    Attributes:
        parameter: the name under which the model has it.
        start: the embeddings of as many tokens, drawn from the seed: (V, d).

    Raises BeftError: a model that is not an encoder of texts: of a decoder's, positions and caches would have to count
    it.
    """

    parameter = f"{PROMPT}.embedding.weight"

    def __init__(self, model: Any, seed: int) -> None:
        _, backbone, family = backbone_of(model)
        if family.causal or model.config.is_encoder_decoder:
            raise BeftError(f"prompt tuning is for encoders here and {type(model).__name__} is none: use prefix")
        if model.main_input_name != "input_ids":
            raise BeftError(f"prompt tuning is for texts and {type(model).__name__} reads {model.main_input_name}")
        self.model, self.tokens = model, virtual_tokens("prompt")
        words = model.get_input_embeddings()
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(words.num_embeddings, (self.tokens,), generator=generator)
        self.start = words.weight.detach()[drawn.to(words.weight.device)].clone().float()
        with torch.random.fork_rng(devices=[]):  # its own initial values are not used
            prompt = PromptEmbedding(prompt_config(model, self.tokens), words).to(words.weight.device)
        model.add_module(PROMPT, prompt.requires_grad_(False))
        self._hooks = [backbone.register_forward_pre_hook(self._put_in_front, with_kwargs=True)]
        if model.get_output_embeddings() is not None:
            self._hooks.append(backbone.register_forward_hook(self._leave_out))

    def _put_in_front(self, backbone: nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Before a call of the backbone: ids become embeddings with the prompt in front, which the mask counts."""
        ids = args[0] if args else inputs.pop("input_ids")
        embedded = self.model.get_input_embeddings()(ids)
        every = torch.arange(self.tokens, device=ids.device)
        prompt = getattr(self.model, PROMPT)(every).to(embedded.dtype)  # (V, d)
        mask = args[1] if len(args) > 1 else inputs.get("attention_mask")
        mask = torch.ones_like(ids) if mask is None else mask
        inputs["inputs_embeds"] = torch.cat([prompt.expand(len(ids), -1, -1), embedded], dim=1)
        inputs["attention_mask"] = torch.cat([mask.new_ones(len(mask), self.tokens), mask], dim=1)
        inputs["token_type_ids"] = self._types(ids, inputs.get("token_type_ids"))
        return (), inputs

    def _types(self, ids: Tensor, types: Tensor | None) -> Tensor | None:
        """Token types as PEFT has them: of a classifier the text's own, behind zeros; of a language model none."""
        if types is None or self.model.get_output_embeddings() is not None:
            return None
        return torch.cat([types.new_zeros(len(ids), self.tokens), types], dim=1)

    def _leave_out(self, backbone: nn.Module, args: Any, out: Any) -> Any:
        """Behind it, for a language model's head: the hidden states of the text's own tokens."""
        out["last_hidden_state"] = out["last_hidden_state"][:, self.tokens :]
        return out

    def remove(self) -> None:
        """Take the prompt off the model."""
        for hook in self._hooks:
            hook.remove()
        delattr(self.model, PROMPT)


def prompt_config(model: Any, tokens: int) -> PromptTuningConfig:
    """PEFT's config of a prompt on this model."""
    language_model = model.get_output_embeddings() is not None
    config = PromptTuningConfig(
        task_type=TaskType.FEATURE_EXTRACTION if language_model else TaskType.SEQ_CLS,
        num_virtual_tokens=tokens,
        token_dim=model.get_input_embeddings().embedding_dim,
        num_transformer_submodules=1,
        num_layers=model.config.num_hidden_layers,
        num_attention_heads=model.config.num_attention_heads,
    )
    config.inference_mode = True
    return config


def has_prompt(model: Any) -> bool:
    """Whether a prompt is on the model, which moves the places of its tokens."""
    return hasattr(model, PROMPT)


def prefix_tokens(model: Any) -> int:
    """Virtual tokens in front of a model's keys and values, while a prefix is on it."""
    return model.get_submodule(PREFIX).embedding.num_embeddings if hasattr(model, PREFIX) else 0


def virtual_tokens(method: str) -> int:
    """Virtual tokens of a method; 0 for all but prefix and prompt."""
    return int(paper.data()[method]["tokens"]) if method in VIRTUAL else 0


def reserve_virtual_tokens(study: Study, model: Any, methods: Sequence[str]) -> Study:
    """The study with texts short enough for the methods' virtual tokens to fit in front of them."""
    tokens = max(map(virtual_tokens, methods), default=0)
    positions = getattr(model.config, "max_position_embeddings", None)
    if not tokens or positions is None:
        return study
    room = positions - first_position(model.config) - tokens
    return replace(study, max_length=min(study.max_length, room))
