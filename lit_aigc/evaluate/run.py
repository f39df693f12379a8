"""Numbers of a bundle, or of images from elsewhere, with their protocol."""

from __future__ import annotations

import importlib
from typing import Any

from lit_aigc.errors import InputError
from lit_aigc.evaluate.baseline import baseline_results, differences
from lit_aigc.evaluate.checks import check_options
from lit_aigc.evaluate.subject import Subject, open_subject

# For each modality a module with `measure(config, subject)`, which returns numbers by key and their protocol.
_MEASURED_BY = {"image": "lit_aigc.evaluate.images", "text": "lit_aigc.evaluate.text"}


def evaluate(config: dict[str, Any]) -> dict[str, Any]:
    """Metrics of a bundle or a set of images by key, and ``protocol``; with ``audit`` it writes the picture too.

    With ``baseline`` there is ``comparison`` too: how the numbers differ from the baseline's.

    Raises:
        InputError: If the bundle or a set can't be read, or the metrics can't be computed.
    """
    return measured(config)[0]


def measured(config: dict[str, Any]) -> tuple[dict[str, Any], Subject]:
    """See `evaluate`; also gives what was measured."""
    check_options(config)
    baseline = baseline_results(config, evaluate) if config["baseline"] else None
    subject = open_subject(config)
    modality = subject.spec.modality
    if modality not in _MEASURED_BY:
        raise InputError(f"There are no metrics of {modality} yet, only of: {', '.join(_MEASURED_BY)}.")
    values, protocol = importlib.import_module(_MEASURED_BY[modality]).measure(config, subject)
    results = subject.names() | values | {"protocol": protocol}
    if baseline:
        results["comparison"] = differences(baseline, results, str(config["baseline"]))
    return results, subject
