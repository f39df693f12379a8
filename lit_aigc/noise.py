"""Noise by sample index: item i of a stream depends on (seed, i) alone, whatever the batch size, processes or device.

A counter-based generator: each element is the SplitMix64 finaliser (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014) of its seed, item and position, so any part of a stream can be drawn
alone and in bulk. Draws are made on the CPU, where unsigned numbers wrap, and so are equal on every device.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math

import numpy as np
import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(_MIX_1)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(_MIX_2)
    return x ^ (x >> np.uint64(31))


@dataclasses.dataclass(frozen=True)
class Noise:
    """A reproducible stream of noise, one independent draw an item.

    Attributes:
        seed: The stream's seed; any int.
        start: Index of the first item: ``Noise(seed, 5)`` continues what ``Noise(seed)`` drew for its first 5 items.
    """

    seed: int
    start: int = 0

    def stream(self, name: str) -> Noise:
        """An independent stream of the same items, for a second use of noise in one sample."""
        digest = hashlib.blake2b(f"{self.seed}/{name}".encode(), digest_size=8).digest()
        return Noise(int.from_bytes(digest, "little"), self.start)

    def skip(self, items: int) -> Noise:
        """The same stream, starting `items` later."""
        return Noise(self.seed, self.start + items)

    def bits(self, n: int, width: int, device: torch.device | str | None = None) -> Tensor:
        """``(n, width)`` int64, all 64 bits uniform."""
        return torch.from_numpy(self._bits(n, width).view(np.int64)).to(device)

    def normal(self, n: int, *shape: int, device: torch.device | str | None = None) -> Tensor:
        """``(n, *shape)`` float32 standard normal (Box and Muller, 1958; 32 bits a number, so |x| < 6.8)."""
        width = math.prod(shape)
        bits = self._bits(n, (width + 1) // 2)
        radius = np.sqrt(-2.0 * np.log(((bits >> np.uint64(32)) + 0.5) * 2.0**-32))
        angle = (bits & np.uint64(0xFFFFFFFF)) * (2.0**-31 * math.pi)
        values = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :width]
        return torch.from_numpy(values.astype(np.float32)).reshape(n, *shape).to(device)

    def uniform(self, n: int, *shape: int, device: torch.device | str | None = None) -> Tensor:
        """``(n, *shape)`` float32 uniform in [0, 1), 24 bits a number."""
        values = (self._bits(n, math.prod(shape)) >> np.uint64(40)) * 2.0**-24
        return torch.from_numpy(values.astype(np.float32)).reshape(n, *shape).to(device)

    def integers(self, n: int, high: int, device: torch.device | str | None = None) -> Tensor:
        """``(n,)`` int64 uniform in [0, high), for `high` up to 2**32."""
        values = ((self._bits(n, 1)[:, 0] >> np.uint64(32)) * np.uint64(high)) >> np.uint64(32)
        return torch.from_numpy(values.astype(np.int64)).to(device)

    def _bits(self, n: int, width: int) -> np.ndarray:
        key = _mix(np.array([(self.seed * _GOLDEN + _MIX_1) & _MASK], dtype=np.uint64))
        items = np.arange(self.start, self.start + n, dtype=np.uint64) * np.uint64(_GOLDEN)
        positions = np.arange(1, width + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
        return _mix(_mix(items ^ key)[:, None] + positions)
