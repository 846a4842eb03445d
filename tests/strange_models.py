"""A classifier of an architecture of our own, which neither transformers nor beft knows, in a folder, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

WIDTH = 16


class StrangeConfig(PretrainedConfig):
    """As small as it can be: nothing in it says how many heads there are."""

    model_type = "strange"

    def __init__(self, vocab_size: int = 300, width: int = WIDTH, layers: int = 2, **more: Any) -> None:
        self.vocab_size, self.width, self.layers = vocab_size, width, layers
        super().__init__(**more)


class Mix(nn.Module):
    """Attention whose query, key and value have names of their own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ask, self.answer, self.carry = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores = self.ask(x) @ self.answer(x).transpose(1, 2) / x.shape[-1] ** 0.5
        return torch.softmax(scores.masked_fill(mask[:, None] == 0, -1e9), -1) @ self.carry(x)


class StrangePreTrained(PreTrainedModel):
    config_class = StrangeConfig
    base_model_prefix = "body"

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.3)


class StrangeModel(StrangePreTrained):
    def __init__(self, config: StrangeConfig) -> None:
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.width)
        self.mixes = nn.ModuleList(Mix(config.width) for _ in range(config.layers))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> torch.Tensor:
        x = self.words(input_ids)
        for mix in self.mixes:
            x = x + mix(x, attention_mask)
        return x


class StrangeForSequenceClassification(StrangePreTrained):
    def __init__(self, config: StrangeConfig) -> None:
        super().__init__(config)
        self.body = StrangeModel(config)
        self.decide = nn.Linear(config.width, config.num_labels)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> SequenceClassifierOutput:
        x = self.body(input_ids, attention_mask)
        mean = (x * attention_mask[..., None]).sum(1) / attention_mask.sum(1, keepdim=True)
        return SequenceClassifierOutput(logits=self.decide(mean))


def folder_of(tokenizer: Any, folder: Path) -> Path:
    """Write it, with random weights, where `models.load` reads it."""
    AutoConfig.register("strange", StrangeConfig, exist_ok=True)
    AutoModelForSequenceClassification.register(StrangeConfig, StrangeForSequenceClassification, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = StrangeForSequenceClassification(StrangeConfig(vocab_size=len(tokenizer)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
