"""The Fréchet distance of each class: samples asked for by class against the real images of that class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from lit_aigc.errors import InputError
from lit_aigc.metrics.base import Figure, Moments, Reference, SampleMetric
from lit_aigc.metrics.frechet import FeatureMoments, frechet_distance, moments_of_sums, warn_of_few


class ClassMoments(FeatureMoments):
    """Moments of a stream of labeled features, for each class, in float64.

    Memory is that of a ``(d, d)`` matrix per class and doesn't grow with the stream: 32 MiB per class at d = 2048.

    Args:
        num_features: Width d of the features.
        num_classes: Number k of classes.
        center: ``(d,)``, a guess of the mean, or one for each class, ``(k, d)``; sums are taken around it.
    """

    def __init__(self, num_features: int, num_classes: int, center: Tensor | None = None) -> None:
        super().__init__(num_features, center, (num_classes,))

    def update(self, features: Tensor, labels: Tensor | None) -> None:
        """Add features ``(N, d)`` and their classes ``(N,)`` int64.

        Raises:
            InputError: If there are no labels, or some are out of range.
        """
        if labels is None:
            raise InputError("class_fid needs the class of each image, and these have none: leave out 'class_fid'.")
        labels = labels.to(features.device)
        for label in labels.unique().tolist():
            if not 0 <= label < len(self.count):
                raise InputError(f"class_fid: an image has the class {label}, expected 0 to {len(self.count) - 1}.")
            x = features[labels == label].to(self.center) - self.center[label]
            self.count[label] += len(x)
            self.total[label] += x.sum(dim=0)
            self.outer[label] += x.T @ x

    def compute(self) -> tuple[Moments, ...]:
        """Return the moments of each class over all processes.

        Raises:
            InputError: If a class has fewer than two images.
        """
        counts = self.count.tolist()
        if few := [f"class {label} has {n}" for label, n in enumerate(counts) if n < 2]:
            raise InputError(f"class_fid needs at least 2 images per class on either side, and {', '.join(few)}.")
        return tuple(map(moments_of_sums, counts, self.total, self.outer, self.center))


class ClassFrechetDistance(ClassMoments, SampleMetric):
    """Fréchet distance of each class of a stream of features from fixed moments of the class.

    Args:
        reference: Moments of the real items of each class.
    """

    name = "class_fid"
    figures = (Figure("class_fid", "FID by class", "mean over the classes", "lower", biased=True, by_class=True),)
    takes = ("features", "labels")
    against = "class reference"
    by_default = False

    def __init__(self, reference: Sequence[Moments]) -> None:
        means = torch.stack([each.mean for each in reference])
        super().__init__(means.shape[1], len(reference), means)
        self.reference = reference

    @classmethod
    def create(cls, extractor: nn.Module, reference: Reference, limit: int) -> Self:
        """Make the metric for the classes of a reference."""
        return cls(reference.classes)

    def compute(self) -> dict[str, list[Any]]:
        """Return ``distances`` and ``counts`` of samples of each class over all processes.

        Warns when a class has fewer samples than features.
        """
        moments = super().compute()
        warn_of_few(min(each.count for each in moments), self.center.shape[1], " per class")
        return {
            "distances": list(map(frechet_distance, moments, self.reference)),
            "counts": [each.count for each in moments],
        }

    def values(self, result: dict[str, list[Any]]) -> dict[str, list[float]]:
        """Return the distance of each class."""
        return {self.name: result["distances"]}

    def protocol(self, result: dict[str, list[Any]], n: int) -> dict[str, Any]:
        """Return the number of images of each class."""
        return {self.name: {"n_real": [each.count for each in self.reference], "n_fake": result["counts"]}}
