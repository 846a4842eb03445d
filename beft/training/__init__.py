"""The one training loop, and what it can learn.

Classes, values, options, answers, masked tokens, next tokens.
"""

from .._lazy import hand_on

__getattr__, __all__ = hand_on(__name__, {"fit": "loop", "predict": "classification", "predictions": "classification"})
