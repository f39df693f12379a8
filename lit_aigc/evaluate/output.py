"""Where an evaluation writes."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_aigc.files import check_writable
from lit_aigc.runs.bundle import find_bundle

# Options that change no number, or that the file is named after.
_NO_OPTIONS = ("bundle", "fake", "out", "page", "batch_size", "cache", "device", "trust")


def settled(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the places that it leaves open: the bundle of a run folder, and the file of the results.

    Raises:
        InputError: If the results can't be written there.
    """
    found = dict(config)
    if config["bundle"]:
        found["bundle"] = str(find_bundle(config["bundle"]))
    found["out"] = str(results_file(found))
    check_writable(found["out"], "out", folder=False)
    return found


def options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that numbers depend on, as they are kept beside the numbers."""
    return json.loads(json.dumps({key: value for key, value in config.items() if key not in _NO_OPTIONS}))


def results_file(config: Mapping[str, Any]) -> Path:
    """Where the numbers go: ``out``, or beside what is measured.

    Results of other options are kept: beside ``evaluation.json`` come ``evaluation-2.json`` and so on. The same
    evaluation again takes the place of its older results.
    """
    if config["out"]:
        return Path(config["out"])
    if config["bundle"]:
        first = find_bundle(config["bundle"]).parent / "evaluation.json"
    else:
        fake = Path(config["fake"]).absolute()
        first = fake.with_name(f"{fake.name}.evaluation.json")
    others = (first.with_stem(f"{first.stem}-{i}") for i in itertools.count(2))
    return next(file for file in itertools.chain([first], others) if not file.exists() or _is_of(config, file))


def picture_file(config: Mapping[str, Any]) -> Path:
    """Where the picture of the memorisation audit goes: ``memorisation.png``, with the number of the results."""
    results = results_file(config)
    number = re.search(r"-\d+$", results.stem)
    return results.with_name(f"memorisation{number[0] if number else ''}.png")


def page_file(config: Mapping[str, Any]) -> Path:
    """Where the page goes."""
    return results_file(config).with_suffix(".html")


def _is_of(config: Mapping[str, Any], file: Path) -> bool:
    """Whether a file holds the results of the same evaluation."""
    try:
        return json.loads(file.read_text()).get("options") == options(config)
    except (OSError, ValueError, AttributeError):
        return False
