from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import scipy.linalg
import torch

from lit_aigc.errors import InputError
from lit_aigc.metrics.frechet import (
    FeatureMoments,
    FrechetDistance,
    Moments,
    SmallSampleWarning,
    covariance_root,
    frechet_distance,
)


def features(n: int, d: int = 12, seed: int = 0, offset: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=torch.Generator().manual_seed(99))
    return torch.randn(n, d, generator=generator, dtype=torch.float32) @ mixing + offset


def moments(x: torch.Tensor) -> Moments:
    metric = FeatureMoments(x.shape[1])
    metric.update(x)
    return metric.compute()


def test_moments_equal_numpy():
    x = features(50, offset=100.0)
    found = moments(x)
    assert found.count == 50
    np.testing.assert_allclose(found.mean, x.double().numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-9, atol=1e-9)


def test_distance_equals_matrix_square_root():
    a, b = moments(features(40)), moments(features(60, seed=1, offset=0.3))
    root = scipy.linalg.sqrtm((a.covariance @ b.covariance).numpy()).real
    expected = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * np.trace(root)
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(float(expected), rel=1e-8)


def test_distance_of_diagonal_gaussians_in_closed_form():
    """sum (m1 - m2)^2 + (s1 - s2)^2."""
    m1, m2 = torch.tensor([0.0, 1.0, 2.0]).double(), torch.tensor([3.0, 1.0, 0.0]).double()
    s1, s2 = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([4.0, 1.0, 0.5]).double()
    found = frechet_distance(Moments(9, m1, torch.diag(s1**2)), Moments(9, m2, torch.diag(s2**2)))
    assert found == pytest.approx(9 + 4 + 9 + 1, rel=1e-12)


def test_distance_of_singular_covariances():
    s1, s2 = torch.zeros(6).double(), torch.zeros(6).double()
    s1[:3], s2[2:4] = 2.0, 3.0  # they share one direction
    mean = torch.zeros(6).double()
    found = frechet_distance(Moments(4, mean, torch.diag(s1**2)), Moments(4, mean, torch.diag(s2**2)))
    assert found == pytest.approx(3 * 4 + 2 * 9 - 2 * 6, rel=1e-7)


@pytest.mark.parametrize("constant", [0, 3])
@pytest.mark.parametrize("n", [8, 40])  # fewer items than features, and more
def test_root_of_a_covariance(n, constant):
    x = features(n)
    x[:, :constant] = 1.0
    covariance = moments(x).covariance
    root = covariance_root(covariance)
    assert root.shape == (12, min(n - 1, 12 - constant))
    torch.testing.assert_close(root @ root.T, covariance, rtol=1e-9, atol=1e-9)


def test_root_of_nothing():
    assert covariance_root(torch.zeros(3, 3, dtype=torch.float64)).shape == (3, 0)


def test_distance_of_gaussians_with_covariances_that_commute():
    """In one orthogonal basis: |m1 - m2|^2 + sum (s1 - s2)^2, over eight orders of magnitude."""
    basis = torch.linalg.qr(features(24, 24).double()).Q
    s1, s2 = torch.logspace(0, -4, 24).double(), torch.logspace(-1, -3, 24).double()
    m1, m2 = torch.zeros(24).double(), torch.full((24,), 0.1).double()
    first, second = (Moments(99, m, basis * s**2 @ basis.T) for m, s in ((m1, s1), (m2, s2)))
    expected = float((m1 - m2).square().sum() + (s1 - s2).square().sum())
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-7)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-7)


def test_distance_to_itself_is_zero():
    same = moments(features(500))
    assert frechet_distance(same, same) == pytest.approx(0.0, abs=1e-9)


def test_equals_torch_fidelity():
    fidelity = pytest.importorskip("torch_fidelity.metric_fid")
    a, b = features(80, 24), features(90, 24, seed=3, offset=0.2)
    statistics = [fidelity.fid_features_to_statistics(x.double()) for x in (a, b)]
    expected = fidelity.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batch_size_makes_no_difference(batch_size):
    x, reference = features(101, offset=50.0), moments(features(200, seed=5, offset=50.5))
    whole, parts = FrechetDistance(reference), FrechetDistance(reference)
    whole.update(x)
    for part in x.split(batch_size):
        parts.update(part)
    assert int(parts.count) == 101
    assert parts.compute() == pytest.approx(whole.compute(), rel=1e-9)


def test_constant_features_are_finite():
    reference = moments(features(200))
    metric = FrechetDistance(reference)
    metric.update(torch.zeros(20, 12))
    expected = float(reference.mean.square().sum() + reference.covariance.trace())
    assert metric.compute() == pytest.approx(expected, rel=1e-7)
    assert frechet_distance(moments(torch.ones(20, 12)), moments(torch.ones(20, 12))) == 0.0


def test_few_samples_warn():
    metric = FrechetDistance(moments(features(300, 128)))
    metric.update(features(64, 128, seed=2))
    with pytest.warns(SmallSampleWarning, match="64 samples on 128 features"):
        assert math.isfinite(metric.compute())


def test_enough_samples_do_not_warn():
    metric = FrechetDistance(moments(features(300)))
    metric.update(features(64, seed=2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.compute()


def test_one_sample_is_refused():
    metric = FrechetDistance(moments(features(30)))
    metric.update(features(1))
    with pytest.raises(InputError, match="at least 2 samples"):
        metric.compute()


def test_memory_does_not_grow():
    metric = FrechetDistance(moments(features(30)))

    def size() -> int:
        return sum(getattr(metric, name).numel() for name in metric._defaults)

    before = size()
    for _ in range(5):
        metric.update(features(100))
    assert size() == before == 1 + 12 + 12 * 12


def test_half_precision_module_keeps_float64_states():
    metric = FrechetDistance(moments(features(30))).half()
    metric.update(features(30))
    assert metric.outer.dtype == metric.reference.covariance.dtype == torch.float64
