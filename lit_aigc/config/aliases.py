"""Former names of keys and choices: still valid on the command line, in users' YAML and in saved configs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from lit_aigc.config.keys import get, put
from lit_aigc.errors import InputError


def _inside(section: str, *names: str) -> dict[str, str]:
    return {name: f"{section}.{name}" for name in names}


# For each verb: former dotted key -> today's. A key stands for all that lies below it; entries apply in order.
KEYS: Mapping[str, Mapping[str, str]] = {
    "train": {
        "callbacks.neighbours": "callbacks.neighbors",
        "callbacks.neighbors.neighbours": "callbacks.neighbors.neighbors",
    },
    "generate": _inside("image", "label", "columns", "directions", "interpolate", "encode", "extractor")
    | _inside("text", "prompt", "prompts", "stream")
    | _inside("text.decoding", "max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "stop")
    | _inside("text.decoding", "beams", "length_penalty"),
}
# For each group: former choice -> today's.
CHOICES: Mapping[str, Mapping[str, str]] = {"model": {"hvae_colour": "hvae_color"}}


def current_override(verb: str, override: str) -> str:
    """Rewrite an override to today's names; anything else on a command line is returned unchanged."""
    if override.startswith("-"):
        return override
    key, equals, value = override.partition("=")
    name = key.lstrip("+~")
    prefix = key.removesuffix(name)
    for old, new in KEYS.get(verb, {}).items():
        if name == old or name.startswith(old + "."):
            name = new + name.removeprefix(old)
    if name in CHOICES:
        # Several choices stand side by side in a multirun.
        value = ",".join(CHOICES[name].get(choice, choice) for choice in value.split(","))
    return f"{prefix}{name}{equals}{value}"


def current_overrides(verb: str, arguments: Iterable[str]) -> list[str]:
    """Rewrite the words of a command line to today's names.

    Raises:
        InputError: If a key is given under both names with different values.
    """
    given: dict[str, str] = {}
    renamed = []
    for argument in arguments:
        today = current_override(verb, argument)
        before = given.setdefault(today.partition("=")[0], argument)
        (name, _, value), (other, _, another) = argument.partition("="), before.partition("=")
        if name != other and value != another:
            raise InputError(f"{before} and {argument}: two names for one key. Give one of them.")
        renamed.append(today)
    return renamed


def rename_keys(verb: str, config: dict[str, Any], given: Collection[str] = ()) -> dict[str, Any]:
    """Move whatever a config has under former keys to today's keys, in place.

    Args:
        verb: The verb whose config it is.
        config: A composed or saved config.
        given: Today's keys that the command line sets; what it sets wins.

    Returns:
        The config.
    """
    for old, new in KEYS.get(verb, {}).items():
        above, _, name = old.rpartition(".")
        node = get(config, above) if above else config
        if isinstance(node, dict) and name in node:
            _merge(config, new, node.pop(name), given)
    return config


def _merge(config: dict[str, Any], key: str, value: Any, given: Collection[str]) -> None:
    """Set a value at a dotted key, merging mappings, except where the command line sets it."""
    if any(f"{key}.".startswith(f"{name}.") for name in given):
        return
    if isinstance(value, Mapping) and isinstance(get(config, key), Mapping):
        for name, inner in value.items():
            _merge(config, f"{key}.{name}", inner, given)
    elif not any(name.startswith(f"{key}.") for name in given):
        put(config, key, value)
