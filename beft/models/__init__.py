"""Models by name, checked by hash, frozen and in eval mode.

Only safetensors weights and JSON are read, and no code that comes with a model is run.
"""

from .._lazy import hand_on

__getattr__, __all__ = hand_on(
    __name__, {"find": "files"} | dict.fromkeys(("load", "load_causal", "load_masked", "empty"), "loading")
)
