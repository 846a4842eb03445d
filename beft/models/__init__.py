"""Models by name, checked by hash, frozen and in eval mode.

Weights are read as safetensors; GGUF files and pytorch_model.bin are converted to it once, by readers that run no code.
No code that comes with a model is run.
"""

from .._lazy import hand_on

__getattr__, __all__ = hand_on(
    __name__, {"find": "files"} | dict.fromkeys(("load", "load_causal", "load_masked", "empty"), "loading")
)
