"""Tiny random models of every architecture, to test where the key bias is null and where it is not (THEORY 1).

Each has two layers (ALBERT uses each of them twice), and weights large enough that attention is far from uniform.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from ..anatomy.projections import describe, key_bias_is_null
from ..errors import unknown
from .expressiveness import perturb

WIDTH, HEADS, LAYERS, VOCABULARY = 64, 4, 2, 101
SIZE = WIDTH // HEADS


@dataclass(frozen=True)
class Architecture:
    """The name of a transformers config class, and its arguments."""

    config: str
    settings: Mapping[str, Any]


# fmt: off
_WEIGHTS = {"vocab_size": VOCABULARY, "initializer_range": 0.2}
_SMALL = _WEIGHTS | {"bos_token_id": 1, "eos_token_id": 2}
_STACK = _SMALL | {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
_COMMON = _STACK | {"intermediate_size": 2 * WIDTH, "pad_token_id": 0}
_GROUPED = _COMMON | {"num_key_value_heads": 2, "head_dim": SIZE}
_DEBERTA = _COMMON | {"relative_attention": True, "position_buckets": 8, "max_relative_positions": 16}
_GPT = _SMALL | {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_inner": 2 * WIDTH}
_FALCON = _STACK | {"ffn_hidden_size": 2 * WIDTH, "bias": True}
_T5 = {
    "d_model": WIDTH, "num_layers": LAYERS, "num_heads": HEADS, "d_kv": SIZE, "d_ff": 2 * WIDTH,
    "vocab_size": VOCABULARY, "relative_attention_num_buckets": 8, "initializer_factor": 1.0,
}
_BART = {
    "d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": LAYERS, "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS, "encoder_ffn_dim": 2 * WIDTH, "decoder_ffn_dim": 2 * WIDTH, "init_std": 0.2,
    "vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}

ARCHITECTURES: Mapping[str, Architecture] = {
    name: Architecture(f"{config}Config", settings)
    for name, config, settings in (
        ("BERT", "Bert", _COMMON),
        ("RoBERTa", "Roberta", _COMMON | {"pad_token_id": 1}),
        ("XLM-RoBERTa", "XLMRoberta", _COMMON | {"pad_token_id": 1}),
        ("CamemBERT", "Camembert", _COMMON | {"pad_token_id": 1}),
        ("ALBERT", "Albert",
         _COMMON | {"embedding_size": 32, "num_hidden_layers": 2 * LAYERS, "num_hidden_groups": LAYERS}),
        ("ModernBERT with biases", "ModernBert",
         _COMMON | {"attention_bias": True, "local_attention": 8, "cls_token_id": 1, "sep_token_id": 2}),
        ("MPNet", "MPNet", _COMMON | {"pad_token_id": 1}),
        ("DistilBERT", "DistilBert",
         _WEIGHTS | {"dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 2 * WIDTH}),
        ("ELECTRA", "Electra", _COMMON | {"embedding_size": 32}),
        ("ViT", "ViT", _COMMON | {"image_size": 32, "patch_size": 8}),
        ("DeBERTa-v2 (c2p)", "DebertaV2", _DEBERTA | {"pos_att_type": ["c2p"]}),
        ("DeBERTa-v2 (c2p, p2c)", "DebertaV2", _DEBERTA | {"pos_att_type": ["c2p", "p2c"]}),
        ("GPT-2", "GPT2", _GPT),
        ("GPT-BigCode", "GPTBigCode", _GPT),
        ("GPT-BigCode (all heads)", "GPTBigCode", _GPT | {"multi_query": False}),
        ("OPT", "OPT", _COMMON | {"ffn_dim": 2 * WIDTH, "word_embed_proj_dim": WIDTH, "init_std": 0.2}),
        ("BLOOM", "Bloom", _SMALL | {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS}),
        ("Falcon (ALiBi)", "Falcon", _FALCON | {"multi_query": False, "alibi": True}),
        ("Falcon (multi-query)", "Falcon", _FALCON),
        ("Falcon (grouped)", "Falcon", _FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}),
        ("T5", "T5", _T5),
        ("BART", "Bart", _BART),
        ("GPT-NeoX", "GPTNeoX", _COMMON),
        ("GPT-J", "GPTJ", _GPT | {"rotary_dim": SIZE // 2}),
        ("LLaMA", "Llama", _GROUPED),
        ("LLaMA with biases", "Llama", _GROUPED | {"attention_bias": True}),
        ("Mistral", "Mistral", _GROUPED),
        ("Qwen2", "Qwen2", _GROUPED),
        ("Phi", "Phi", _COMMON | {"num_key_value_heads": 2}),
        ("Phi (norm)", "Phi", _COMMON | {"qk_layernorm": True}),
        ("Phi-3", "Phi3", _COMMON | {"num_key_value_heads": 2}),
        ("StableLM", "StableLm", _COMMON | {"num_key_value_heads": 2, "use_qkv_bias": True}),
        ("Gemma", "Gemma", _GROUPED | {"attention_bias": True}),
        ("Gemma 2", "Gemma2", _GROUPED | {"query_pre_attn_scalar": SIZE}),
        ("Gemma 3", "Gemma3Text", _GROUPED | {"query_pre_attn_scalar": SIZE}),
        ("Qwen3", "Qwen3", _GROUPED),
        ("Qwen3 with biases", "Qwen3", _GROUPED | {"attention_bias": True}),
        ("gpt-oss", "GptOss",
         _GROUPED | {"num_local_experts": 2, "num_experts_per_tok": 1, "experts_implementation": "eager"}),
    )
}
# fmt: on


def build(name: str, seed: int = 0, auto: str = "AutoModel") -> nn.Module:
    """The tiny random model `name` of `ARCHITECTURES` in float64 and eval mode. Raises BeftError for another name.

    Args:
        auto: name of the transformers class that makes it; the default has no head.
    """
    if name not in ARCHITECTURES:
        raise unknown("specimen", name, ARCHITECTURES)
    architecture = ARCHITECTURES[name]
    config = getattr(transformers, architecture.config)(**architecture.settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = getattr(transformers, auto).from_config(config, trust_remote_code=False)
    return model.double().eval()


def inputs(model: Any, seed: int = 0, batch: int = 4, tokens: int = 12) -> dict[str, Tensor]:
    """Random inputs for a model: token ids with the second half of the rows padded, or pixels."""
    draw = torch.Generator().manual_seed(seed)
    if model.main_input_name == "pixel_values":
        size = model.config.image_size
        return {"pixel_values": torch.randn(batch, 3, size, size, generator=draw, dtype=torch.float64)}
    ids = torch.randint(3, VOCABULARY, (batch, tokens), generator=draw)
    mask = torch.ones_like(ids)
    mask[batch // 2 :, tokens - tokens // 3 :] = 0
    arguments = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        arguments["decoder_input_ids"] = ids.flip(1)
    return arguments


def exceptions(seed: int = 0, draws: int = 3) -> list[dict[str, Any]]:
    """The table of THEORY section 1, computed: rows {"model", "null", "change", "reason"}.

    "null" is the result of the proof (`anatomy`). "change" is measured in float64: the mean over `draws` of the
    relative change of the output when N(0, 1) is added to every b_k.
    """
    rows = []
    for name in ARCHITECTURES:
        model = build(name, seed)
        batch, keys, key_bias = inputs(model, seed), describe(model).of("k"), key_bias_is_null(model)
        change = sum(perturb(model, batch, keys, seed=draw).relative for draw in range(draws)) / draws
        rows.append({"model": name, "null": key_bias.null, "change": change, "reason": key_bias.reason})
    return rows
