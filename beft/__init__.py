"""beft: bias-efficient fine-tuning of language models. One bias vector per layer, many runs at once."""

import os

from ._lazy import hand_on

# Prepared matrix products that oneDNN keeps; its 1,024 are too few for the shapes of one training set. Read by
# torch when it first computes in bfloat16, so it is set before anything else.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")
# Without it cuBLAS may add up in another order from call to call. Read when torch first computes on a GPU.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

__version__ = "0.1.0"

# Loaded at first use: `import beft` waits for neither torch nor transformers.
__getattr__, _names = hand_on(
    __name__,
    {
        "BeftError": "errors",
        "BiasBank": "bank.bank",
        "Run": "study",
        "Store": "records.store",
        "Study": "study",
        "Tuned": "api",
        "adapter_as_lora": "bank.handover",
        "describe": "anatomy.projections",
        "fit": "training.loop",
        "key_bias_is_null": "anatomy.projections",
        "load_tuned": "bank.peft_adapter",
        "merge": "bank.export",
        "merge_adapter": "bank.export",
        "predict": "training.classification",
        "save_adapter": "bank.peft_adapter",
        "serve": "serving.opening",
        "tune": "api",
    },
)
__all__ = ["__version__", *_names]
