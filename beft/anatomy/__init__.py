"""Where query, key and value live in a transformer.

`projections` finds their sites by architecture (`architectures`) or by given names, all biases and the head; it decides
whether b_k is provably without effect.
"""

from .._lazy import hand_on

__getattr__, __all__ = hand_on(
    __name__, {"anatomy_summary": "projections", "describe": "projections", "key_bias_is_null": "projections"}
)
