"""Tiny random models of every architecture, to test where the key bias is null and where it is not (THEORY 1).

Each has two layers and weights large enough that attention is far from uniform.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from ..anatomy.projections import describe, key_bias_is_null
from ..errors import unknown
from .expressiveness import perturb

WIDTH, HEADS, LAYERS, VOCABULARY = 64, 4, 2, 101
SIZE = WIDTH // HEADS

_COMMON: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * WIDTH,
    "vocab_size": VOCABULARY,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = _COMMON | {"num_key_value_heads": 2, "head_dim": SIZE}


@dataclass(frozen=True)
class Specimen:
    """One architecture: the name of its transformers config class, and its arguments."""

    config: str
    settings: Mapping[str, Any] = field(default_factory=lambda: _COMMON)


_DEBERTA = _COMMON | {"relative_attention": True, "position_buckets": 8, "max_relative_positions": 16}
_SMALL = {"vocab_size": VOCABULARY, "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2}
_GPT = _SMALL | {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_inner": 2 * WIDTH}
_STACK = _SMALL | {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS}
_FALCON = _SMALL | {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "ffn_hidden_size": 2 * WIDTH,
    "bias": True,
}

ZOO: Mapping[str, Specimen] = {
    "BERT": Specimen("BertConfig"),
    "RoBERTa": Specimen("RobertaConfig", _COMMON | {"pad_token_id": 1}),
    "DistilBERT": Specimen(
        "DistilBertConfig",
        {"dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 2 * WIDTH}
        | {"vocab_size": VOCABULARY, "initializer_range": 0.2},
    ),
    "ELECTRA": Specimen("ElectraConfig", _COMMON | {"embedding_size": 32}),
    "ViT": Specimen("ViTConfig", _COMMON | {"image_size": 32, "patch_size": 8}),
    "DeBERTa-v2 (c2p)": Specimen("DebertaV2Config", _DEBERTA | {"pos_att_type": ["c2p"]}),
    "DeBERTa-v2 (c2p, p2c)": Specimen("DebertaV2Config", _DEBERTA | {"pos_att_type": ["c2p", "p2c"]}),
    "GPT-2": Specimen("GPT2Config", _GPT),
    "GPT-BigCode": Specimen("GPTBigCodeConfig", _GPT),
    "GPT-BigCode (all heads)": Specimen("GPTBigCodeConfig", _GPT | {"multi_query": False}),
    "OPT": Specimen(
        "OPTConfig", _COMMON | {"ffn_dim": 2 * WIDTH, "word_embed_proj_dim": WIDTH, "init_std": 0.2}
    ),
    "BLOOM": Specimen("BloomConfig", _STACK),
    "Falcon (ALiBi)": Specimen("FalconConfig", _FALCON | {"multi_query": False, "alibi": True}),
    "Falcon (multi-query)": Specimen("FalconConfig", _FALCON),
    "Falcon (grouped)": Specimen(
        "FalconConfig", _FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}
    ),
    "T5": Specimen(
        "T5Config",
        {"d_model": WIDTH, "num_layers": LAYERS, "num_heads": HEADS, "d_kv": SIZE, "d_ff": 2 * WIDTH}
        | {"vocab_size": VOCABULARY, "relative_attention_num_buckets": 8, "initializer_factor": 1.0},
    ),
    "BART": Specimen(
        "BartConfig",
        {"d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": LAYERS, "init_std": 0.2}
        | {"encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS, "vocab_size": VOCABULARY}
        | {"encoder_ffn_dim": 2 * WIDTH, "decoder_ffn_dim": 2 * WIDTH, "pad_token_id": 0}
        | {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None},
    ),
    "GPT-NeoX": Specimen("GPTNeoXConfig"),
    "GPT-J": Specimen("GPTJConfig", _GPT | {"rotary_dim": SIZE // 2}),
    "LLaMA": Specimen("LlamaConfig", _GROUPED),
    "LLaMA with biases": Specimen("LlamaConfig", _GROUPED | {"attention_bias": True}),
    "Mistral": Specimen("MistralConfig", _GROUPED),
    "Qwen2": Specimen("Qwen2Config", _GROUPED),
    "Phi": Specimen("PhiConfig", _COMMON | {"num_key_value_heads": 2}),
    "Phi (norm)": Specimen("PhiConfig", _COMMON | {"qk_layernorm": True}),
    "Phi-3": Specimen("Phi3Config", _COMMON | {"num_key_value_heads": 2}),
    "StableLM": Specimen("StableLmConfig", _COMMON | {"num_key_value_heads": 2, "use_qkv_bias": True}),
    "Gemma": Specimen("GemmaConfig", _GROUPED | {"attention_bias": True}),
    "Gemma 2": Specimen("Gemma2Config", _GROUPED | {"query_pre_attn_scalar": SIZE}),
    "Gemma 3": Specimen("Gemma3TextConfig", _GROUPED | {"query_pre_attn_scalar": SIZE}),
    "Qwen3": Specimen("Qwen3Config", _GROUPED),
    "Qwen3 with biases": Specimen("Qwen3Config", _GROUPED | {"attention_bias": True}),
    "gpt-oss": Specimen(
        "GptOssConfig",
        _GROUPED | {"num_local_experts": 2, "num_experts_per_tok": 1} | {"experts_implementation": "eager"},
    ),
}


def build(name: str, seed: int = 0, auto: str = "AutoModel") -> nn.Module:
    """The tiny random model `name` of `ZOO` in float64 and eval mode. Raises BeftError for another name.

    Args:
        auto: name of the transformers class that makes it; this one gives it no head.
    """
    if name not in ZOO:
        raise unknown("specimen", name, ZOO)
    specimen = ZOO[name]
    config = getattr(transformers, specimen.config)(**specimen.settings)
    # Fork, so that building a specimen does not disturb the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = getattr(transformers, auto).from_config(config)
    return model.double().eval()


def inputs(model: Any, seed: int = 0, batch: int = 4, tokens: int = 12) -> dict[str, Tensor]:
    """Random inputs for a specimen: token ids with the second half of the rows padded, or pixels."""
    draw = torch.Generator().manual_seed(seed)
    if model.main_input_name == "pixel_values":
        size = model.config.image_size
        return {"pixel_values": torch.randn(batch, 3, size, size, generator=draw, dtype=torch.float64)}
    ids = torch.randint(3, VOCABULARY, (batch, tokens), generator=draw)
    mask = torch.ones_like(ids)
    mask[batch // 2 :, tokens - tokens // 3 :] = 0
    found = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        found["decoder_input_ids"] = ids.flip(1)
    return found


def exceptions(seed: int = 0, draws: int = 3) -> list[dict[str, Any]]:
    """The table of THEORY section 1, computed: rows {"model", "null", "change", "reason"}.

    "null" is what the proof (`anatomy`) says; "change" is measured in float64: the
    mean over `draws` of the relative change of the output when N(0, 1) is added to every b_k.
    """
    rows = []
    for name in ZOO:
        model = build(name, seed)
        batch = inputs(model, seed)
        verdict = key_bias_is_null(model)
        keys = describe(model).of("k")
        change = sum(perturb(model, batch, keys, seed=draw).relative for draw in range(draws)) / draws
        rows.append({"model": name, "null": verdict.null, "change": change, "reason": verdict.reason})
    return rows
