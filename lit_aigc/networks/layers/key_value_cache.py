"""What a transformer remembers of the tokens before, for rows of any length."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F

_ROOM = 32  # positions that a cache begins with room for


@dataclasses.dataclass(frozen=True)
class Places:
    """Where new tokens go in a cache.

    Attributes:
        positions: ``(N, T)`` int64: of each new token in its row.
        reach: The positions ahead of this one are all that any new token looks at.
        first: Position of the first new token where it is the same in all rows, else None.
        seen: ``(N or 1, 1, T, reach)`` bool: what each new token looks at; None: everything.
    """

    positions: Tensor
    reach: int
    first: int | None
    seen: Tensor | None


class KeyValueCache:
    """Keys and values of each block, and the tokens.

    Attributes:
        lengths: ``(N,)`` int64 tokens held of each row.
        ids: ``(N, room)`` int64: the tokens.
        blocks: ``(2, N, heads, room, d)`` of each block: keys and values.
    """

    def __init__(self, lengths: Tensor, ids: Tensor, blocks: list[Tensor], longest: int = 0, even: bool = True) -> None:
        self.lengths, self.ids, self.blocks = lengths, ids, blocks
        self._longest, self._even = longest, even  # whether all rows are of one length

    @classmethod
    def empty(cls, n: int, blocks: int, heads: int, d: int, like: Tensor) -> KeyValueCache:
        """For n rows; in the precision and on the device of `like`."""
        ids = torch.zeros(n, _ROOM, dtype=torch.int64, device=like.device)
        return cls(ids.new_zeros(n), ids, [like.new_zeros(2, n, heads, _ROOM, d) for _ in range(blocks)])

    def select(self, rows: Tensor) -> KeyValueCache:
        """The cache of other rows: some of these ``(n,)``, in any order, any of them several times."""
        blocks = [block[:, rows] for block in self.blocks]
        return type(self)(self.lengths[rows], self.ids[rows], blocks, self._longest, self._even)

    def extend(self, ids: Tensor, lengths: Tensor | None) -> Places:
        """Take note of new tokens, and make room for their keys and values.

        Args:
            ids: ``(N, T)`` int64; of row i the first ``lengths[i]`` are real.
            lengths: ``(N,)`` int64, or None where all are real.
        """
        new = torch.arange(ids.shape[1], device=ids.device)
        positions = self.lengths[:, None] + new  # (N, T)
        reach = self._longest + ids.shape[1]
        self._make_room(reach)
        self.ids.scatter_(1, positions, ids)
        first = self._longest if self._even else None
        if first is None or len(new) > 1:
            seen = torch.arange(reach, device=ids.device) <= positions[:, None, :, None]
        else:
            seen = None
        if lengths is None:
            self.lengths, self._longest = self.lengths + ids.shape[1], reach
        else:
            self.lengths = self.lengths + lengths
            self._longest = int(self.lengths.max())
            self._even = int(self.lengths.min()) == self._longest
        return Places(positions, reach, first, seen)

    def _make_room(self, needed: int) -> None:
        room = self.ids.shape[1]
        if needed <= room:
            return
        more = max(needed, 2 * room) - room
        self.ids = F.pad(self.ids, (0, more))
        self.blocks = [F.pad(block, (0, 0, 0, more)) for block in self.blocks]


def attend(q: Tensor, k: Tensor, v: Tensor, block: Tensor, places: Places) -> Tensor:
    """Attention of new tokens to themselves and what a cache holds; their keys and values are added to it.

    Args:
        q: ``(N, heads, T, d)``.
        k: Like q.
        v: Like q.
        block: ``(2, N, heads, room, d)`` of the cache.
        places: Where the new tokens go.
    """
    new = torch.stack([k, v]).to(block.dtype)
    if places.first is not None:
        block[:, :, :, places.first : places.reach] = new
    else:
        rows = torch.arange(len(q), device=q.device)[:, None]
        block.permute(1, 3, 0, 2, 4)[rows, places.positions] = new.permute(1, 3, 0, 2, 4)
    k, v = block[:, :, :, : places.reach]
    return F.scaled_dot_product_attention(q.to(k.dtype), k, v, attn_mask=places.seen)
