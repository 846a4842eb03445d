"""R runs on one frozen backbone.

The bank, its slots and its optimizer; runs out to PEFT adapters and plain checkpoints, and back.
"""

from .._lazy import hand_on

__getattr__, __all__ = hand_on(
    __name__,
    {
        "BiasBank": "bank",
        "adapter_as_lora": "handover",
        "open_bank": "baselines",
        "load_adapter": "peft_adapter",
        "load_tuned": "peft_adapter",
        "merge": "export",
        "merge_adapter": "export",
        "moved_biases": "export",
        "save_adapter": "peft_adapter",
        "switched": "export",
    },
)
