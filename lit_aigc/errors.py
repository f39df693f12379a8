"""The one exception for what users can fix, and checks of options that lead to it."""

from __future__ import annotations

import math
from collections.abc import Iterable


class InputError(Exception):
    """Bad input: says what was wrong, what was expected and what to do next; a command prints it and exits with 2."""


def check(*conditions: tuple[str, object, bool, str], more: Iterable[str] = ()) -> None:
    """Check options against what is expected of them, and report all that are wrong at once.

    Args:
        conditions: Key, value, whether it is right, and what is expected of it, such as
            ``("recipe.warmup", warmup, 0 <= warmup < 1, "a share in [0, 1)")``.
        more: Further problems, one sentence each.

    Raises:
        InputError: One line per problem.
    """
    wrong = [f"{key}={value}: expected {expected}" for key, value, right, expected in conditions if not right]
    if wrong := [*wrong, *more]:
        raise InputError("\n".join(wrong))


def at_least(least: int, prefix: str, **values: float) -> list[tuple[str, object, bool, str]]:
    """Return conditions for `check`: that numbers are not less than this; a prefix and each name give its key."""
    return [(f"{prefix}{name}", value, value >= least, f"{least} or more") for name, value in values.items()]


def is_whole(value: object, least: float = -math.inf) -> bool:
    """Return whether a value is an int, `least` or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def not_whole(name: str, value: object, *, least: int | None) -> list[str]:
    """Return a sentence if a value is no int, or less than `least`; for problems that are raised together."""
    if is_whole(value, -math.inf if least is None else least):
        return []
    return [f"{name} is {value!r}, expected a whole number" + ("." if least is None else f", {least} or more.")]
