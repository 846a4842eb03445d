"""The tables as frames of text: those that are saved, and those with a verdict on each difference."""

from ..._lazy import hand_on

__getattr__, __all__ = hand_on(
    __name__,
    modules=("cells", "debiasing", "decoders", "efficiency", "fine_tuning", "layers", "ranking", "real", "transfer"),
)
