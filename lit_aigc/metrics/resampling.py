"""Sets of samples drawn with replacement, for the bootstrap (Efron, 1979, Ann. Statist. 7:1-26)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lit_aigc.errors import InputError
from lit_aigc.noise import Noise

LEAST = 20  # draws


def weights(n: int, resamples: int, seed: int = 0) -> Iterator[Tensor]:
    """Count how often each of n items is in a set of n drawn with replacement; draw b depends on (seed, b) alone.

    Yields:
        ``(n,)`` float64 for each of the draws.

    Raises:
        InputError: If there are fewer than two items or too few draws.
    """
    if n < 2:
        raise InputError(f"A bootstrap needs at least 2 samples, got {n}.")
    check_draws(resamples)
    noise = Noise(seed).stream("bootstrap")
    for draw in range(resamples):
        yield torch.bincount(noise.skip(draw * n).integers(n, n), minlength=n).double()


def check_draws(resamples: int) -> None:
    """Refuse a number of draws that gives no interval."""
    if resamples < LEAST:
        raise InputError(f"bootstrap={resamples}: expected the number of draws, {LEAST} or more, preferably hundreds.")
