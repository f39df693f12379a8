"""Two parts of a real set against each other: what is drawn, and the figures."""

from __future__ import annotations

import pytest
import torch

from lit_aigc.metrics.floor import Halves
from lit_aigc.metrics.frechet import FeatureMoments, frechet_distance
from lit_aigc.metrics.kernel import kernel_distance
from tests.metrics.toy import MeanColour

FEATURES = torch.randn(101, 4, generator=torch.Generator().manual_seed(0))
LOGITS = torch.randn(101, 2, generator=torch.Generator().manual_seed(1))


def fill(halves: Halves, size: int) -> Halves:
    for start in range(0, 101, size):
        places = torch.arange(start, min(start + size, 101))
        halves.update(FEATURES[places], LOGITS[places], places)
    return halves


def made(n: int, **options) -> Halves:
    return Halves(MeanColour(), 101, n, ("fid", "kid", "is", "accuracy"), **{"limit": 1000} | options)


@pytest.mark.parametrize("n", [30, 50, 1000])
def test_figures_are_those_of_two_disjoint_parts(n):
    halves = made(n)
    assert halves.n == min(n, 50)
    drawn = halves._drawn
    parts = [(drawn < halves.n).nonzero()[:, 0], ((drawn >= halves.n) & (drawn < 2 * halves.n)).nonzero()[:, 0]]
    assert [len(part) for part in parts] == [halves.n, halves.n]
    assert not set(parts[0].tolist()) & set(parts[1].tolist())
    assert halves.needs(0, 101).sum() == 2 * halves.n
    moments = [FeatureMoments(4) for _ in parts]
    for part, metric in zip(parts, moments, strict=True):
        metric.update(FEATURES[part])
    figures = fill(halves, 101).figures()
    assert figures["n"] == halves.n
    assert figures["fid"] == pytest.approx(frechet_distance(*(each.compute() for each in moments)), rel=1e-9)
    assert figures["kid"] == pytest.approx(kernel_distance(*(FEATURES[part] for part in parts)), rel=1e-9)
    assert figures["is"] > 1


@pytest.mark.parametrize("limit", [10, 1000])
@pytest.mark.parametrize("size", [1, 7])
def test_the_batch_size_changes_nothing(size, limit):
    expected = fill(made(40, limit=limit), 64).figures()
    assert fill(made(40, limit=limit), size).figures() == pytest.approx(expected, rel=1e-9)


def test_another_seed_is_another_draw():
    assert fill(made(40), 64).figures() != fill(made(40, seed=1), 64).figures()


def test_too_few_images_or_nothing_to_compare():
    assert not Halves(MeanColour(), 3, 100, ("fid",), limit=10).possible
    assert not Halves(MeanColour(), 100, 100, ("accuracy",), limit=10).possible
    assert made(2).possible
