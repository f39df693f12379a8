"""Dotted keys of nested mappings: ``a.b`` is the key ``b`` of the mapping at ``a``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return all values by their dotted keys; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def get(tree: Any, key: str) -> Any:
    """Return the value at a dotted key; None where there is none."""
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set the value at a dotted key, in place of anything on the way that is no mapping."""
    *above, last = key.split(".")
    for part in above:
        if not isinstance(tree.get(part), dict):
            tree[part] = {}
        tree = tree[part]
    tree[last] = value
