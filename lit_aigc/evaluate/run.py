"""Measure a bundle, or images from elsewhere, with the file of their modality."""

from __future__ import annotations

from typing import Any

from lit_aigc.evaluate.baseline import baseline_results, differences
from lit_aigc.evaluate.checks import check_options
from lit_aigc.evaluate.subject import Subject, open_subject
from lit_aigc.media.modality import of_modality


def evaluate(config: dict[str, Any]) -> dict[str, Any]:
    """Return metrics of a bundle or a set of images by key, and ``protocol``; with ``audit`` write the picture too.

    With ``baseline`` the results also have ``comparison``: how the numbers differ from the baseline's.

    Raises:
        InputError: If the bundle or a set can't be read, or the metrics can't be computed.
    """
    return measured(config)[0]


def measured(config: dict[str, Any]) -> tuple[dict[str, Any], Subject]:
    """Return the results of `evaluate`, and what was measured."""
    check_options(config)
    baseline = baseline_results(config, evaluate) if config["baseline"] else None
    subject = open_subject(config)
    values, protocol = of_modality("evaluate", subject.spec.modality).measure(config, subject)
    results = subject.names() | values | {"protocol": protocol}
    if baseline:
        results["comparison"] = differences(baseline, results, str(config["baseline"]))
    return results, subject
