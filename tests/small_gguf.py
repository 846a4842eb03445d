"""Small language models written as GGUF files, as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from small_tokenizers import byte_level
from transformers import LlamaConfig, LlamaForCausalLM

TEMPLATE = "{% for message in messages %}<s>{{ message['content'] }}{% endfor %}"
SPECIAL = ("<unk>", "<s>", "</s>")
PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def small_llama(tied: bool = True) -> LlamaForCausalLM:
    """A random LLaMA of two layers with grouped heads, for the vocabulary of `write`."""
    config = LlamaConfig(
        vocab_size=len(_vocabulary()[0]), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 50000.0}, tie_word_embeddings=tied,
        bos_token_id=1, eos_token_id=2, pad_token_id=2, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


def _vocabulary() -> tuple[list[str], list[str]]:
    """Tokens in the order of their ids, and merges."""
    model = json.loads(byte_level().backend_tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return [*SPECIAL, *tokens], [" ".join(pair) for pair in model["merges"]]


def _rows(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows of query or key in llama.cpp's order, the two halves of each head's size in turn."""
    return weights.reshape(heads, 2, -1, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)


def write(
    path: Path,
    model: LlamaForCausalLM,
    kind: str = "Q4_1",
    architecture: str = "llama",
    skip: str = "",
    pre: str = "smollm",
    fields: Mapping[str, str | float] | None = None,
    more: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a model, its matrices as `kind`; and let it have the values that the file then holds.

    Args:
        kind: Q4_1, Q8_0, F16, BF16 or F32.
        architecture: as the file has it.
        skip: what the names of tensors that are left out begin with.
        pre: the name of how texts are split.
        fields: further entries of the header, without the architecture before them.
        more: further tensors.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    tokens, merges = _vocabulary()
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(merges)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, value in (fields or {}).items():
        (writer.add_string if isinstance(value, str) else writer.add_float32)(f"{architecture}.{name}", value)
    for name, tensor in _named(model).items():
        if not (skip and name.startswith(skip)):
            _add(writer, name, tensor, kind, model.config)
    for name, values in (more or {}).items():
        writer.add_tensor(name, values)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return path


def _named(model: LlamaForCausalLM) -> dict[str, Any]:
    """llama.cpp's names of a model's parameters."""
    own = dict(model.named_parameters())
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    for i in range(model.config.num_hidden_layers):
        names |= {f"blk.{i}.{theirs}": f"model.layers.{i}.{ours}" for ours, theirs in PARTS.items()}
    return {f"{theirs}.weight": own[f"{ours}.weight"] for theirs, ours in names.items() if f"{ours}.weight" in own}


def _add(writer: gguf.GGUFWriter, name: str, tensor: torch.nn.Parameter, kind: str, config: LlamaConfig) -> None:
    values = tensor.detach().numpy()
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name.split(".")[-2], 0)
    if heads:
        values = _rows(values, heads)
    if values.ndim == 1 and kind not in ("F16", "BF16"):
        writer.add_tensor(name, values)
        return
    sort = gguf.GGMLQuantizationType[kind]
    packed = gguf.quants.quantize(values, sort)
    writer.add_tensor(name, packed, raw_dtype=sort)
    held = torch.from_numpy(_dequantised(packed, kind, values.shape).copy())
    if heads:  # back into the order of transformers
        held = held.view(heads, -1, 2, held.shape[1]).transpose(1, 2).reshape(held.shape)
    tensor.data.copy_(held)


def _dequantised(packed: np.ndarray, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """The values that a tensor of the file stands for, by the definition of its format."""
    raw = np.ascontiguousarray(packed).view(np.uint8)
    if kind == "F32":
        return raw.view(np.float32).reshape(shape)
    if kind == "F16":
        return raw.view(np.float16).astype(np.float32).reshape(shape)
    if kind == "BF16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if kind == "Q8_0":  # blocks of 32: a scale, and 32 signed bytes
        blocks = raw.reshape(-1, 34)
        return (_half(blocks, 0) * blocks[:, 2:].copy().view(np.int8)).astype(np.float32).reshape(shape)
    blocks = raw.reshape(-1, 20)  # Q4_1, blocks of 32: a scale, a least value, and 16 bytes of two numbers each
    numbers = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    return (_half(blocks, 0) * numbers + _half(blocks, 2)).astype(np.float32).reshape(shape)


def _half(blocks: np.ndarray, place: int) -> np.ndarray:
    return blocks[:, place : place + 2].copy().view(np.float16).astype(np.float64)
