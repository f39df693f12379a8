"""The kernel distance between two sets of features, as in KID (Bińkowski et al., 2018, arXiv:1801.01401)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lit_aigc.errors import InputError
from lit_aigc.metrics.base import Figure, Reference, SampleMetric
from lit_aigc.metrics.resampling import weights
from lit_aigc.noise import Noise

_ROWS = 1024  # rows of the kernel matrix in memory at a time


def kernel_rows(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Yield rows of the kernel ``(x.y / d + 1)^3``, ``(n, m)``, of all pairs of ``(n, d)`` and ``(m, d)``."""
    for rows in x.split(_ROWS):
        yield (rows @ y.T / x.shape[1] + 1.0).pow_(3)


def _kernel_sum(x: Tensor, y: Tensor) -> float:
    return math.fsum(float(rows.sum()) for rows in kernel_rows(x, y))


def kernel_sum_within(x: Tensor) -> float:
    """Return the sum of the kernel over all pairs of two different items of ``(n, d)``."""
    return _kernel_sum(x, x) - float((x.square().sum(dim=1) / x.shape[1] + 1.0).pow(3).sum())


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """Return the unbiased squared maximum mean discrepancy with the kernel ``(x.y / d + 1)^3``, over all items.

    Args:
        first: Features ``(n, d)``, n >= 2.
        second: Features ``(m, d)``, m >= 2.

    Returns:
        The distance; around 0, and sometimes below it, for sets from one distribution.
    """
    x, y = first.double(), second.double()
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise InputError(f"A kernel distance needs at least 2 samples on either side, got {n} and {m}.")
    within = kernel_sum_within(x) / (n * (n - 1)) + kernel_sum_within(y) / (m * (m - 1))
    return within - 2.0 * _kernel_sum(x, y) / (n * m)


class FeatureSample(Metric):
    """At most `limit` features of a stream, a uniform sample without replacement.

    Which items are kept is a pure function of their positions in the stream, whatever the batch size and the number of
    processes; up to `limit` items, all of them are.

    Args:
        num_features: Width d of the features.
        limit: Largest number of features kept.
    """

    full_state_update = False
    features: list[Tensor]
    keys: list[Tensor]

    def __init__(self, num_features: int, limit: int = 10_000) -> None:
        super().__init__()
        self.num_features = num_features
        self.limit = limit
        self.add_state("features", [], dist_reduce_fx="cat")
        self.add_state("keys", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, start: int) -> None:
        """Add features ``(N, d)`` of the items `start`, `start` + 1, … of the stream."""
        self.features.append(features.detach().float())
        self.keys.append(Noise(0, start).stream("feature sample").bits(len(features), 1, features.device)[:, 0])
        if sum(map(len, self.keys)) > 2 * self.limit + _ROWS:
            kept, keys = self._selection()
            self.features, self.keys = [kept], [keys]

    def _selection(self) -> tuple[Tensor, Tensor]:
        features, keys = dim_zero_cat(self.features), dim_zero_cat(self.keys)
        chosen = keys.argsort()[: self.limit]
        return features[chosen], keys[chosen]

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather from all processes, including those that saw no item."""
        if not self._is_synced and not len(self.keys):
            self.features.append(torch.zeros(0, self.num_features, device=self.device))
            self.keys.append(torch.zeros(0, dtype=torch.int64, device=self.device))
        super().sync(*args, **kwargs)

    def compute(self) -> Tensor:
        """Return the features ``(n, d)`` float32 of the sample over all processes."""
        return self._selection()[0] if len(self.keys) else torch.zeros(0, self.num_features, device=self.device)


class SampleComparison(FeatureSample, SampleMetric):
    """A metric that compares a sample of a stream of features with fixed reference features.

    Args:
        reference: Features ``(m, d)`` of the real set.
        limit: Largest number of features of the stream to keep and compare.
    """

    takes = ("features", "start")
    against = "reference"
    limited = True
    reference: Tensor

    def __init__(self, reference: Tensor, limit: int = 10_000) -> None:
        super().__init__(reference.shape[1], limit)
        self.register_buffer("reference", reference.float(), persistent=False)

    @classmethod
    def create(cls, extractor: nn.Module, reference: Reference, limit: int) -> Self:
        """Make the metric for the features of a reference."""
        return cls(reference.features, limit)


class KernelDistance(SampleComparison):
    """Kernel distance of a stream of features from fixed reference features, over one full subset."""

    name = "kid"
    figures = (Figure("kid", "KID", "kernel distance of the features, unbiased", "lower"),)
    drawn_from = "features"
    has_floor = True
    distance = staticmethod(kernel_distance)

    def compute(self) -> float:
        """Return the distance over all processes."""
        return kernel_distance(super().compute(), self.reference)

    def protocol(self, result: float, n: int) -> dict[str, Any]:
        """Return how many samples are compared."""
        return {"n_fake_kid": min(n, self.limit)}

    def draws(self, kept: Tensor, resamples: int, *, seed: int = 0) -> Tensor:
        """Return the distances of sets drawn from features.

        Pairs of an item with itself are left out, even where it was drawn twice, so the draws are unbiased too.
        """
        x, y = kept.double(), self.reference.double()
        n, m = len(x), len(y)
        w = torch.stack(list(weights(n, resamples, seed))).to(x)  # (resamples, n)
        within = -w.square() @ (x.square().sum(dim=1) / x.shape[1] + 1.0).pow(3)
        start = 0
        for rows in kernel_rows(x, x):
            within += ((w[:, start : start + len(rows)] @ rows) * w).sum(dim=1)
            start += len(rows)
        across = torch.cat([rows.mean(dim=1) for rows in kernel_rows(x, y)])  # (n,)
        pairs = n * n - w.square().sum(dim=1)
        return (within / pairs + kernel_sum_within(y) / (m * (m - 1)) - 2.0 * w @ across / n).cpu()

    @classmethod
    def collector(cls, extractor: nn.Module, limit: int) -> FeatureSample:
        """Return what collects the features of half of the real images."""
        return FeatureSample(extractor.num_features, limit)
