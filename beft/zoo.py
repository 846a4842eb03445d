"""Tiny random models of several architectures, to test where the key bias is null and where it is not (THEORY 1).

Each has two layers and weights large enough that attention is far from uniform. The decoders' key projections
are named by hand here; a fused projection interleaved by head needs one slice per head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from .anatomy import Site, describe, key_bias_is_null
from .errors import unknown
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
    """One architecture: its config class and settings, and for decoders where the keys are and what is expected.

    Attributes:
        config: name of a transformers config class.
        settings: its arguments.
        keys: templates for `anatomy.describe(sites={"k": ...})`, one per slice of a layer; empty where anatomy
            knows the family.
        null: whether THEORY section 1 says b_k is null (for known families anatomy says it).
        reason: why, in words.
    """

    config: str
    settings: Mapping[str, Any] = field(default_factory=lambda: _COMMON)
    keys: tuple[str, ...] = ()
    null: bool = True
    reason: str = ""


def _interleaved(name: str) -> tuple[str, ...]:
    """Key slices of a fused projection laid out as (heads, [q, k, v], size)."""
    return tuple(f"{name}[{(3 * h + 1) * SIZE}:{(3 * h + 2) * SIZE}]" for h in range(HEADS))


_DEBERTA = _COMMON | {"relative_attention": True, "position_buckets": 8, "max_relative_positions": 16}
_K_PROJ = ("layers.{layer}.self_attn.k_proj",)
_ROPE = "RoPE turns the bias by another angle at each key"

ZOO: Mapping[str, Specimen] = {
    "BERT": Specimen("BertConfig"),
    "RoBERTa": Specimen("RobertaConfig", _COMMON | {"pad_token_id": 1}),
    "DistilBERT": Specimen(
        "DistilBertConfig",
        {
            "dim": WIDTH,
            "n_layers": LAYERS,
            "n_heads": HEADS,
            "hidden_dim": 2 * WIDTH,
            "vocab_size": VOCABULARY,
        }
        | {"initializer_range": 0.2},
    ),
    "ELECTRA": Specimen("ElectraConfig", _COMMON | {"embedding_size": 32}),
    "ViT": Specimen("ViTConfig", _COMMON | {"image_size": 32, "patch_size": 8}),
    "DeBERTa-v2 (c2p)": Specimen("DebertaV2Config", _DEBERTA | {"pos_att_type": ["c2p"]}),
    "DeBERTa-v2 (c2p, p2c)": Specimen("DebertaV2Config", _DEBERTA | {"pos_att_type": ["c2p", "p2c"]}),
    "GPT-2": Specimen(
        "GPT2Config",
        {
            "n_embd": WIDTH,
            "n_layer": LAYERS,
            "n_head": HEADS,
            "vocab_size": VOCABULARY,
            "initializer_range": 0.2,
        }
        | {"bos_token_id": 1, "eos_token_id": 2},
        (f"h.{{layer}}.attn.c_attn[{WIDTH}:{2 * WIDTH}]",),
        reason="positions are added to the input",
    ),
    "OPT": Specimen(
        "OPTConfig",
        _COMMON | {"ffn_dim": 2 * WIDTH, "word_embed_proj_dim": WIDTH, "init_std": 0.2},
        ("decoder." + _K_PROJ[0],),
        reason="positions are added to the input",
    ),
    "BLOOM": Specimen(
        "BloomConfig",
        {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "vocab_size": VOCABULARY}
        | {"initializer_range": 0.2},
        _interleaved("h.{layer}.self_attention.query_key_value"),
        reason="ALiBi adds a bias that the keys do not meet (its softmax runs in float32: 1e-7)",
    ),
    "GPT-NeoX": Specimen(
        "GPTNeoXConfig", _COMMON, _interleaved("layers.{layer}.attention.query_key_value"), False, _ROPE
    ),
    "LLaMA with biases": Specimen("LlamaConfig", _GROUPED | {"attention_bias": True}, _K_PROJ, False, _ROPE),
    "Qwen2": Specimen("Qwen2Config", _GROUPED, _K_PROJ, False, _ROPE),
    "Qwen3 with biases": Specimen(
        "Qwen3Config",
        _GROUPED | {"attention_bias": True},
        _K_PROJ,
        False,
        "norm and RoPE come after the bias",
    ),
}


def build(name: str, seed: int = 0) -> nn.Module:
    """The tiny random model `name` of `ZOO`: float64, eval mode, no head. Raises BeftError for another name."""
    if name not in ZOO:
        raise unknown("specimen", name, ZOO)
    specimen = ZOO[name]
    config = getattr(transformers, specimen.config)(**specimen.settings)
    # Fork, so that building a specimen does not disturb the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = transformers.AutoModel.from_config(config)
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
    return {"input_ids": ids, "attention_mask": mask}


def key_sites(name: str, model: nn.Module) -> tuple[Site, ...]:
    """Every slice of `model` that is a key projection's output, by exact name."""
    if not ZOO[name].keys:
        return describe(model).of("k")
    return tuple(site for keys in ZOO[name].keys for site in describe(model, sites={"k": keys}).sites)


def exceptions(seed: int = 0, draws: int = 3) -> list[dict[str, Any]]:
    """The table of THEORY section 1, computed: rows {"model", "null", "change", "reason"}.

    "null" is what the proof (anatomy, or THEORY for the decoders) says; "change" is measured in float64: the
    mean over `draws` of the relative change of the output when N(0, 1) is added to every b_k.
    """
    rows = []
    for name, specimen in ZOO.items():
        model = build(name, seed)
        batch = inputs(model, seed)
        verdict = key_bias_is_null(model)
        known = not specimen.keys
        sites = key_sites(name, model)
        change = sum(perturb(model, batch, sites, seed=draw).relative for draw in range(draws)) / draws
        null, reason = (verdict.null, verdict.reason) if known else (specimen.null, specimen.reason)
        rows.append({"model": name, "null": null, "change": change, "reason": reason})
    return rows
