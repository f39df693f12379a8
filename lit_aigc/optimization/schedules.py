"""Learning-rate schedules over the budget."""

from __future__ import annotations

import math
from collections.abc import Callable


def constant(share: float, final: float) -> float:
    """Stay at 1."""
    return 1.0


def linear(share: float, final: float) -> float:
    """Go from 1 to `final` in a straight line."""
    return 1.0 + (final - 1.0) * share


def cosine(share: float, final: float) -> float:
    """Go from 1 to `final` along half a cosine (Loshchilov and Hutter, 2017)."""
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * share))


SCHEDULES: dict[str, Callable[[float, float], float]] = {"constant": constant, "linear": linear, "cosine": cosine}
"""By name, the factor on the learning rate after a share in [0, 1] of what follows the warm-up."""


def schedule(name: str, progress: float, warmup: float = 0.0, final: float = 0.0) -> float:
    """Return the factor on the base learning rate.

    Args:
        name: One of `SCHEDULES`.
        progress: Share of the budget that is used, in [0, 1].
        warmup: Share of the budget over which the factor rises linearly from 0, in [0, 1).
        final: Factor at the end of a schedule that falls.
    """
    if progress < warmup:
        return progress / warmup
    return SCHEDULES[name](min(1.0, (progress - warmup) / (1.0 - warmup)), final)
