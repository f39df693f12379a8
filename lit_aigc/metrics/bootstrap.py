"""How far a number would move with other samples of the same model: the bootstrap (Efron, 1979, Ann. Statist. 7:1-26).

Samples are drawn again with replacement, the metric is computed of each such draw, and the spread of the draws is taken
for that of the number. The real images stay as they are: what two models are both compared with is no noise between
them. Draw b depends on (seed, b) alone.

A set drawn with replacement has fewer different items, so FID and IS of the draws are biased once more, as they are by
a small number of samples. Only the deviations of the draws from their mean are used, around the number itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_aigc.errors import InputError
from lit_aigc.metrics.frechet import Moments, covariance_root
from lit_aigc.metrics.kernel import kernel_rows, kernel_sum_within
from lit_aigc.noise import Noise

LEVEL = 0.95
LEAST = 20
_DRAWS = 64  # in memory at a time


class Estimate(NamedTuple):
    """A number and its uncertainty.

    Attributes:
        value: The number.
        standard_error: Standard deviation over sets of samples of this size.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    value: float
    standard_error: float
    low: float
    high: float


def estimate(value: float, draws: Tensor, *, scale: float = 1.0, least: float = -math.inf) -> Estimate:
    """The uncertainty of a number from the same number of sets that were drawn again.

    Args:
        value: The number, of all samples.
        draws: ``(b,)``, of the sets drawn again.
        scale: Factor for the deviations: ``sqrt(m / n)`` where draws of m samples stand for a number of n.
        least: Smallest value that the number can have.
    """
    deviations = (draws.double() - draws.double().mean()) * scale
    tail = (1.0 - LEVEL) / 2.0
    low, high = torch.quantile(deviations, torch.tensor([tail, 1.0 - tail], dtype=torch.float64)).tolist()
    return Estimate(value, float(deviations.std()), max(value + low, least), value + high)


def weights(n: int, resamples: int, seed: int = 0) -> Iterator[Tensor]:
    """How often each of n items is in a set of n that was drawn with replacement.

    Yields:
        ``(n,)`` float64 for each of the draws.

    Raises:
        InputError: If there are fewer than two items or too few draws.
    """
    if n < 2:
        raise InputError(f"A bootstrap needs at least 2 samples, got {n}.")
    check_draws(resamples)
    noise = Noise(seed).stream("bootstrap")
    for draw in range(resamples):
        yield torch.bincount(noise.skip(draw * n).integers(n, n), minlength=n).double()


def check_draws(resamples: int) -> None:
    """Refuse a number of draws that gives no interval."""
    if resamples < LEAST:
        raise InputError(f"bootstrap={resamples}: expected the number of draws, {LEAST} or more, better some hundreds.")


def frechet_draws(features: Tensor, reference: Moments, resamples: int, *, seed: int = 0) -> Tensor:
    """Fréchet distances from fixed moments, of sets drawn again from features.

    Args:
        features: ``(n, d)``.
        reference: Moments of the real set.
        resamples: Number of draws; each costs the eigenvalues of a symmetric matrix of size min(n, d).
        seed: Of the draws.

    Returns:
        ``(resamples,)`` float64.
    """
    x = features.double() - reference.mean.to(features.device, torch.float64)
    n = len(x)
    z = x @ covariance_root(reference.covariance.to(x))  # (n, rank): the overlap is a sum of singular values of z
    lengths = x.square().sum(dim=1)
    spread = reference.covariance.trace()
    found = []
    for w in weights(n, resamples, seed):
        w = w.to(x)
        gap = (w @ x / n).square().sum()
        own = (w @ lengths - n * gap) / (n - 1)
        kept = w > 0
        centred = (z[kept] - w @ z / n) * w[kept, None].sqrt()
        gram = centred @ centred.T if len(centred) < z.shape[1] else centred.T @ centred
        overlap = torch.linalg.eigvalsh(gram / (n - 1)).clamp(min=0.0).sqrt().sum()
        found.append(max(float(gap + own + spread - 2.0 * overlap), 0.0))
    return torch.tensor(found, dtype=torch.float64)


def inception_score_draws(logits: Tensor, resamples: int, *, seed: int = 0) -> Tensor:
    """Inception scores of sets drawn again from logits ``(n, k)``: ``(resamples,)`` float64."""
    log_p = logits.double().log_softmax(dim=1)
    p = log_p.exp()
    negative_entropy = torch.special.xlogy(p, p).sum(dim=1)
    found = []
    for w in _blocks(weights(len(p), resamples, seed)):
        w = w.to(p) / len(p)
        marginal = w @ p
        found.append((w @ negative_entropy - torch.special.xlogy(marginal, marginal).sum(dim=1)).exp())
    return torch.cat(found).cpu()


def kernel_draws(features: Tensor, real: Tensor, resamples: int, *, seed: int = 0) -> Tensor:
    """Kernel distances from fixed features, of sets drawn again from others.

    Pairs of an item with itself are left out, also where it was drawn twice, so the draws are unbiased too.

    Args:
        features: ``(n, d)``.
        real: ``(m, d)`` of the real set.
        resamples: Number of draws.
        seed: Of the draws.

    Returns:
        ``(resamples,)`` float64.
    """
    x, y = features.double(), real.double()
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


def _blocks(rows: Iterator[Tensor]) -> Iterator[Tensor]:
    gathered: list[Tensor] = []
    for row in rows:
        gathered.append(row)
        if len(gathered) == _DRAWS:
            yield torch.stack(gathered)
            gathered = []
    if gathered:
        yield torch.stack(gathered)


_ROUNDING = 1e-6  # of a number on float32 features, as a share of it


class Difference(NamedTuple):
    """How two numbers differ.

    Attributes:
        value: The second less the first.
        standard_error: Of the difference.
        low: Lower end of its 95 % interval.
        high: Upper end.
        beyond_noise: Whether the interval leaves out 0.
    """

    value: float
    standard_error: float
    low: float
    high: float
    beyond_noise: bool


def difference(first: tuple[float, float], second: tuple[float, float]) -> Difference:
    """Whether two independent numbers differ by more than the noise of their samples and the rounding of features.

    The interval is wider by a millionth of the larger number: samples that are all alike have no noise, and numbers of
    them differ by rounding all the same.

    Args:
        first: Value and standard error, as an `Estimate` begins.
        second: Likewise.

    Raises:
        InputError: If a standard error is negative or not finite.
    """
    (a, error_a), (b, error_b) = first[:2], second[:2]
    if not all(math.isfinite(error) and error >= 0 for error in (error_a, error_b)):
        raise InputError(f"Expected standard errors of 0 or more, got {error_a} and {error_b}.")
    error = math.hypot(error_a, error_b)
    reach = 1.959963984540054 * error + _ROUNDING * max(abs(a), abs(b))  # the 97.5 % quantile of a normal distribution
    value = b - a
    return Difference(value, error, value - reach, value + reach, abs(value) > reach)


_COMPARABLE = ("extractor_hash", "n_fake", "reference", "resize", "precision")


def compare(first: Mapping[str, Any], second: Mapping[str, Any], key: str) -> Difference:
    """Whether a number of two evaluations, as `lit_aigc.evaluate` writes them, differs by more than the noise.

    The noise is that of the samples; how much another seed of training moves the number isn't in it.

    Args:
        first: The content of an ``evaluation.json`` with bootstrap intervals.
        second: Of another one.
        key: The number, such as ``fid_inception``.

    Raises:
        InputError: If one lacks the number or its standard error, or they were not measured alike.
    """
    needed = (key, f"{key}_standard_error")
    for results in (first, second):
        if missing := [name for name in needed if name not in results]:
            raise InputError(
                f"An evaluation lacks {' and '.join(missing)}: make both with the same metrics and bootstrap=200."
            )
    one, other = (_protocol(results, key) for results in (first, second))
    differing = [name for name in _COMPARABLE if one.get(name) != other.get(name)]
    if differing:
        facts = "; ".join(f"{name}: {one.get(name)} and {other.get(name)}" for name in differing)
        raise InputError(f"The two {key} were not measured alike and can't be compared ({facts}).")
    return difference(*((results[needed[0]], results[needed[1]]) for results in (first, second)))


def _protocol(results: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    protocols = results.get("protocol", {})
    names = [name for name in protocols if key.endswith(f"_{name}")]
    if not names:
        raise InputError(f"An evaluation has no protocol of {key}.")
    return protocols[max(names, key=len)]
