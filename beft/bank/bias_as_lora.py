"""A bias as PEFT's LoRA of rank 1 whose matrices are zero and whose B has the bias, and back.

For what serves LoRA adapters and knows no BEFT. PEFT has had `lora_bias` since 0.14; LoRA's x A^T B^T scale + b scale
is b alone where A and B are zero and the scale is 1.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from torch import Tensor, nn

from .adapter_files import AdapterFiles

# What the config of an adapter says whatever its kind.
_KEPT = ("task_type", "base_model_name_or_path", "revision", "modules_to_save", "auto_mapping")
_VECTOR, _A, _B, _BIAS = ".beft_bias", ".lora_A.weight", ".lora_B.weight", ".lora_B.bias"


def lora_of(
    model: Any, tensors: Mapping[str, Tensor], given: PeftConfig | Mapping[str, Any]
) -> tuple[PeftConfig, dict[str, Tensor]]:
    """PEFT's config and tensors of a LoRA with the BEFT vectors of an adapter of `model`, and all that is whole in it.

    Args:
        tensors: by names without PEFT's prefix, each vector "<module>.beft_bias" (1, d).
        given: the config of the BEFT adapter, or what its file holds.
    """
    made: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not name.endswith(_VECTOR):
            made[name] = tensor
            continue
        module, layer = name.removesuffix(_VECTOR), model.get_submodule(name.removesuffix(_VECTOR))
        assert isinstance(layer, nn.Linear)
        made[module + _A] = torch.zeros(1, layer.in_features, dtype=tensor.dtype)
        made[module + _B] = torch.zeros(layer.out_features, 1, dtype=tensor.dtype)
        made[module + _BIAS] = tensor.flatten().clone()
    targets = sorted(name.removesuffix(_VECTOR) for name in tensors if name.endswith(_VECTOR))
    config = LoraConfig(r=1, lora_alpha=1, lora_dropout=0.0, lora_bias=True, target_modules=targets)
    said = given if isinstance(given, Mapping) else given.to_dict()
    for name in _KEPT:
        setattr(config, name, said.get(name))
    config.inference_mode = True
    return config, made


def as_vectors(files: AdapterFiles) -> AdapterFiles:
    """An adapter that `as_lora` made as the BEFT adapter that it was made of; any other as it is."""
    biases = {name for name in files.tensors if name.endswith(_BIAS)}
    if files.kind != "LORA" or not biases or any(x.any() for n, x in files.tensors.items() if n.endswith((_A, _B))):
        return files
    rest = {name: tensor for name, tensor in files.tensors.items() if not name.endswith((_A, _B, _BIAS))}
    scale = _scale(files.config)
    vectors = {name.removesuffix(_BIAS) + _VECTOR: files.tensors[name][None] * scale for name in biases}
    return replace(files, config=files.config | {"peft_type": "BEFT"}, tensors=rest | vectors)


def _scale(config: Mapping[str, Any]) -> float:
    rank = config.get("r") or 1
    return float((config.get("lora_alpha") or rank) / (rank**0.5 if config.get("use_rslora") else rank))
