"""The one exception for what a user can mend, and a check that leads to it."""

from __future__ import annotations


class InputError(Exception):
    """Bad input: says what was wrong, what was expected and what to do next; a command prints it and exits with 2."""


def not_whole(name: str, value: object, *, least: int | None) -> list[str]:
    """A sentence if the value is no int, or is less than `least`; for problems that are raised together."""
    if isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least):
        return []
    return [f"{name} is {value!r}, expected a whole number" + ("." if least is None else f", {least} or more.")]
