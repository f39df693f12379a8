"""Values as Python prints them, in Hydra's grammar: W&B's sweep agents write them on the command line with ``str``."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from lit_aigc.config.keys import leaves
from lit_aigc.config.overrides import as_text, in_hydras_grammar


def overrides_of_agent(argument: str, is_one_value: Callable[[str], bool]) -> list[str]:
    """Return the overrides that an argument ``key=str(value)`` stands for.

    Args:
        argument: As the agent wrote it. Anything but an override is returned as it is.
        is_one_value: Whether Hydra reads an override as one value: not as several, to run one after another, nor as
            an error.

    Returns:
        One override: ``None`` is null, and anything that is no value for Hydra, such as ``a, b``, is text. For a
        mapping (W&B's nested parameters) one per value, with the keys joined by dots.
    """
    key, equals, text = argument.partition("=")
    if not equals or argument.startswith("-"):
        return [argument]
    value = _literal(text)
    if isinstance(value, Mapping) and value:
        return [f"{name}={in_hydras_grammar(inner)}" for name, inner in leaves(value, f"{key}.").items()]
    if value is None or isinstance(value, (list, tuple)):
        return [f"{key}={in_hydras_grammar(value)}"]
    return [argument if is_one_value(argument) else f"{key}={as_text(text)}"]


def _literal(text: str) -> Any:
    """Read None, a list or a mapping as Python prints it; return other text unchanged."""
    if text != "None" and text[:1] not in ("[", "(", "{"):
        return text
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text  # in Hydra's own grammar
