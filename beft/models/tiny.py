"""A random two-layer BERT over the micro-world's words: for tests, where only the machinery matters."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedTokenizerFast

from ..data.microworld import sentences as microworld


def tiny(labels: int, seed: int) -> tuple[Any, Any, str]:
    """The model with a head of `labels` classes, its tokenizer, and the sha256 of the encoder's weights."""
    train, _ = microworld.sentiment(seed=0, train=1000, validation=10)
    splitter = pre_tokenizers.BertPreTokenizer()
    words = sorted({word for text, _ in train for word, _ in splitter.pre_tokenize_str(text.lower())})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate([*special, *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = splitter
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        num_labels=labels,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config)
        for name, parameter in model.named_parameters():  # pre-trained biases are not zero; nor are these
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    digest = hashlib.sha256()
    for name, tensor in sorted(model.base_model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return model, tokenizer, digest.hexdigest()
