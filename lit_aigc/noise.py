"""Noise by sample index: item i of a stream depends on (seed, i) alone, whatever the batch size, processes or device.

A counter-based generator: each element is the SplitMix64 finalizer (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014) of its seed, item and position, so any part of a stream can be computed
independently and in bulk. It is computed on the device where it is needed, in int64, whose arithmetic wraps: bits,
uniform numbers and integers are equal on every device. Normal numbers pass through logarithms and sines in float64,
whose last bit may depend on the library. After rounding to float32 that rarely shows: of 3.4 * 10^8 numbers, none
differed between NumPy and torch on CPUs with AVX-512, AVX2 or neither.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math

import torch
from torch import Tensor

_WORD = 1 << 64


def _signed(x: int) -> int:
    """Return the int64 with the same 64 bits as `x`."""
    return (x + _WORD // 2) % _WORD - _WORD // 2


_GOLDEN, _MIX_1, _MIX_2 = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _mix(x: Tensor) -> Tensor:
    """Apply the finalizer in place. A mask turns each arithmetic shift into a logical one."""
    shifted = x >> 30
    x ^= shifted.bitwise_and_((1 << 34) - 1)
    x *= _MIX_1
    x ^= torch.bitwise_right_shift(x, 27, out=shifted).bitwise_and_((1 << 37) - 1)
    x *= _MIX_2
    x ^= torch.bitwise_right_shift(x, 31, out=shifted).bitwise_and_((1 << 33) - 1)
    return x


@functools.lru_cache(maxsize=1024)
def _key(seed: int) -> int:
    """Return the finalizer of a seed, as int64."""
    x = (seed * _GOLDEN + _MIX_1) % _WORD
    x = (x ^ (x >> 30)) * _MIX_1 % _WORD
    x = (x ^ (x >> 27)) * _MIX_2 % _WORD
    return _signed(x ^ (x >> 31))


@dataclasses.dataclass(frozen=True)
class Noise:
    """A reproducible stream of noise, with one independent draw per item.

    Attributes:
        seed: The stream's seed; any int.
        start: Index of the first item: ``Noise(seed, 5)`` continues after the first 5 items of ``Noise(seed)``.
    """

    seed: int
    start: int = 0

    def stream(self, name: str) -> Noise:
        """Return an independent stream of the same items, for another use of noise in the same sample."""
        digest = hashlib.blake2b(f"{self.seed}/{name}".encode(), digest_size=8).digest()
        return Noise(int.from_bytes(digest, "little"), self.start)

    def skip(self, items: int) -> Noise:
        """Return the same stream, starting `items` later."""
        return Noise(self.seed, self.start + items)

    def bits(self, n: int, width: int, device: torch.device | str | None = None) -> Tensor:
        """Return ``(n, width)`` int64, all 64 bits uniform."""
        return self._bits(n, width, device).to(device)

    def bits_at(self, items: Tensor, positions: Tensor) -> Tensor:
        """Return single elements: those of `bits` at rows ``items`` and columns ``positions``.

        Args:
            items: int64, counted from `start`.
            positions: int64, on the same device; its shape broadcasts with that of `items`.

        Returns:
            int64 of the broadcast shape.
        """
        return self._at(items + self.start, positions + 1)

    def normal(self, n: int, *shape: int, device: torch.device | str | None = None) -> Tensor:
        """Return ``(n, *shape)`` float32 standard normal (Box and Muller, 1958; 32 bits each, so |x| < 6.8)."""
        width = math.prod(shape)
        bits = self._bits(n, (width + 1) // 2, device)
        # The upper 32 bits give the radius, the lower 32 the angle, and each pair of them two normal numbers.
        high = (bits >> 32).bitwise_and_(0xFFFFFFFF).double()
        radius = high.add_(0.5).mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
        angle = bits.bitwise_and_(0xFFFFFFFF).double().mul_(2.0**-31 * math.pi)
        values = torch.cat([angle.cos().mul_(radius), angle.sin_().mul_(radius)], dim=1)[:, :width]
        return values.float().reshape(n, *shape).to(device)

    def uniform(self, n: int, *shape: int, device: torch.device | str | None = None) -> Tensor:
        """Return ``(n, *shape)`` float32 uniform in [0, 1), 24 bits per number."""
        high = (self._bits(n, math.prod(shape), device) >> 40).bitwise_and_(0xFFFFFF)
        return high.float().mul_(2.0**-24).reshape(n, *shape).to(device)

    def integers(self, n: int, high: int, device: torch.device | str | None = None) -> Tensor:
        """Return ``(n,)`` int64 uniform in [0, high), for `high` up to 2**32."""
        values = (self._bits(n, 1, device)[:, 0] >> 32).bitwise_and_(0xFFFFFFFF)
        return (values.mul_(high) >> 32).bitwise_and_(0xFFFFFFFF).to(device)

    def _bits(self, n: int, width: int, device: torch.device | str | None) -> Tensor:
        """Return `bits` on the device that computes for `device`: itself, or the CPU for MPS, which lacks float64."""
        if device is not None and torch.device(device).type == "mps":
            device = "cpu"
        items = torch.arange(self.start, self.start + n, device=device)
        return self._at(items[:, None], torch.arange(1, width + 1, device=device))

    def _at(self, items: Tensor, positions: Tensor) -> Tensor:
        """Return elements by item of the whole stream and by position, counted from 1; overwrites both arguments."""
        items *= _GOLDEN
        items ^= _key(self.seed)
        positions *= _GOLDEN
        return _mix(_mix(items) + positions)
