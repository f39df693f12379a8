"""Test whether two evaluations differ by more than the noise of their samples."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lit_aigc.errors import InputError
from lit_aigc.metrics.bootstrap import compare
from lit_aigc.metrics.measurement import read
from lit_aigc.metrics.table import with_interval
from lit_aigc.runs.bundle import MANIFEST, find_bundle

_OF_THE_MODEL = {"classification_accuracy": None, "nll_samples": None, "nll_images": None, "audit": False}


def baseline_results(config: Mapping[str, Any], evaluate: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Return the numbers of the baseline: read from a ``.json``, or measured as the config says.

    Args:
        config: The options of the evaluation; the baseline leaves out what needs more than samples.
        evaluate: Measures a config.

    Raises:
        InputError: If the file can't be read or is not an evaluation, or the baseline can't be measured.
    """
    path = Path(config["baseline"])
    if path.suffix.lower() != ".json":
        is_bundle = (find_bundle(path) / MANIFEST).exists() or not config["fake"]
        measured = {"bundle": str(path), "fake": None} if is_bundle else {"bundle": None, "fake": str(path)}
        return evaluate({**config, **_OF_THE_MODEL, **measured, "baseline": None})
    try:
        results = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"baseline={path} can't be read ({error}): expected the JSON that evaluate wrote.") from None
    if not isinstance(results, dict) or not isinstance(results.get("protocol"), dict):
        raise InputError(f"baseline={path} is not an evaluation: expected JSON that evaluate wrote, with a protocol.")
    return results


def differences(baseline: Mapping[str, Any], results: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return each number that has an interval, minus that of the baseline.

    Args:
        baseline: An evaluation with intervals.
        results: Another one, measured alike.
        path: Path of the baseline.

    Returns:
        ``baseline``, the path; and for each number by key ``value``, ``baseline``, ``difference``,
        ``standard_error``, ``low`` and ``high``, its 95 % interval, and ``beyond_noise``, whether that excludes 0.

    Raises:
        InputError: If the two were not measured alike, or the baseline has no intervals.
    """
    protocol = results["protocol"]
    measurements = [each for each in read(results, protocol) if each.standard_error is not None]
    keys = [each.key() for each in measurements if "extractor_hash" in protocol.get(each.protocol, ())]
    if not keys:
        names = ", ".join(with_interval())
        raise InputError(f"baseline= needs numbers with intervals: ask for some of {names}, and bootstrap=200.")
    found: dict[str, Any] = {"baseline": path}
    for key in keys:
        difference = compare(baseline, results, key)
        found[key] = {"value": results[key], "baseline": baseline[key], "difference": difference.value}
        found[key] |= {name: getattr(difference, name) for name in ("standard_error", "low", "high", "beyond_noise")}
    return found
