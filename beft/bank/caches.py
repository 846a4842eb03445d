"""Keys and values that a model keeps, where its layers have a sliding window.

A window counts places in the cache and not tokens of the text, and a layer that has one forgets what it has passed.
Padding between two parts of a text therefore takes the place of tokens, and pushes others out.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


def shortest_window(config: Any) -> int | None:
    """The fewest tokens that a token of some layer sees, itself included; None where all see every token before."""
    windows = (getattr(layer, "sliding_window", None) for layer in DynamicCache(config=config).layers)
    return min((int(window) for window in windows if window is not None), default=None)


def whole(cache: Any) -> Any:
    """The cache with layers that forget nothing from here on; what they have forgotten is zero, and out of sight."""
    if not any(layer.is_sliding for layer in cache.layers):
        return cache
    return DynamicCache([tuple(_in_front(x, layer.get_seq_length()) for x in _kept(layer)) for layer in cache.layers])


def _kept(layer: Any) -> tuple[Tensor, Tensor]:
    return layer.keys, layer.values


def _in_front(states: Tensor, length: int) -> Tensor:
    """States (B, H, T, d) with zeros in front of them, `length` in all."""
    return torch.nn.functional.pad(states, (0, 0, length - states.shape[-2], 0))


def close_gaps(cache: Any, mask: Tensor, gaps: Tensor) -> Tensor:
    """Move the padding at the end of a cache's rows to their beginning, so that what comes next stands behind the text.

    Args:
        cache: a `whole` one, of keys and values (B, H, T, d).
        mask: which of the places are text (B, T).
        gaps: places of padding at the end of each row (B,).

    Returns:
        the mask, moved in the same way.
    """
    places = (torch.arange(mask.shape[1], device=mask.device) - gaps[:, None]) % mask.shape[1]
    for layer in cache.layers:
        own = places[:, None, :, None].expand_as(layer.keys)
        layer.keys, layer.values = layer.keys.gather(2, own), layer.values.gather(2, own)
    return mask.gather(1, places)
