"""Statistics of a real set of images, to compare generated ones with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from lit_aigc.errors import InputError
from lit_aigc.machine.precision import full_precision
from lit_aigc.media.image_sets import ImageSet
from lit_aigc.metrics.base import Moments, Reference
from lit_aigc.metrics.class_frechet import ClassMoments
from lit_aigc.metrics.features.extractors import facts, shipped_bytes
from lit_aigc.metrics.floor import Halves
from lit_aigc.metrics.frechet import FeatureMoments
from lit_aigc.metrics.kernel import FeatureSample
from lit_aigc.metrics.table import needs_classes
from lit_aigc.spec import Batch, DataSpec

KID_LIMIT = 10_000  # features kept of a set


def from_tensors(tensors: Mapping[str, Tensor]) -> tuple[Moments, Tensor]:
    """Return the moments and features that `Reference.tensors` returned."""
    return Moments(int(tensors["count"]), tensors["mean"], tensors["covariance"]), tensors["features"].float()


def shipped_reference(extractor: nn.Module, spec: DataSpec | None = None) -> Reference:
    """Return the reference that comes with a shipped classifier.

    Warns when `spec` is of other data, or of another size; the figures of real images are left out then.

    Raises:
        InputError: If none is shipped for this extractor with its weights.
    """
    try:
        record = facts(extractor.name)
    except InputError as error:
        raise InputError(
            f"reference=shipped: no reference statistics are shipped for the extractor {extractor.name!r}: take "
            "reference=train (or val, test) to compute them from the data at hand."
        ) from error
    stored = record["reference"]
    if extractor.hash != record["sha256"]:
        raise InputError(
            f"reference=shipped: the reference of {extractor.name} was made with the weights {record['sha256'][:16]}…, "
            f"the extractor has {extractor.hash[:16]}…: take reference=train (or val, test)."
        )
    if "precision" in extractor.protocol:
        raise InputError(
            f"reference=shipped is of features in float32, not {extractor.protocol['precision']}: "
            "leave bf16_features out, or take reference=train (or val, test)."
        )
    moments, features = from_tensors(load_safetensors(shipped_bytes(stored["file"], stored["sha256"])))
    fits = spec is None or has_shipped_reference(extractor, spec)
    if not fits:
        sizes = " or ".join(f"{size}x{size}" for size in record["sizes"])
        warnings.warn(
            f"The shipped reference of {extractor.name} is of {' and '.join(record['data'])} at {sizes}; the data are "
            f"{spec.name or 'different'} at {'x'.join(map(str, spec.shape[1:]))}, so the floor is not known. "
            "Set reference=train to compare with the data at hand.",
            stacklevel=2,
        )
    return Reference(
        moments,
        features,
        extractor.hash,
        stored["split"],
        stored["fingerprint"],
        record["real"]["figures"] if fits else {},
        record["real"]["split"],
    )


def has_shipped_reference(extractor: nn.Module, spec: DataSpec) -> bool:
    """Return whether a reference of these data, at their size, is shipped for this extractor."""
    try:
        record = facts(extractor.name)
    except InputError:
        return False
    height, width = spec.shape[1:]
    return (
        extractor.hash == record["sha256"]
        and "precision" not in extractor.protocol  # the shipped ones are of float32
        and spec.name in record["data"]
        and height == width
        and height in record["sizes"]
    )


def choose_reference(asked: str | None, extractor: nn.Module, spec: DataSpec, metrics: Sequence[str]) -> str:
    """Return ``shipped``, or the split of the data to compare samples with.

    Args:
        asked: What the user asks for; None: the one shipped for this extractor and these data, else ``train``.
        extractor: The extractor.
        spec: The data.
        metrics: What is measured; the shipped reference has no statistics of classes.
    """
    shipped = has_shipped_reference(extractor, spec) and not needs_classes(metrics)
    return asked or ("shipped" if shipped else "train")


@torch.no_grad()
def compute_reference(
    batches: Iterable[Batch],
    extractor: nn.Module,
    *,
    split: str,
    fingerprint: str = "",
    limit: int = KID_LIMIT,
    num_classes: int = 0,
    halves: Halves | None = None,
    device: torch.device | str = "cpu",
) -> Reference:
    """Compute the statistics of the real images of all processes; each gets the same.

    Args:
        batches: uint8 images of this process, each item once over all processes, with `start` its place in the split.
        extractor: The extractor, on `device`.
        split: Name of the split, for the protocol.
        fingerprint: Hash of the data, for the protocol.
        limit: Largest number of features kept for the kernel distance, precision and recall.
        num_classes: Number of classes to compute moments of too, 0 for none; images need labels then.
        halves: Compares parts of the set with each other; with one process only.
        device: Where to compute.
    """
    moments = FeatureMoments(extractor.num_features).to(device)
    sample = FeatureSample(extractor.num_features, limit).to(device)
    classes = ClassMoments(extractor.num_features, num_classes).to(device) if num_classes else None
    for batch in batches:
        features, logits = extract(extractor, batch.images, device)
        moments.update(features)
        sample.update(features, batch.start)
        if classes is not None:
            classes.update(features, batch.labels)
        if halves is not None:
            halves.update(features, logits, torch.arange(batch.start, batch.start + len(features)))
    return Reference(
        moments.compute(),
        sample.compute(),
        extractor.hash,
        split,
        fingerprint,
        classes=() if classes is None else classes.compute(),
        preparation=dict(extractor.protocol),
    )


def set_reference(
    images: ImageSet,
    batches: Callable[[], Iterable[Batch]],
    extractor: nn.Module,
    *,
    halves: Halves | None = None,
    cache: Any = None,
    device: torch.device | str = "cpu",
) -> Reference:
    """Return the statistics of a set of real images from elsewhere, from the cache if possible.

    A cached entry is of the same pixels (by fingerprint), and the same weights and preparation of the extractor.

    Args:
        images: The set.
        batches: Returns its batches.
        extractor: The extractor, on `device`.
        halves: Compares parts of the set with each other, for the floor.
        cache: Keeps tensors between runs, such as the module `lit_aigc.data.cache`; None: nothing is kept.
        device: Where to compute.

    Returns:
        The reference; with `halves`, `real` has their figures.
    """
    known = figures = None
    if cache:  # the floor has an entry of its own, because it depends on the number of samples
        same = [1, images.pixels.fingerprint, extractor.name, extractor.hash, extractor.protocol, KID_LIMIT]
        digest = hashlib.blake2b(json.dumps(same, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
        key = f"reference_{extractor.name}_{digest}"
        floor_key = f"{key}_floor_{halves.key()}" if halves else ""
        known, figures = cache.load_tensors(key), cache.load_tensors(floor_key) if halves else None
    new_floor = halves is not None and figures is None
    if known is None:
        reference = compute_reference(batches(), extractor, split=images.called, halves=halves, device=device)
    else:
        reference = Reference(*from_tensors(known), extractor.hash, images.called, preparation=dict(extractor.protocol))
        if new_floor:
            _compute_halves(halves, batches(), extractor, device)
    if new_floor:
        figures = {name: torch.tensor(value, dtype=torch.float64) for name, value in halves.figures().items()}
    if cache and known is None:
        cache.store_tensors(key, reference.tensors())
    if cache and new_floor:
        cache.store_tensors(floor_key, figures)
    # without a cache the fingerprint is known only now that all pixels have been read
    reference = dataclasses.replace(reference, fingerprint=images.pixels.fingerprint)
    if figures is None:
        return reference
    real = {"other": {name: float(value) for name, value in figures.items()}}
    return dataclasses.replace(reference, real=real, real_split=f"two parts of {reference.split}")


@torch.no_grad()
def _compute_halves(halves: Halves, batches: Iterable[Batch], extractor: nn.Module, device: torch.device | str) -> None:
    for batch in batches:
        needed = halves.needs(batch.start, len(batch.images)).nonzero()[:, 0]
        if len(needed):
            halves.update(*extract(extractor, batch.images[needed], device), batch.start + needed)


def extract(extractor: nn.Module, images: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
    """Return features and logits of uint8 images in float32, regardless of autocast and TF32 settings.

    Raises:
        InputError: If one of them is not finite.
    """
    with full_precision(torch.device(device)):
        features, logits = extractor(images.to(device))
    if features.shape != (len(images), extractor.num_features):
        raise InputError(
            f"The extractor {extractor.name} returns features of shape {tuple(features.shape)} for {len(images)} "
            f"images: expected ({len(images)}, {extractor.num_features}), by its num_features."
        )
    if not all(bool(torch.isfinite(x).all()) for x in (features, logits) if x is not None):
        raise InputError(
            f"The extractor {extractor.name} returns features that are not finite (NaN or infinite) "
            "for finite images: its weights are damaged or not its own; check weights_path=."
        )
    return features, logits


def describe(reference: Reference) -> dict[str, Any]:
    """Return what a protocol says about a reference."""
    return {
        "split": reference.split,
        "fingerprint": reference.fingerprint,
        "n": reference.moments.count,
        "n_kid": len(reference.features),
    }
