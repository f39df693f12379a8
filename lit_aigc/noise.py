"""Noise by sample index: item i of a stream depends on (seed, i) alone, on any batch size and number of processes.

A counter-based generator: each element is the SplitMix64 finaliser (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014) of its seed, item and position, so any part of a stream can be drawn
alone, in bulk, on any device.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    """The int64 that has the same 64 bits as an unsigned value."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """A logical (zero-filling) shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix_key(x: int) -> int:
    """`_mix` of a plain number: a stream's key costs no tensor operations."""
    x &= _MASK
    x = ((x ^ x >> 30) * _MIX_1) & _MASK
    x = ((x ^ x >> 27) * _MIX_2) & _MASK
    return _signed(x ^ x >> 31)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shift_right(x, 27)) * _signed(_MIX_2)
    return x ^ _shift_right(x, 31)


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
        key = _mix_key(self.seed * _GOLDEN + _MIX_1)
        items = torch.arange(self.start, self.start + n, device=device) * _signed(_GOLDEN)
        positions = torch.arange(1, width + 1, device=device) * _signed(_GOLDEN)
        return _mix(_mix(items ^ key)[:, None] + positions)

    def normal(self, n: int, *shape: int, device: torch.device | str | None = None) -> Tensor:
        """``(n, *shape)`` float32 standard normal (Box and Muller, 1958; 32 bits a number, so |x| < 6.8)."""
        width = math.prod(shape)
        bits = self.bits(n, (width + 1) // 2, _with_float64(device))
        first = (_shift_right(bits, 32).double() + 0.5) * 2.0**-32
        second = (bits & 0xFFFFFFFF).double() * (2.0**-31 * math.pi)
        radius = torch.sqrt(-2.0 * torch.log(first))
        values = torch.cat([radius * torch.cos(second), radius * torch.sin(second)], dim=1)
        return values[:, :width].reshape(n, *shape).float().to(device)

    def uniform(self, n: int, *shape: int, device: torch.device | str | None = None) -> Tensor:
        """``(n, *shape)`` float32 uniform in [0, 1), 24 bits a number."""
        bits = self.bits(n, math.prod(shape), _with_float64(device))
        return (_shift_right(bits, 40).double() * 2.0**-24).float().reshape(n, *shape).to(device)

    def integers(self, n: int, high: int, device: torch.device | str | None = None) -> Tensor:
        """``(n,)`` int64 uniform in [0, high), for `high` far below 2**31."""
        return (_shift_right(self.bits(n, 1, device)[:, 0], 32) * high) >> 32


def _with_float64(device: torch.device | str | None) -> torch.device | str | None:
    """Where to compute for a device: Apple's has no float64."""
    return "cpu" if device is not None and torch.device(device).type == "mps" else device
