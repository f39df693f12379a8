"""Whether generated images repeat training images: distances, calibrated by those of real images that no model saw.

Everything here is computed from distances to the training images, as `lit_aigc.metrics.neighbors` finds them, of
generated images and of real test images. Nothing is assumed of how distances are distributed: samples are compared with
the test images by rank alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_aigc.errors import InputError

NEIGHBORS = 50  # training images that tell what is near: the number of Carlini et al.
QUANTILE = 0.01  # of the test images, below which a sample is suspect
LEVEL = 0.01  # probability that a generator is called a copier that draws from the distribution of the test images
TWIN = 1.0  # grey levels, root mean square: what rounding two images to 8 bits can do to their difference
_NORMAL = 1.959963984540054  # the 97.5 % quantile of a normal distribution


@dataclasses.dataclass(frozen=True)
class Nearness:
    """How near n images lie to the training images in one space.

    Attributes:
        distances: ``(n, k)`` float64 to the k nearest training images, the nearest first.
        places: ``(n, k)`` int64, which these are.
        own: ``(n,)`` float64, how far the nearest training image is from its own nearest other one.
    """

    distances: Tensor
    places: Tensor
    own: Tensor

    @property
    def closeness(self) -> Tensor:
        """``(n,)`` float64 from 0, a copy, to 1: the nearest distance over the mean of the k nearest.

        The normalised distance of Carlini et al., "Extracting training data from diffusion models" (2023,
        arXiv:2301.13188), without their factor. A copy, also one with noise on it, is much nearer to one
        training image than to the others around; a smooth picture is near to many.
        """
        nearest, mean = self.distances[:, 0], self.distances.mean(dim=1)
        return torch.where(mean > 0, nearest / mean, 0.0)

    @property
    def authentic(self) -> Tensor:
        """``(n,)`` bool: farther from the nearest training image than the nearest other training image is.

        Alaa et al., "How faithful is your synthetic data?" (2022, arXiv:2102.08921).
        """
        return self.distances[:, 0] > self.own


def copying_z(fake: Tensor, real: Tensor) -> float:
    """The data-copying statistic of Meehan et al. (2020, arXiv:2004.05675), on all of the space as one cell.

    The z-score of Mann and Whitney's U, corrected for ties: standard normal if distances of samples are distributed as
    those of test images are; far below 0 where samples are nearer to the training images; above 0 where they are
    farther, as those of a model that fits badly are.

    Args:
        fake: ``(n,)`` distances of samples to the nearest training image.
        real: ``(m,)`` of real test images.

    Returns:
        z; 0 if all distances are equal.
    """
    n, m = len(fake), len(real)
    _, which, counts = torch.cat([fake, real]).unique(return_inverse=True, return_counts=True)
    counts = counts.double()
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[which]  # of equal ones the mean of theirs
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
    ties = float((counts**3 - counts).sum()) / ((n + m) * max(n + m - 1, 1))
    variance = n * m / 12 * (n + m + 1 - ties)
    return (u - n * m / 2) / math.sqrt(variance) if variance > 1e-9 * n * m else 0.0


class Below(NamedTuple):
    """How many samples lie below a low quantile of the test images.

    Attributes:
        count: Of n samples.
        share: ``count / n``.
        low: Lower end of the 95 % interval of the share.
        high: Upper end.
        expected: What the share is in the mean for samples that are distributed as the test images are.
        threshold: The quantile.
        p_value: Probability of so large a count, or a larger one, for such samples.
    """

    count: int
    share: float
    low: float
    high: float
    expected: float
    threshold: float
    p_value: float


def below_quantile(fake: Tensor, real: Tensor, quantile: float = QUANTILE) -> Below:
    """Whether more samples than there should be lie below a quantile of real test images.

    The quantile is the r-th smallest of m test images, r = floor(quantile (m + 1)) but at least 1. Of n samples from
    the same continuous distribution the number below it is beta-binomial, B(n, r, m - r + 1), whatever the distribution
    is (the precedence test: Nelson, 1963, Technometrics 5:491-499), so the p-value is exact, and knows that the
    quantile is an estimate. Ties make it larger than it need be, never smaller.

    Args:
        fake: ``(n,)`` of samples, small where suspect.
        real: ``(m,)`` of real test images.
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
    """The 95 % interval of a share ``count / n`` (Wilson, 1927, J. Am. Stat. Assoc. 22:209-212)."""
    z2, share = _NORMAL**2, count / n
    middle = share + z2 / (2 * n)
    reach = _NORMAL * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low, high = ((middle + side * reach) / (1 + z2 / n) for side in (-1, 1))
    return (0.0 if count == 0 else low, 1.0 if count == n else high)


def more_often(count: int, n: int, real_count: int, m: int) -> float:
    """Probability of ``count`` or more of n samples, if they are as likely as ``real_count`` of m test images.

    Fisher's exact test, one-sided (1935, J. R. Stat. Soc. 98:39-82): the hypergeometric tail, given the sum of both.
    """
    both = count + real_count
    j = torch.arange(count, min(both, n) + 1, dtype=torch.float64)
    log_p = _log_choose(n, j) + _log_choose(m, both - j) - _log_choose(n + m, _f64(both))
    return min(float(log_p.logsumexp(0).exp()), 1.0)


def rank_p_values(fake: Tensor, real: Tensor) -> Tensor:
    """For each sample the share of the test images, and of itself, that lie as low: ``(n,)`` float64 in (0, 1].

    Of a sample that is distributed as the test images are it is below q with a probability of at most q.
    """
    lower = torch.searchsorted(real.sort().values, fake.contiguous(), right=True)
    return (1 + lower) / (1 + len(real))


def twins(distances: Tensor) -> Tensor:
    """``(n,)`` bool: which of some images are the same as another but for the rounding to 8 bits.

    Args:
        distances: ``(n,)`` to the nearest other one, root mean square in grey levels.
    """
    return distances <= TWIN


def judge(
    fake: Mapping[str, Nearness], real: Mapping[str, Nearness], among: Tensor
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All figures of an audit, and the verdict.

    ``memorised`` is true if one of these tests rejects, each at the level `LEVEL` over their number: in each space,
    that too many samples lie below the `QUANTILE` of the test images' closeness (`below_quantile`); and that samples
    are twins of training images more often than test images are (`more_often`). For a generator that draws from the
    distribution of the test images it is true with a probability of at most `LEVEL`.

    Args:
        fake: Of n generated images in each space, by its name: ``pixels``, with distances as root mean squares in grey
            levels, and names of extractors.
        real: Of m real test images in the same spaces.
        among: ``(n,)``, distances of samples to the nearest other sample in grey levels.

    Returns:
        The figures by key, as ``docs/memorisation.md`` lists them; and the p-value of each test with what it is from.

    Raises:
        InputError: If there are so few images that a generator of nothing but copies would pass.
    """
    samples, images = fake["pixels"].distances[:, 0], real["pixels"].distances[:, 0]
    n, m, number = len(samples), len(images), len(fake) + 1
    if not n or not m or below_quantile(torch.zeros(n), torch.ones(m)).p_value > LEVEL / number:
        raise InputError(
            f"{n} samples and {m} real test images are too few for a memorisation audit: a model that only copies "
            "couldn't be told from an honest one. Expected some hundreds of each."
        )
    values: dict[str, Any] = {}
    tests: dict[str, Any] = {}
    for space, nearness in fake.items():
        found = below_quantile(nearness.closeness, real[space].closeness)
        name = f"memorised_share_{space}"
        values |= {name: found.share, f"{name}_low": found.low, f"{name}_high": found.high}
        tests[name] = {key: getattr(found, key) for key in ("count", "expected", "threshold", "p_value")}
    for space, nearness in fake.items():
        values[f"authenticity_{space}"] = float(nearness.authentic.double().mean())
        values[f"authenticity_real_{space}"] = float(real[space].authentic.double().mean())
    for space, nearness in fake.items():
        values[f"copying_z_{space}"] = copying_z(nearness.distances[:, 0], real[space].distances[:, 0])
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
