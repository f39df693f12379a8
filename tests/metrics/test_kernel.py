from __future__ import annotations

import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.metrics.kernel import FeatureSample, KernelDistance, kernel_distance


def features(n: int, d: int = 8, seed: int = 0, offset: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + offset


def test_equals_torch_fidelity():
    fidelity = pytest.importorskip("torch_fidelity.metric_kid")
    a, b = features(150), features(150, seed=1, offset=0.3)
    options = {"kid_subsets": 1, "kid_subset_size": 150, "verbose": False, "rng_seed": 0}
    expected = fidelity.kid_features_to_metric(a.double(), b.double(), **options)["kernel_inception_distance_mean"]
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_sets_of_two_by_hand():
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0], [3.0]])
    within_x = (1 * 2 + 1) ** 3
    within_y = ((0 + 1) ** 3 + (0 + 1) ** 3 + (3 + 1) ** 3) / 3
    across = sum((a * b + 1) ** 3 for a in (1, 2) for b in (0, 1, 3)) / 6
    assert kernel_distance(x, y) == pytest.approx(within_x + within_y - 2 * across, rel=1e-12)


def test_rows_in_blocks_make_no_difference(monkeypatch):
    a, b = features(50), features(40, seed=1)
    whole = kernel_distance(a, b)
    monkeypatch.setattr("lit_aigc.metrics.kernel._ROWS", 7)
    assert kernel_distance(a, b) == pytest.approx(whole, rel=1e-10)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("limit", [40, 1000])
def test_batch_size_makes_no_difference(batch_size, limit):
    x, reference = features(101), features(60, seed=1, offset=0.2)
    whole, parts = KernelDistance(reference, limit), KernelDistance(reference, limit)
    whole.update(x, 0)
    for start in range(0, 101, batch_size):
        parts.update(x[start : start + batch_size], start)
    assert parts.compute() == pytest.approx(whole.compute(), rel=1e-9)


def test_sample_is_limited_spread_and_independent_of_the_order(monkeypatch):
    monkeypatch.setattr("lit_aigc.metrics.kernel._ROWS", 16)
    positions = torch.arange(1000.0)[:, None]
    forward, backward = FeatureSample(1, limit=100), FeatureSample(1, limit=100)
    for start in range(0, 1000, 50):
        forward.update(positions[start : start + 50], start)
        assert sum(map(len, forward.keys)) <= 2 * 100 + 16
    for start in range(950, -50, -50):
        backward.update(positions[start : start + 50], start)
    kept = forward.compute()
    assert kept.shape == (100, 1)
    assert kept.unique().numel() == 100
    assert 400 < float(kept.mean()) < 600  # a uniform sample of 0 … 999; the first hundred would give 50
    assert torch.equal(kept.sort(0).values, backward.compute().sort(0).values)


def test_up_to_the_limit_all_are_kept():
    sample = FeatureSample(8, limit=30)
    sample.update(features(30), 0)
    assert torch.equal(sample.compute().sort(0).values, features(30).sort(0).values)


def test_one_sample_is_refused():
    metric = KernelDistance(features(30))
    metric.update(features(1), 0)
    with pytest.raises(InputError, match="at least 2 samples"):
        metric.compute()
