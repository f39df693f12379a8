"""Numbers of generated images: on the features of a network, and what needs the model itself."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from lit_aigc.build import instantiate
from lit_aigc.data import cache
from lit_aigc.errors import InputError
from lit_aigc.evaluate.checks import check_fit, check_pair
from lit_aigc.evaluate.models import Numbers, classification_accuracy, likelihood, memorization
from lit_aigc.evaluate.output import shown
from lit_aigc.evaluate.subject import Subject
from lit_aigc.machine.precision import MIXED, warn_if_slow
from lit_aigc.media.image_sets import ImageSet
from lit_aigc.metrics.choice import choose_extractor, classifier_for, mismatch
from lit_aigc.metrics.features.extractors import Bfloat16, check_extractor, extractor
from lit_aigc.metrics.floor import Halves
from lit_aigc.metrics.frechet import SmallSampleWarning
from lit_aigc.metrics.generative import choose_metrics, evaluate_samples, extractor_of_training, module_samples
from lit_aigc.metrics.measurement import read
from lit_aigc.metrics.reference import (
    KID_LIMIT,
    Reference,
    choose_reference,
    compute_reference,
    set_reference,
    shipped_reference,
)
from lit_aigc.metrics.table import METRICS, needs_classes, needs_reference
from lit_aigc.runs.bundle import Bundle, to_device
from lit_aigc.spec import Batch

# Each, where its option is on, gives numbers by key, and their protocol by name.
_ON_REQUEST = {"classification_accuracy": classification_accuracy, "nll_samples": likelihood, "audit": memorization}


def prepare_data(config: Mapping[str, Any], data: Any, bundle: Bundle | None, fake: ImageSet | None) -> None:
    """Check that a data set can be compared with a model or with images from elsewhere.

    Raises:
        InputError: If it can't.
    """
    check_fit(config, data.spec, bundle, fake)


def measure(config: Mapping[str, Any], subject: Subject) -> Numbers:
    """Return all numbers that the options ask for, by key, and their protocol, by extractor or name.

    Raises:
        InputError: If something can't be computed.
    """
    values, protocol, network = {}, {}, None
    if config["metrics"] != [] or (config["audit"] and config["extractor"]):
        network = _network(config, subject)
    if config["metrics"] != []:
        values, protocol[network.name] = _on_features(config, subject, network)
    for option, part in _ON_REQUEST.items():
        if config[option]:
            found, facts = part(config, subject, network)
            values |= found
            protocol |= facts
    return values, protocol


def _network(config: Mapping[str, Any], subject: Subject) -> nn.Module:
    """Return the extractor that is asked for, else the one that follows from the model's training and the data.

    A node on the user's own command line may name anything importable, as a model there may.
    """
    data = subject.datamodule
    name = data.spec.name if data is not None else subject.spec.name
    if found := mismatch(config["extractor"], classifier_for(name), name):
        raise InputError(found)
    of_training = extractor_of_training(subject.bundle.manifest["protocol"]) if subject.bundle else None
    asked = config["extractor"] or choose_extractor(of_training, name, getattr(data, "extractor", None))
    if isinstance(asked, Mapping):
        if given := [key for key in ("weights_path", "resize") if config[key]]:
            raise InputError(f"{given[0]}= goes with a named extractor: give it inside of extractor={{_target_: …}}.")
        network = check_extractor(instantiate(asked))
    else:
        network = extractor(asked, config["weights_path"], config["resize"])
    if config["bf16_features"]:
        network = Bfloat16(network)
        warn_if_slow("bf16_features=true", MIXED, torch.device(config["device"]).type)
    return to_device(network.eval().requires_grad_(False), config["device"])


def _on_features(config: Mapping[str, Any], subject: Subject, network: nn.Module) -> Numbers:
    """Return the metrics on an extractor, and their protocol."""
    fake, real = subject.fake, subject.real
    chosen = choose_metrics(config["metrics"], network, subject.spec.num_classes if subject.conditional else 0)
    if real and (by_class := needs_classes(chosen)):
        raise InputError(
            f"{by_class[0]} needs real images with labels, and {real.called} has none: give data=NAME in place of "
            f"real=, or leave out {by_class[0]!r}."
        )
    reference = _reference(config, subject, network, chosen) if needs_reference(chosen) else None
    if fake:
        samples, facts = _batches(config, fake, network), {"quantisation": "none: the files have 8 bits"}
    else:
        samples = module_samples(subject.bundle.module, config["num_samples"], config["seed"])
        facts = {"sample_seed": config["seed"]}
    values, protocol = evaluate_samples(
        samples, network, reference, chosen, bootstrap=config["bootstrap"], device=config["device"]
    )
    if fake:
        facts |= {"fake": fake.facts()}  # known, now that all its pixels were seen
    if real and reference:
        facts |= {"real": real.facts(), "biased": protocol["biased"] or real.count < network.num_features}
    if fake and real and fake.pixels.fingerprint == real.pixels.fingerprint:
        facts["same_images"] = True
        warnings.warn(
            f"{real.called} and {fake.called} hold the same images: a FID of 0, up to rounding, says no more than "
            "that.",
            stacklevel=2,
        )
    return values, protocol | facts


def _reference(config: Mapping[str, Any], subject: Subject, network: nn.Module, chosen: tuple[str, ...]) -> Reference:
    """Return statistics of the real images: of a set from elsewhere, as they are shipped, or of a split of the data."""
    real, spec, by_class = subject.real, subject.spec, needs_classes(chosen)
    source = choose_reference(config["reference"], network, spec, chosen)
    n = subject.fake.count if subject.fake else config["num_samples"]
    if real:
        check_pair(real, subject.fake.shape if subject.fake else spec.shape, network)
        halves = Halves(network, real.count, n, chosen if config["floor"] else (), limit=KID_LIMIT)
        return set_reference(
            real,
            lambda: _batches(config, real, network),
            network,
            halves=halves if halves.possible else None,
            cache=cache if config["cache"] else None,
            device=config["device"],
        )
    if source == "shipped":
        return shipped_reference(network, spec)
    if subject.datamodule is None:
        data = f", such as data={spec.name}" if spec.name else ""
        raise InputError(
            f"Of {', '.join(chosen)} some need real images to compare with: add data=NAME{data}, or real=PATH, a "
            "folder, a .zip or an .npz of images."
        )
    data = subject.datamodule
    reference = compute_reference(
        data.real_batches(source),
        network,
        split=f"{data.spec.name}/{source}",
        fingerprint=data.spec.fingerprint,
        num_classes=spec.num_classes if by_class else 0,
        device=config["device"],
    )
    metrics = [name for name in chosen if METRICS[name].has_floor]
    n = min(n, len(data.split("test"))) if config["floor"] and source != "test" and metrics else 0
    if n < 2:
        return reference
    # the floor: the figures of as many real test images, where there are so many
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallSampleWarning)  # comes for the samples
        batches = data.real_batches("test", limit=n)
        values, _ = evaluate_samples(batches, network, reference, metrics, device=config["device"])
    figures = {each.metric: each.value for each in read(values)} | {"n": n}
    return dataclasses.replace(reference, real={"other": figures}, real_split=f"{data.spec.name}/test")


def _batches(config: Mapping[str, Any], images: ImageSet, network: nn.Module) -> Iterable[Batch]:
    size = config["batch_size"]
    return shown(images.batches(size, extractor=network), images.called.partition("=")[0], images.count, size)
