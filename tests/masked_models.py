"""A small random masked language model with its tokenizer, a folder of it, and texts to train it on, for tests."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForMaskedLM, BertConfig

from beft.models import loading as models
from beft.study import Study

TEXTS = [f"the {part} was {word}" for part in ("plot", "soup", "bed") for word in ("dull", "superb", "poor", "fine")]
STUDY = Study(model="small", task="texts", regime="all", epochs=2, batch_size=4, max_length=16, validate="last")


def small(seed: int = 0, dropout: float = 0.1) -> models.Loaded:
    """Two layers over the words of the micro-world's sentiment; every bias is random, as in pre-trained models."""
    base = models.load(models.TINY, labels=2)
    config = BertConfig(
        vocab_size=len(base.tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForMaskedLM.from_config(config)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    model.eval().requires_grad_(False)
    return models.Loaded(model, base.tokenizer, "small", "random", "none", f"{seed:064d}")


def folder_of(loaded: models.Loaded, folder: Path) -> Path:
    """Write it where `models.load` and `models.load_masked` read it."""
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder
