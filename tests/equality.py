"""Equality of what checkpoints hold, however deep it lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def equal(one: Any, other: Any, path: str) -> None:
    """Bit for bit."""
    assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, path


def assert_equal(one: Any, other: Any, path: str = "", same: Callable[[Any, Any, str], None] = equal) -> None:
    """Two checkpoints, or parts of them, are the same but for the clock; the message is the path to what isn't.

    Args:
        one: Values in mappings and lists.
        other: The same.
        path: Where they lie.
        same: Asserts that two values are the same.
    """
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one.keys() - {"train_seconds", "wall_seconds"}:
            assert_equal(one[key], other[key], f"{path}.{key}", same)
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{path}[{index}]", same)
    else:
        same(one, other, path)
