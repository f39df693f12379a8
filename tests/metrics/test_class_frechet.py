from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.metrics.class_frechet import ClassFrechetDistance, ClassMoments
from lit_aigc.metrics.frechet import FeatureMoments, Moments, SmallSampleWarning, frechet_distance


def features(n: int, d: int = 6, seed: int = 0, offset: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + offset


def classes(n: int) -> torch.Tensor:
    return torch.arange(n) % 3


def moments(x: torch.Tensor) -> Moments:
    metric = FeatureMoments(x.shape[1])
    metric.update(x)
    return metric.compute()


@pytest.fixture
def reference() -> tuple[Moments, ...]:
    metric = ClassMoments(6, 3)
    metric.update(features(150, seed=9, offset=5.0), classes(150))
    return metric.compute()


def test_each_class_equals_the_distance_of_its_images(reference):
    x, labels = features(101, offset=5.3), classes(101)
    metric = ClassFrechetDistance(reference)
    metric.update(x, labels)
    found = metric.compute()
    assert found["counts"] == [34, 34, 33]
    for label in range(3):
        expected = frechet_distance(moments(x[labels == label]), reference[label])
        assert found["distances"][label] == pytest.approx(expected, rel=1e-9)


def test_moments_equal_numpy():
    x, labels = features(50, offset=100.0), classes(50)
    metric = ClassMoments(6, 3)
    metric.update(x, labels)
    for label, found in enumerate(metric.compute()):
        own = x[labels == label].double().numpy()
        np.testing.assert_allclose(found.mean, own.mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.covariance, np.cov(own, rowvar=False), rtol=1e-8, atol=1e-8)


def test_gaussians_in_closed_form():
    """sum (m1 - m2)^2 + (s1 - s2)^2, another one for each class."""
    zero, one = torch.zeros(2).double(), torch.eye(2).double()
    metric = ClassFrechetDistance([Moments(9, zero, one), Moments(9, zero, 4 * one)])
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double() / (4 / 3) ** 0.5
    metric.update(torch.cat([x, 3.0 * x + 2.0]), torch.tensor([0] * 4 + [1] * 4))
    assert metric.compute()["distances"] == pytest.approx([0.0, 2 * 2.0**2 + 2 * (3 - 2) ** 2], abs=1e-9)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batch_size_makes_no_difference(reference, batch_size):
    x, labels = features(101, offset=5.3), classes(101)
    whole, parts = ClassFrechetDistance(reference), ClassFrechetDistance(reference)
    whole.update(x, labels)
    for some, of in zip(x.split(batch_size), labels.split(batch_size), strict=True):
        parts.update(some, of)
    assert int(parts.count.sum()) == 101
    assert parts.compute()["distances"] == pytest.approx(whole.compute()["distances"], rel=1e-9)


def test_it_sees_swapped_classes():
    """A generator that gives another class than was asked for, which a distance of all images doesn't see."""
    labels = classes(150)
    x = features(150) + 4.0 * labels[:, None]
    real = ClassMoments(6, 3)
    real.update(x, labels)
    right, wrong = ClassFrechetDistance(real.compute()), ClassFrechetDistance(real.compute())
    right.update(x, labels)
    wrong.update(x, 2 - labels)
    assert right.compute()["distances"] == pytest.approx([0.0] * 3, abs=1e-8)
    distances = wrong.compute()["distances"]
    assert min(distances[0], distances[2]) > 100 > distances[1]


def test_few_samples_warn(reference):
    metric = ClassFrechetDistance(reference)
    metric.update(features(15), classes(15))
    with pytest.warns(SmallSampleWarning, match="5 samples per class on 6 features"):
        metric.compute()


def test_bad_input(reference):
    metric = ClassFrechetDistance(reference)
    with pytest.raises(InputError, match="these have none"):
        metric.update(features(3), None)
    with pytest.raises(InputError, match="class 3, expected 0 to 2"):
        metric.update(features(3), torch.tensor([0, 1, 3]))
    metric = ClassFrechetDistance(reference)
    metric.update(features(4), torch.tensor([0, 0, 1, 1]))
    with pytest.raises(InputError, match="at least 2 images per class on either side, and class 2 has 0"):
        metric.compute()


def test_memory_does_not_grow(reference):
    metric = ClassFrechetDistance(reference)
    before = sum(getattr(metric, name).numel() for name in metric._defaults)
    for _ in range(3):
        metric.update(features(100), classes(100))
    assert sum(getattr(metric, name).numel() for name in metric._defaults) == before == 3 * (1 + 6 + 36)
