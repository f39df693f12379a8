"""The Fréchet distance between two sets of features, as in FID (Heusel et al., 2017, arXiv:1706.08500)."""

from __future__ import annotations

import warnings
from typing import Self

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lit_aigc.errors import InputError
from lit_aigc.metrics.base import Figure, Moments, Reference, SampleMetric
from lit_aigc.metrics.resampling import weights


class SmallSampleWarning(UserWarning):
    """Fewer items than features: the covariance does not have full rank, and the distance is biased upwards."""


def frechet_distance(first: Moments, second: Moments) -> float:
    """Return the squared 2-Wasserstein distance of two Gaussians with these moments (Dowson and Landau, 1982).

    ``|m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))``. With a root ``A A^T = S1`` the last trace is the sum of the
    square roots of the eigenvalues of ``A^T S2 A``, which is symmetric, so no general matrix root and no eigenvalues of
    a general matrix are needed. The null space of S1 is left out, so the cost falls with the rank: put the smaller set
    first.

    Returns:
        The distance, >= 0 and finite for singular covariances too.
    """
    second = second.on(first.mean.device)
    gap = (first.mean - second.mean).square().sum()
    spread = first.covariance.trace() + second.covariance.trace()
    root = covariance_root(first.covariance)
    overlap = torch.linalg.eigvalsh(root.T @ second.covariance @ root).clamp(min=0.0).sqrt().sum()
    return max(float(gap + spread - 2.0 * overlap), 0.0)


def covariance_root(covariance: Tensor) -> Tensor:
    """Return a root A of a covariance, ``A A^T = S``.

    It is the Cholesky factor where S has full rank, apart from features that never change: that takes about a tenth of
    the time of the eigenvectors, which are used otherwise.

    Args:
        covariance: ``(d, d)`` float64, symmetric, positive semidefinite up to rounding.

    Returns:
        ``(d, r)`` float64, r the rank.
    """
    rounding = len(covariance) * torch.finfo(covariance.dtype).eps
    varying = covariance.diagonal() > 0
    within = covariance[varying][:, varying]
    factor, failed = torch.linalg.cholesky_ex(within)
    pivots = factor.diagonal().square()
    if len(within) and not failed and bool((pivots > rounding * within.diagonal().max()).all()):
        root = covariance.new_zeros(len(covariance), len(within))
        root[varying] = factor
        return root
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > values[-1].clamp(min=0.0) * rounding
    return vectors[:, kept] * values[kept].sqrt()


def moments_of_sums(count: int, total: Tensor, outer: Tensor, center: Tensor) -> Moments:
    """Return moments from the sums ``(d,)`` and ``(d, d)`` of `count` items around a center, and of their products."""
    shift = total / count
    return Moments(count, center + shift, (outer - count * torch.outer(shift, shift)) / (count - 1))


def warn_of_few(count: int, width: int, per: str = "") -> None:
    """Warn if there are fewer samples than features; `per` says what their number is per, such as `` per class``."""
    if count < width:
        warnings.warn(
            f"A Fréchet distance of {count} samples{per} on {width} features is biased: take {width} samples{per} or "
            "more, and compare it only with distances at the same number of samples.",
            SmallSampleWarning,
            stacklevel=3,
        )


class FeatureMoments(Metric):
    """Moments of a stream of features, in float64 and in memory that doesn't grow with the stream.

    Args:
        num_features: Width d of the features.
        center: ``(d,)``, a guess of the mean; sums are taken around it, which keeps all digits when the mean is large
            compared with the spread. For several sets also one for each, ``(k, d)``.
        sets: ``(k,)`` to sum up k sets apart; empty for one set.
    """

    full_state_update = False
    center: Tensor

    def __init__(self, num_features: int, center: Tensor | None = None, sets: tuple[int, ...] = ()) -> None:
        super().__init__()
        zeros = torch.zeros(*sets, num_features, dtype=torch.float64)
        around = zeros if center is None else center.double().expand_as(zeros)
        self.register_buffer("center", around.clone(), persistent=False)
        self.add_state("count", torch.zeros(sets, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", zeros, dist_reduce_fx="sum")
        outer = torch.zeros(*sets, num_features, num_features, dtype=torch.float64)
        self.add_state("outer", outer, dist_reduce_fx="sum")

    def update(self, features: Tensor) -> None:
        """Add features ``(N, d)``."""
        x = features.to(self.center) - self.center
        self.count += len(x)
        self.total += x.sum(dim=0)
        self.outer += x.T @ x

    def compute(self) -> Moments:
        """Return the moments over all processes."""
        count = int(self.count)
        if count < 2:
            raise InputError(f"A Fréchet distance needs at least 2 samples on either side, got {count}.")
        return moments_of_sums(count, self.total, self.outer, self.center)


class FrechetDistance(FeatureMoments, SampleMetric):
    """Fréchet distance of a stream of features from fixed reference moments.

    Only the stream's states are summed over processes; the reference is a constant of each.

    Args:
        reference: Moments of the real set.
    """

    name = "fid"
    figures = (Figure("fid", "FID", "Fréchet distance of the features", "lower", biased=True),)
    against = "reference"
    drawn_from = "features"
    least = 0.0
    has_floor = True
    distance = staticmethod(frechet_distance)

    def __init__(self, reference: Moments) -> None:
        super().__init__(len(reference.mean), center=reference.mean)
        self.reference = reference

    @classmethod
    def create(cls, extractor: nn.Module, reference: Reference, limit: int) -> Self:
        """Make the metric for the moments of a reference."""
        return cls(reference.moments)

    def compute(self) -> float:
        """Return the distance over all processes; warns when there are fewer samples than features."""
        moments = super().compute()
        warn_of_few(moments.count, len(moments.mean))
        return frechet_distance(moments, self.reference)

    def draws(self, kept: Tensor, resamples: int, *, seed: int = 0) -> Tensor:
        """Return the distances of sets drawn from features; each costs eigenvalues of a matrix of size min(n, d)."""
        reference = self.reference.on(kept.device)
        x = kept.double() - reference.mean
        n = len(x)
        z = x @ covariance_root(reference.covariance)  # (n, rank): the overlap is a sum of singular values of z
        lengths = x.square().sum(dim=1)
        spread = reference.covariance.trace()
        distances = []
        for w in weights(n, resamples, seed):
            w = w.to(x)
            gap = (w @ x / n).square().sum()
            own = (w @ lengths - n * gap) / (n - 1)
            drawn = w > 0
            centered = (z[drawn] - w @ z / n) * w[drawn, None].sqrt()
            gram = centered @ centered.T if len(centered) < z.shape[1] else centered.T @ centered
            overlap = torch.linalg.eigvalsh(gram / (n - 1)).clamp(min=0.0).sqrt().sum()
            distances.append(max(float(gap + own + spread - 2.0 * overlap), 0.0))
        return torch.tensor(distances, dtype=torch.float64)

    @classmethod
    def collector(cls, extractor: nn.Module, limit: int) -> FeatureMoments:
        """Return what collects the moments of half of the real images."""
        return FeatureMoments(extractor.num_features)
