"""Test whether generated images repeat training images, calibrated by real images that no model saw.

Everything here is computed from distances of generated images and of real test images to the training images, see
`lit_aigc.metrics.neighbors`. No distribution of distances is assumed: samples are compared with test images by rank.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_aigc.errors import InputError
from lit_aigc.metrics.bootstrap import NORMAL_QUANTILE
from lit_aigc.metrics.measurement import Measurement, by_key

NEIGHBORS = 50  # training images that define what is near: the number of Carlini et al.
QUANTILE = 0.01  # of the test images; a sample below it is suspect
LEVEL = 0.01  # probability of accusing a generator that draws from the distribution of the test images
TWIN = 1.0  # gray levels, root mean square: how much rounding two images to 8 bits can change their difference


@dataclasses.dataclass(frozen=True)
class Nearness:
    """The distances of n images from the training images in one space.

    Attributes:
        distances: ``(n, k)`` float64 to the k nearest training images, the nearest first.
        places: ``(n, k)`` int64, their places among the training images.
        own: ``(n,)`` float64, the distance of the nearest training image from the nearest other one.
    """

    distances: Tensor
    places: Tensor
    own: Tensor

    def of(self, rows: slice) -> Nearness:
        """Return the distances of some of the images."""
        return Nearness(self.distances[rows], self.places[rows], self.own[rows])

    @property
    def closeness(self) -> Tensor:
        """Nearest distance over the mean of the k nearest, ``(n,)`` float64, from 0 (a copy) to 1.

        The normalized distance of Carlini et al., "Extracting training data from diffusion models" (2023,
        arXiv:2301.13188), without their factor. A copy, even a noisy one, is much nearer to one training
        image than to its neighbors; a smooth picture is near to many.
        """
        nearest, mean = self.distances[:, 0], self.distances.mean(dim=1)
        return torch.where(mean > 0, nearest / mean, 0.0)

    @property
    def authentic(self) -> Tensor:
        """Whether it is farther from the nearest training image than the next training image is, ``(n,)`` bool.

        Alaa et al., "How faithful is your synthetic data?" (2022, arXiv:2102.08921).
        """
        return self.distances[:, 0] > self.own


def copying_z(fake: Tensor, real: Tensor) -> float:
    """Return the data-copying statistic of Meehan et al. (2020, arXiv:2004.05675), with all of the space as one cell.

    The z-score of Mann and Whitney's U, corrected for ties: standard normal if distances of samples and of test images
    have the same distribution; far below 0 if samples are nearer to the training images; above 0 if they are farther,
    as with a model that fits badly.

    Args:
        fake: ``(n,)`` distances of samples to the nearest training image.
        real: ``(m,)`` those of real test images.

    Returns:
        z; 0 if all distances are equal.
    """
    n, m = len(fake), len(real)
    _, which, counts = torch.cat([fake, real]).unique(return_inverse=True, return_counts=True)
    counts = counts.double()
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[which]  # ties share their mean rank
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
    ties = float((counts**3 - counts).sum()) / ((n + m) * max(n + m - 1, 1))
    variance = n * m / 12 * (n + m + 1 - ties)
    return (u - n * m / 2) / math.sqrt(variance) if variance > 1e-9 * n * m else 0.0


class Below(NamedTuple):
    """Samples below a low quantile of the test images.

    Attributes:
        count: Their number, out of n samples.
        share: ``count / n``.
        low: Lower end of the 95 % interval of the share.
        high: Upper end.
        expected: Mean of the share for samples from the distribution of the test images.
        threshold: The quantile.
        p_value: Probability of this count or a larger one for such samples.
    """

    count: int
    share: float
    low: float
    high: float
    expected: float
    threshold: float
    p_value: float


def below_quantile(fake: Tensor, real: Tensor, quantile: float = QUANTILE) -> Below:
    """Test whether too many samples lie below a quantile of real test images.

    The quantile is the r-th smallest of m test images, r = floor(quantile (m + 1)) but at least 1. Of n samples from
    the same continuous distribution the number below it is beta-binomial, B(n, r, m - r + 1), whatever the distribution
    (the precedence test: Nelson, 1963, Technometrics 5:491-499), so the p-value is exact and takes into account that
    the quantile is an estimate. Ties can only make it larger.

    Args:
        fake: ``(n,)`` values of samples, small if suspect.
        real: ``(m,)`` values of real test images.
        quantile: Which one, in (0, 1).
    """
    n, m = len(fake), len(real)
    r = max(math.floor(quantile * (m + 1) + 1e-9), 1)
    threshold = real.sort().values[r - 1]
    count = int((fake < threshold).sum())
    j = torch.arange(count, n + 1, dtype=torch.float64)
    log_p = _log_choose(n, j) + _log_beta(j + r, n - j + m - r + 1) - _log_beta(_f64(r), _f64(m - r + 1))
    p_value = 1.0 if count == 0 else min(float(log_p.logsumexp(0).exp()), 1.0)
    return Below(count, count / n, *wilson(count, n), r / (m + 1), float(threshold), p_value)


def wilson(count: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share ``count / n`` (Wilson, 1927, J. Am. Stat. Assoc. 22:209-212)."""
    z2, share = NORMAL_QUANTILE**2, count / n
    middle = share + z2 / (2 * n)
    reach = NORMAL_QUANTILE * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low, high = ((middle + side * reach) / (1 + z2 / n) for side in (-1, 1))
    return (0.0 if count == 0 else low, 1.0 if count == n else high)


def more_often(count: int, n: int, real_count: int, m: int) -> float:
    """Return the probability of ``count`` or more of n samples, if as likely as ``real_count`` of m test images.

    Fisher's exact test, one-sided (1935, J. R. Stat. Soc. 98:39-82): the tail of the hypergeometric distribution.
    """
    both = count + real_count
    j = torch.arange(count, min(both, n) + 1, dtype=torch.float64)
    log_p = _log_choose(n, j) + _log_choose(m, both - j) - _log_choose(n + m, _f64(both))
    return min(float(log_p.logsumexp(0).exp()), 1.0)


def rank_p_values(fake: Tensor, real: Tensor) -> Tensor:
    """Return for each sample the share of the test images, including itself, that are as low: ``(n,)`` float64, (0, 1].

    For a sample from the distribution of the test images it is below q with a probability of at most q.
    """
    lower = torch.searchsorted(real.sort().values, fake.contiguous(), right=True)
    return (1 + lower) / (1 + len(real))


def twins(distances: Tensor) -> Tensor:
    """Return which images equal another one up to the rounding to 8 bits: ``(n,)`` bool.

    Args:
        distances: ``(n,)`` to the nearest other image, root mean square in gray levels.
    """
    return distances <= TWIN


def judge(
    fake: Mapping[str, Nearness], real: Mapping[str, Nearness], among: Tensor
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return all figures of an audit, including the verdict.

    ``memorised`` is true if one of these tests rejects, each at `LEVEL` divided by their number: in each space, that
    too many samples lie below the `QUANTILE` of the test images' closeness (`below_quantile`); and that samples are
    twins of training images more often than test images are (`more_often`). For a generator that draws from the
    distribution of the test images it is true with a probability of at most `LEVEL`.

    Args:
        fake: Nearness of n generated images in each space, by its name: ``pixels``, with distances as root mean squares
            in gray levels, and names of extractors.
        real: Nearness of m real test images in the same spaces.
        among: ``(n,)`` distances of samples to the nearest other sample in gray levels.

    Returns:
        The figures by key, see ``docs/memorization.md``; and the p-value of each test with what it is computed from.

    Raises:
        InputError: If there are so few images that a generator that only copies would pass.
    """
    samples, images = fake["pixels"].distances[:, 0], real["pixels"].distances[:, 0]
    n, m, number = len(samples), len(images), len(fake) + 1
    if not n or not m or below_quantile(torch.zeros(n), torch.ones(m)).p_value > LEVEL / number:
        raise InputError(
            f"{n} samples and {m} real test images are too few for a memorization audit: a model that only copies "
            "couldn't be distinguished from an honest one. Expected some hundreds of each."
        )
    shares, authentic, scores = [], [], []
    tests: dict[str, Any] = {}
    for space, nearness in fake.items():
        found = below_quantile(nearness.closeness, real[space].closeness)
        share = Measurement("memorised_share", space, found.share, low=found.low, high=found.high)
        tests[share.key()] = {key: getattr(found, key) for key in ("count", "expected", "threshold", "p_value")}
        shares.append(share)
        of_fake, of_real = (float(each.authentic.double().mean()) for each in (nearness, real[space]))
        authentic.append(Measurement("authenticity", space, of_fake, real=of_real))
        z = copying_z(nearness.distances[:, 0], real[space].distances[:, 0])
        scores.append(Measurement("copying_z", space, z))
    values = by_key([*shares, *authentic, *scores])
    copies, real_copies = int(twins(samples).sum()), int(twins(images).sum())
    tests["duplicates_of_training"] = {"p_value": more_often(copies, n, real_copies, m)}
    values |= {"duplicates_of_training": copies, "duplicates_of_training_real": real_copies}
    values["duplicates_among_samples"] = int(twins(among).sum())
    values |= {"nearest_distance": float(samples.median()), "nearest_distance_real": float(images.median())}
    values["memorised"] = min(test["p_value"] for test in tests.values()) * number <= LEVEL
    return values, tests


def _f64(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def _log_choose(n: int, k: Tensor) -> Tensor:
    return torch.lgamma(_f64(n + 1)) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
