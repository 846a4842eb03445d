"""Where query, key and value live in a transformer.

`projections` finds their sites by architecture (`architectures`) or by names given (`custom_sites`) and says whether
b_k is provably without effect; `head` finds what else is trained: pooler, head, biases.
"""

from .._lazy import hand_on

__getattr__, __all__ = hand_on(
    __name__,
    {
        "anatomy_summary": "projections",
        "describe": "projections",
        "key_bias_is_null": "projections",
    },
)
