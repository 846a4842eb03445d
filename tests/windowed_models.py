"""Tiny language models with a sliding window, of every family that has one."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from beft.theory import null_key_bias as tiny_models

WINDOW = 8
EVERY, SOME = ["sliding_attention"] * 2, ["sliding_attention", "full_attention"]


def _settings(name: str) -> dict[str, dict[str, Any]]:
    """Settings that bring the window in force, by which layers have it; empty for a family without one."""
    architecture = tiny_models.ARCHITECTURES[name]
    config = getattr(transformers, architecture.config)(**architecture.settings)
    if not hasattr(config, "sliding_window"):
        return {}
    settings: dict[str, Any] = {"sliding_window": WINDOW}
    if hasattr(config, "use_sliding_window"):  # Qwen's upper layers have it, the others' lower ones
        settings["use_sliding_window"] = True
        return {"every layer": settings | {"layer_types": EVERY}, "some": settings | {"layer_types": SOME[::-1]}}
    if hasattr(config, "layer_types"):
        return {"every layer": settings | {"layer_types": EVERY}, "some": settings | {"layer_types": SOME}}
    return {"every layer": settings}


# "Gemma 3, some": (the architecture, its settings)
WINDOWED = {
    f"{name}, {layers}": (name, settings)
    for name in tiny_models.ARCHITECTURES
    if not name.endswith("with biases")
    for layers, settings in _settings(name).items()
}


def windowed(which: str, auto: str = "AutoModelForCausalLM", **changes: Any) -> Any:
    """The model, frozen, in float32 and in eval mode; `changes` are of its config."""
    name, settings = WINDOWED[which]
    architecture = tiny_models.ARCHITECTURES[name]
    config = getattr(transformers, architecture.config)(**(architecture.settings | settings | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(transformers, auto).from_config(config).float().eval().requires_grad_(False)
