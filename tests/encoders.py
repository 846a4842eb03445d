"""A small random classifier of each encoder family."""

from __future__ import annotations

import torch
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
)

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 60,
}
FAMILIES = {
    "bert": BertConfig(**SMALL),
    "roberta": RobertaConfig(**SMALL, max_position_embeddings=40),
    "electra": ElectraConfig(**SMALL, embedding_size=16),
    "mpnet": MPNetConfig(**SMALL, max_position_embeddings=40),
    "albert": AlbertConfig(**SMALL | {"num_hidden_layers": 4}, embedding_size=8),
    "modernbert": ModernBertConfig(
        **SMALL, pad_token_id=0, bos_token_id=1, eos_token_id=2, local_attention=4, attention_bias=True, norm_bias=True
    ),
    "deberta-v2": DebertaV2Config(**SMALL, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    "deberta-v2 sharing": DebertaV2Config(
        **SMALL, relative_attention=True, pos_att_type=["p2c", "c2p"], share_att_key=True
    ),
    "distilbert": DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, vocab_size=60),
}


def build(family):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(FAMILIES[family])
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval().requires_grad_(False)
