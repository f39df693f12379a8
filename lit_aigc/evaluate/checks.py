"""Refuse options of an evaluation that are out of range or contradict each other, and data that don't fit."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from lit_aigc.errors import InputError, check, is_whole
from lit_aigc.media.image_sets import ImageSet
from lit_aigc.metrics.frechet import SmallSampleWarning
from lit_aigc.metrics.resampling import LEAST
from lit_aigc.metrics.table import METRICS, by_default, with_interval
from lit_aigc.modules.capabilities import HasLikelihood

_OF_A_MODEL = ("classification_accuracy", "nll_samples")
_ON_REQUEST = (*_OF_A_MODEL, "audit")
_OF_IMAGES = (
    *("real", "extractor", "weights_path", "resize", "bf16_features", "metrics", "bootstrap", "reference"),
    *("nll_images", *_ON_REQUEST),
)


def check_options(config: Mapping[str, Any]) -> None:
    """Refuse numbers that are out of range, and options that contradict each other, before anything is opened.

    Raises:
        InputError: For the first problem.
    """
    _check_sources(config)
    samples, metrics, bootstrap = config["num_samples"], config["metrics"], config["bootstrap"]
    draws_fit = is_whole(bootstrap, LEAST) or (is_whole(bootstrap) and bootstrap == 0)
    check(
        ("num_samples", samples, samples >= 2, "at least 2, preferably thousands"),
        ("metrics", metrics, not isinstance(metrics, str), f"a list, such as [{metrics}]"),
        _number(config, "classification_accuracy", 2, "samples that a classifier is trained on"),
        _number(config, "nll_samples", 1, "latents per image"),
        _number(config, "nll_images", 2, "test images"),
        ("bootstrap", bootstrap, draws_fit, f"0, or the number of draws, {LEAST} or more, such as 200"),
    )
    if config["baseline"] and not bootstrap:
        raise InputError("baseline= compares numbers with their noise: add bootstrap=200.")
    if config["baseline"] and config["metrics"] == []:
        names = ", ".join(with_interval())
        raise InputError(f"baseline= compares metrics with intervals, and metrics is empty: ask for some of {names}.")
    if config["nll_images"] and not config["nll_samples"]:
        raise InputError("nll_images needs nll_samples, the number of latents, such as nll_samples=500.")
    if config["metrics"] == [] and not any(config[key] for key in _ON_REQUEST):
        raise InputError(
            f"metrics is empty, and nothing else is asked for: expected some of {', '.join(METRICS)}, or null for "
            f"{', '.join(by_default())} where they apply."
        )


def _number(config: Mapping[str, Any], key: str, least: int, what: str) -> tuple[str, object, bool, str]:
    value = config[key]
    return key, value, value is None or is_whole(value, least), f"the number of {what}, {least} or more, or null"


def refuse_options_of_images(config: Mapping[str, Any]) -> None:
    """Refuse options that only models of images have, for a bundle of another modality.

    Raises:
        InputError: If some are given.
    """
    if given := [key for key in _OF_IMAGES if config.get(key)]:
        raise InputError(f"{', '.join(given)}: for models of images, and this bundle isn't one. Leave them out.")


def _check_sources(config: Mapping[str, Any]) -> None:
    """Refuse missing or ambiguous sources of what to measure and what to compare with."""
    if not (config["bundle"] or config["fake"]):
        raise InputError(
            "bundle= is missing, and so is fake=: give a trained model, bundle=<run folder>/bundle, or generated "
            "images, fake=PATH with real=PATH to compare with, each a folder, a .zip or an .npz; see --help"
        )
    if config["bundle"] and config["fake"]:
        raise InputError("bundle= and fake= are both given: leave one out; they are measured separately.")
    for key in ("data", "reference"):
        if config["real"] and config.get(key):
            raise InputError(f"real= and {key}= both say what to compare with: leave one out.")
    for key in _OF_A_MODEL:
        if config["fake"] and config[key]:
            raise InputError(f"{key} needs a model, not only its images: give bundle= instead of fake=.")
    if config["audit"] and not config.get("data"):
        raise InputError("audit needs the training images: add data=NAME, the data that the model was trained on.")
    if config["out"] and str(config["out"]).lower().endswith((".html", ".png")):
        raise InputError(f"out={config['out']}: expected a .json; the page and pictures are written next to it.")
    check(("batch_size", config["batch_size"], is_whole(config["batch_size"], 1), "1 or more, such as 64"))


def check_needs(config: Mapping[str, Any], bundle: Any) -> None:
    """Refuse options that ask a model for what it can't give, or can't give without data.

    Raises:
        InputError: For the first problem.
    """
    if config["classification_accuracy"] and not bundle.module.conditional:
        raise InputError(
            "The classification accuracy score needs a conditional model: this one can't be asked for a class, so its "
            "samples have no labels to train a classifier on. Leave classification_accuracy out."
        )
    if config["nll_samples"] and not isinstance(bundle.module, HasLikelihood):
        raise InputError(
            "nll_samples needs a model with a likelihood of images, such as a VAE, and this one, a "
            f"{type(bundle.module).__name__}, only samples. Leave nll_samples out."
        )
    for key in _OF_A_MODEL:
        if config[key] and not config.get("data"):
            raise InputError(
                f"{key} needs real images to compare with: add data=NAME, such as data={bundle.spec.name}."
            )


def check_fit(config: Mapping[str, Any], data: Any, bundle: Any, fake: Any) -> None:
    """Refuse data that can't be compared with what is measured.

    Args:
        config: The options.
        data: The `DataSpec` of the data.
        bundle: The model, or None.
        fake: The images from elsewhere, or None.

    Raises:
        InputError: If their images have another size, or other classes where classes are needed.
    """
    if fake:
        if data.shape[1:] != fake.shape[1:]:
            raise InputError(
                f"data={data.name} has images of {_size(data)} (height x width), {fake.called} of {_size(fake)}: set "
                "data.image_size, or give real=PATH with images of the same size."
            )
        return
    spec = bundle.spec
    if data.shape != spec.shape:
        raise InputError(
            f"data={data.name} has images of shape {data.shape}, the bundle makes "
            f"{spec.shape}: give the data that it was trained on, or set data.image_size and data.channels."
        )
    labeled = config["classification_accuracy"] or (config["nll_samples"] and bundle.module.conditional)
    if labeled and data.class_names != spec.class_names:
        raise InputError(
            f"data={data.name} has other classes than the bundle, whose data were {spec.name}: give the "
            "data that it was trained on."
        )


def _size(images: Any) -> str:
    return "x".join(map(str, images.shape[1:]))


def check_pair(real: ImageSet, shape: tuple[int, ...], extractor: nn.Module) -> None:
    """Warn if a real set can't give a fair number: it differs in size or color from the samples, or is too small.

    Args:
        real: The real set.
        shape: ``(C, H, W)`` of the samples that are compared with it.
        extractor: The extractor.
    """
    if real.shape[1:] != tuple(shape[1:]):
        sizes = " and ".join("x".join(map(str, size)) for size in (real.shape[1:], shape[1:]))
        warnings.warn(
            f"{real.called} and the generated images have different sizes, {sizes} (height x width): each is resized "
            "by the extractor, and the number reflects that difference too.",
            stacklevel=2,
        )
    if shape[0] == 1 and real.shape[0] == 3 and real.pixels.colored:
        warnings.warn(f"{real.called} has color images, the generated ones are gray.", stacklevel=2)
    if real.count < extractor.num_features:
        warnings.warn(
            f"A Fréchet distance from {real.count} real images on {extractor.num_features} features is biased: give "
            f"{extractor.num_features} images or more in {real.called}, or look at KID, which is unbiased.",
            SmallSampleWarning,
            stacklevel=2,
        )
