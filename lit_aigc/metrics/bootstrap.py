"""Estimate how far other samples of a model would move a number: the bootstrap (Efron, 1979, Ann. Statist. 7:1-26).

Samples are drawn with replacement, the metric is computed for each such draw, and the spread of the draws is taken as
the spread of the number. The real images stay as they are: both models are compared with the same ones, so they add no
noise between the two.

A set drawn with replacement has fewer distinct items, so FID and IS of the draws are biased once more, just as they are
by a small number of samples. Only the deviations of the draws from their mean are used, around the number itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_aigc.errors import InputError
from lit_aigc.metrics.measurement import Measurement, read

LEVEL = 0.95
_COMPARABLE = ("extractor_hash", "n_fake", "reference", "resize", "precision")  # in the protocol
_ROUNDING = 1e-6  # of a number on float32 features, relative
NORMAL_QUANTILE = 1.959963984540054  # 97.5 %, of a normal distribution


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

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def estimate(value: float, draws: Tensor, *, scale: float = 1.0, least: float = -math.inf) -> Estimate:
    """Return the uncertainty of a number from that of sets drawn with replacement.

    Args:
        value: The number of all samples.
        draws: ``(b,)``, the numbers of the sets.
        scale: Factor for the deviations: ``sqrt(m / n)`` where draws of m samples stand for a number of n.
        least: Smallest value that the number can have.
    """
    deviations = (draws.double() - draws.double().mean()) * scale
    tail = (1.0 - LEVEL) / 2.0
    low, high = torch.quantile(deviations, torch.tensor([tail, 1.0 - tail], dtype=torch.float64)).tolist()
    return Estimate(value, float(deviations.std()), max(value + low, least), value + high)


def difference(first: tuple[float, float], second: tuple[float, float]) -> Estimate:
    """Test whether two independent numbers differ by more than the noise of their samples and rounding.

    The interval is widened by a millionth of the larger number: samples that are all alike have no noise, and their
    numbers differ by the rounding of features all the same.

    Args:
        first: Value and standard error, the first two fields of an `Estimate`.
        second: Likewise.

    Returns:
        The second minus the first.

    Raises:
        InputError: If a standard error is negative or not finite.
    """
    (a, error_a), (b, error_b) = first[:2], second[:2]
    if not all(math.isfinite(error) and error >= 0 for error in (error_a, error_b)):
        raise InputError(f"Expected standard errors of 0 or more, got {error_a} and {error_b}.")
    error = math.hypot(error_a, error_b)
    reach = NORMAL_QUANTILE * error + _ROUNDING * max(abs(a), abs(b))
    value = b - a
    return Estimate(value, error, value - reach, value + reach)


def compare(first: Mapping[str, Any], second: Mapping[str, Any], key: str) -> Estimate:
    """Test whether a number of two evaluations, as `lit_aigc.evaluate` writes them, differs by more than the noise.

    The noise is that of the samples; how much another training seed would move the number is not included.

    Args:
        first: The content of an ``evaluation.json`` with bootstrap intervals.
        second: Of another one.
        key: The number, such as ``fid_inception``.

    Raises:
        InputError: If one lacks the number or its standard error, or they were not measured alike.
    """
    one, other = (_find(results, key) for results in (first, second))
    facts, other_facts = (results["protocol"][each.protocol] for results, each in ((first, one), (second, other)))
    if differing := [name for name in _COMPARABLE if facts.get(name) != other_facts.get(name)]:
        listed = "; ".join(f"{name}: {facts.get(name)} and {other_facts.get(name)}" for name in differing)
        raise InputError(f"The two {key} were not measured alike and can't be compared ({listed}).")
    return difference((one.value, one.standard_error), (other.value, other.standard_error))


def _find(results: Mapping[str, Any], key: str) -> Measurement:
    """Return a number of an evaluation that has a standard error and a protocol."""
    numbers = {name: value for name, value in results.items() if name != "protocol"}
    found = next((each for each in read(numbers, results.get("protocol")) if each.key() == key), None)
    if found is None or found.standard_error is None:
        missing = f"{key}_standard_error" if found else key
        raise InputError(f"An evaluation lacks {missing}: make both with the same metrics and bootstrap=200.")
    if not found.protocol:
        raise InputError(f"An evaluation has no protocol of {key}.")
    return found
