"""Where an evaluation writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def results_file(config: Mapping[str, Any]) -> Path:
    """Where the numbers go: ``out``, or beside what is measured."""
    if config["out"]:
        return Path(config["out"])
    if config["bundle"]:
        return Path(config["bundle"]).parent / "evaluation.json"
    fake = Path(config["fake"]).absolute()
    return fake.with_name(f"{fake.name}.evaluation.json")


def picture_file(config: Mapping[str, Any]) -> Path:
    """Where the picture of the memorisation audit goes."""
    return results_file(config).with_name("memorisation.png")


def page_file(config: Mapping[str, Any]) -> Path:
    """Where the page goes."""
    return results_file(config).with_suffix(".html")
