"""A key-value cache: what a transformer keeps of earlier tokens, for rows of different lengths."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F

_ROOM = 32  # positions that a new cache has room for


@dataclasses.dataclass(frozen=True)
class CacheSlots:
    """The positions of new tokens in a cache.

    Attributes:
        positions: ``(N, T)`` int64: the position of each new token in its row.
        reach: Number of positions, from the first on, that new tokens may attend to.
        first: Position of the first new token if it is the same in all rows, else None.
        mask: ``(N or 1, 1, T, reach)`` bool: what each new token attends to; None: everything.
    """

    positions: Tensor
    reach: int
    first: int | None
    mask: Tensor | None


class KeyValueCache:
    """Keys and values of each block, and the tokens.

    Attributes:
        lengths: ``(N,)`` int64: number of tokens of each row.
        ids: ``(N, room)`` int64: the tokens.
        blocks: Keys and values of each block, ``(2, N, heads, room, d)``.
    """

    def __init__(self, lengths: Tensor, ids: Tensor, blocks: list[Tensor], longest: int = 0, even: bool = True) -> None:
        self.lengths, self.ids, self.blocks = lengths, ids, blocks
        self._longest = longest  # length of the longest row, known without waiting for the device
        self._even = even  # whether all rows have the same length

    @classmethod
    def empty(cls, n: int, blocks: int, heads: int, d: int, like: Tensor) -> KeyValueCache:
        """Return an empty cache of n rows, with the dtype and on the device of `like`."""
        ids = torch.zeros(n, _ROOM, dtype=torch.int64, device=like.device)
        return cls(ids.new_zeros(n), ids, [like.new_zeros(2, n, heads, _ROOM, d) for _ in range(blocks)])

    def select(self, rows: Tensor) -> KeyValueCache:
        """Return the cache of some of these rows, ``(n,)`` int64, in any order and with repetitions."""
        blocks = [block[:, rows] for block in self.blocks]
        return type(self)(self.lengths[rows], self.ids[rows], blocks, self._longest, self._even)

    def extend(self, ids: Tensor, lengths: Tensor | None) -> CacheSlots:
        """Add new tokens, and make room for their keys and values.

        Args:
            ids: ``(N, T)`` int64; the first ``lengths[i]`` of row i are real.
            lengths: ``(N,)`` int64, or None if all tokens are real.
        """
        new = torch.arange(ids.shape[1], device=ids.device)
        positions = self.lengths[:, None] + new  # (N, T)
        reach = self._longest + ids.shape[1]
        room = self.ids.shape[1]
        if reach > room:
            # Twice the room at least, so that a growing cache is seldom copied.
            more = max(reach, 2 * room) - room
            self.ids = F.pad(self.ids, (0, more))
            self.blocks = [F.pad(block, (0, 0, 0, more)) for block in self.blocks]
        self.ids.scatter_(1, positions, ids)

        # A single token in rows of equal length attends to everything; otherwise a mask hides padding and the future.
        first = self._longest if self._even else None
        mask = None
        if first is None or len(new) > 1:
            mask = torch.arange(reach, device=ids.device) <= positions[:, None, :, None]

        if lengths is None:
            self.lengths, self._longest = self.lengths + ids.shape[1], reach
        else:
            self.lengths = self.lengths + lengths
            self._longest = int(self.lengths.max())
            self._even = int(self.lengths.min()) == self._longest
        return CacheSlots(positions, reach, first, mask)


def cached_attention(q: Tensor, k: Tensor, v: Tensor, block: Tensor, slots: CacheSlots) -> Tensor:
    """Attend from new tokens to themselves and to a cache, and write their keys and values to it.

    Args:
        q: Queries, ``(N, heads, T, d)``.
        k: Keys of the same shape.
        v: Values of the same shape.
        block: Keys and values of the cache, ``(2, N, heads, room, d)``.
        slots: Where the new tokens go.
    """
    new = torch.stack([k, v]).to(block.dtype)
    if slots.first is not None:
        block[:, :, :, slots.first : slots.reach] = new  # a slice is much faster than an index
    else:
        rows = torch.arange(len(q), device=q.device)[:, None]
        block.permute(1, 3, 0, 2, 4)[rows, slots.positions] = new.permute(1, 3, 0, 2, 4)
    k, v = block[:, :, :, : slots.reach]
    return F.scaled_dot_product_attention(q.to(k.dtype), k, v, attn_mask=slots.mask)
