"""The base class of metrics of generated images: their figures, needs, interval and floor."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torchmetrics import Metric


@dataclasses.dataclass(frozen=True)
class Figure:
    """A kind of number.

    Attributes:
        name: The beginning of its keys.
        label: Its name in a sentence.
        meaning: In a few words.
        better: Which direction is better, if one is.
        share: Whether it lies between 0 and 1.
        protocol: Name of the part of the protocol that it depends on, where the key doesn't contain it.
        biased: Whether it is biased when there are fewer images than features.
        by_class: Whether each class has a value too; the figure is their mean then.
    """

    name: str
    label: str
    meaning: str
    better: Literal["lower", "higher", ""] = ""
    share: bool = False
    protocol: str = ""
    biased: bool = False
    by_class: bool = False


class Moments(NamedTuple):
    """First and second moments of a set of features.

    Attributes:
        count: Number of items.
        mean: ``(d,)`` float64.
        covariance: ``(d, d)`` float64, unbiased (divided by count - 1).
    """

    count: int
    mean: Tensor
    covariance: Tensor

    def on(self, device: torch.device) -> Moments:
        """Return the same moments on a device."""
        return Moments(self.count, self.mean.to(device, torch.float64), self.covariance.to(device, torch.float64))


@dataclasses.dataclass(frozen=True)
class Reference:
    """Statistics of a real set on one extractor.

    Attributes:
        moments: Moments of all its items.
        features: ``(m, d)`` float32, those of a uniform sample for the kernel distance.
        extractor_hash: Hash of the extractor's weights.
        split: What it was made from, such as ``train`` or ``train[30000:]``.
        fingerprint: Hash of the data.
        real: Figures of other real data against it, by number of samples as a string: ``{"1000": {"fid": …, "kid": …,
            "is": …, "accuracy": …}}``, the best that a perfect generator can reach. The key ``other`` stands for any
            other number of samples, with their own number as ``n``.
        real_split: The data that these figures are of.
        classes: Moments of each class, for ``class_fid``; empty: unknown. Not part of `tensors`.
        preparation: The extractor's ``protocol`` at that time: how it resized and how precisely it computed.
    """

    moments: Moments
    features: Tensor
    extractor_hash: str
    split: str
    fingerprint: str = ""
    real: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    real_split: str = ""
    classes: tuple[Moments, ...] = ()
    preparation: dict[str, Any] = dataclasses.field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Return moments and features by name, on the CPU."""
        tensors = {"count": torch.tensor(self.moments.count), "mean": self.moments.mean}
        tensors |= {"covariance": self.moments.covariance, "features": self.features}
        return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


class FeatureBatch(NamedTuple):
    """The output of an extractor for a batch of images.

    Attributes:
        features: ``(N, d)`` float32.
        logits: ``(N, k)`` float32, or None.
        labels: ``(N,)`` int64, the classes asked for, or None.
        start: Global index of the first image.
    """

    features: Tensor
    logits: Tensor | None
    labels: Tensor | None
    start: int


class SampleMetric(Metric):
    """A metric of generated images on the features or logits of an extractor.

    A subclass implements ``update``, ``compute`` and `create`, and overrides below what differs for it.

    Attributes:
        name: What users ask for it by.
        figures: The numbers that it gives.
        takes: Arguments of ``update``: fields of `FeatureBatch`.
        against: What it compares with, if anything: the ``reference``, or its statistics of each class.
        by_default: Whether it is measured wherever possible, rather than on request.
        drawn_from: What its interval is bootstrapped from, ``features`` or ``logits``; empty: it has no interval.
        limited: Whether it is computed from a limited number of samples, like those kept for the bootstrap.
        least: Smallest value that it can have.
        has_floor: Whether two halves of the real images can be compared with `collector` and `between`.
        distance: Compares what two collectors have computed, for `between`.
    """

    full_state_update = False
    name: ClassVar[str]
    figures: ClassVar[tuple[Figure, ...]]
    takes: ClassVar[tuple[str, ...]] = ("features",)
    against: ClassVar[Literal["", "reference", "class reference"]] = ""
    by_default: ClassVar[bool] = True
    drawn_from: ClassVar[Literal["", "features", "logits"]] = ""
    limited: ClassVar[bool] = False
    least: ClassVar[float] = -math.inf
    has_floor: ClassVar[bool] = False
    distance: ClassVar[Callable[[Any, Any], float]]

    @classmethod
    def create(cls, extractor: nn.Module, reference: Reference | None, limit: int) -> Self:
        """Make the metric.

        Args:
            extractor: The extractor.
            reference: Statistics of the real images; None only if the metric is `against` nothing.
            limit: Largest number of features to keep.
        """
        raise NotImplementedError

    @classmethod
    def refusal(cls, extractor: nn.Module, num_classes: int) -> str:
        """Return why it can't be computed, or an empty string.

        Args:
            extractor: The extractor.
            num_classes: Number of classes that samples are asked for by, 0 for unconditional samples.
        """
        leave_out = f"leave out {cls.name!r}."
        if "logits" in cls.takes and not extractor.num_classes:
            return f"{cls.name} needs logits, and {extractor.name} has none: {leave_out}"
        if {"logits", "labels"} <= set(cls.takes) and num_classes != extractor.num_classes:
            return (
                f"{cls.name} needs samples asked for by the {extractor.num_classes} classes of the extractor "
                f"{extractor.name}; these have {num_classes or 'no'} classes: {leave_out}"
            )
        if "labels" in cls.takes and not num_classes:
            return f"{cls.name} needs samples asked for by class, and these have none: {leave_out}"
        return ""

    @classmethod
    def arguments(cls, batch: FeatureBatch) -> tuple[Any, ...]:
        """Return what ``update`` takes of a batch."""
        return tuple(getattr(batch, name) for name in cls.takes)

    def values(self, result: Any) -> Mapping[str, float | Sequence[float]]:
        """Return what ``compute`` gave by figure; of a figure by class, one number per class."""
        return result if isinstance(result, Mapping) else {self.name: result}

    def protocol(self, result: Any, n: int) -> dict[str, Any]:
        """Return what its numbers depend on, besides what all metrics depend on.

        Args:
            result: What ``compute`` gave.
            n: Number of samples.
        """
        return {}

    def draws(self, kept: Tensor, resamples: int, *, seed: int = 0) -> Tensor:
        """Return the metric of sets drawn with replacement, ``(resamples,)`` float64.

        Args:
            kept: ``(n, d)`` features or logits of the samples, see `drawn_from`.
            resamples: Number of sets.
            seed: Seed of the draws.
        """
        raise NotImplementedError

    @classmethod
    def collector(cls, extractor: nn.Module, limit: int) -> Metric:
        """Return a metric that collects half of the real images, updated like this one."""
        raise NotImplementedError

    @classmethod
    def between(cls, first: Metric, second: Metric) -> float:
        """Return the figure of one half of the real images, of a `collector`, against the other."""
        return cls.distance(first.compute(), second.compute())
