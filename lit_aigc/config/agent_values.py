"""Values as Python has them, in Hydra's grammar: what W&B's sweep agents write on the command line with ``str``."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from lit_aigc.config.overrides import as_text, in_hydras_grammar


def overrides_of_agent(argument: str, is_one_value: Callable[[str], bool]) -> list[str]:
    """What an argument ``key=str(value)`` stands for.

    Args:
        argument: As the agent wrote it. What is no override stays as it is.
        is_one_value: Whether Hydra reads an override as one value: not as several, to run one after another, nor as
            an error.

    Returns:
        One override: ``None`` is null, and what is no value for Hydra, such as ``a, b``, is text. For a mapping (W&B's
        nested parameters) one for each of its values, with the keys joined by dots.
    """
    key, equals, text = argument.partition("=")
    if not equals or argument.startswith("-"):
        return [argument]
    value = _literal(text)
    if isinstance(value, Mapping) and value:
        return [f"{name}={in_hydras_grammar(inner)}" for name, inner in _leaves(key, value)]
    if value is None or isinstance(value, (list, tuple)):
        return [f"{key}={in_hydras_grammar(value)}"]
    return [argument if is_one_value(argument) else f"{key}={as_text(text)}"]


def _literal(text: str) -> Any:
    """None, or what a list or mapping as Python prints it holds; else the text itself."""
    try:
        return ast.literal_eval(text) if text == "None" or text[:1] in ("[", "(", "{") else text
    except (SyntaxError, ValueError):
        return text  # in Hydra's own grammar


def _leaves(key: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not value:
        return [(key, value)]
    return [leaf for name, inner in value.items() for leaf in _leaves(f"{key}.{name}", inner)]
