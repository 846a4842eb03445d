"""What a notebook runs with: a profile, changed by its parameters, both checked."""

from .._lazy import hand_on

__getattr__, __all__ = hand_on(__name__, {"load": "profiles"})
