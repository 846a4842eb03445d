"""Which entries of a projection's output are the query's, the key's or the value's."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Slice:
    """Entries `[start:stop]` of each of the `blocks` equal parts of a vector.

    One block is a plain slice. Fused projections that are interleaved by head (GPT-NeoX, BLOOM, Falcon) have a block
    per head or group of heads, and query, key and value in each.
    """

    start: int
    stop: int
    blocks: int = 1

    @property
    def size(self) -> int:
        """Entries in all blocks together."""
        return self.blocks * (self.stop - self.start)

    def fits(self, width: int) -> bool:
        """Whether a vector of so many entries has these."""
        return width % self.blocks == 0 and 0 <= self.start < self.stop <= width // self.blocks

    def take(self, x: Tensor) -> Tensor:
        """These entries of x (..., width), block after block: (..., size)."""
        return x.unflatten(-1, (self.blocks, -1))[..., self.start : self.stop].flatten(-2)

    def put(self, values: Tensor, width: int) -> Tensor:
        """values (..., size) in a vector (..., width) that is zero elsewhere."""
        if self.size == width:
            return values
        each = values.unflatten(-1, (self.blocks, -1))
        return pad(each, (self.start, width // self.blocks - self.stop)).flatten(-2)


def fused(heads: int, kv_heads: int, size: int, blocks: int) -> dict[str, Slice]:
    """The three terms of a fused projection whose blocks hold their heads of the query, of the key and of the value.

    Args:
        heads: of the query, kv_heads: of key and value; both multiples of `blocks`.
        size: of a head.
    """
    q, kv = heads // blocks * size, kv_heads // blocks * size
    return {"q": Slice(0, q, blocks), "k": Slice(q, q + kv, blocks), "v": Slice(q + kv, q + 2 * kv, blocks)}
