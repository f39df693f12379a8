from __future__ import annotations

import math
import statistics

import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.metrics import bootstrap
from lit_aigc.metrics.bootstrap import compare, difference, estimate
from lit_aigc.metrics.frechet import FeatureMoments, FrechetDistance, Moments, frechet_distance
from lit_aigc.metrics.inception_score import InceptionScore
from lit_aigc.metrics.kernel import KernelDistance, kernel_distance
from lit_aigc.metrics.resampling import weights


def features(n: int, d: int = 4, seed: int = 0, offset: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + offset


def moments(x: torch.Tensor) -> Moments:
    metric = FeatureMoments(x.shape[1])
    metric.update(x)
    return metric.compute()


def score(logits: torch.Tensor) -> float:
    metric = InceptionScore(logits.shape[1])
    metric.update(logits)
    return metric.compute()


def redrawn(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x.repeat_interleave(w.long(), dim=0)


def test_weights_are_sets_drawn_with_replacement():
    drawn = torch.stack(list(weights(50, 400, seed=1)))
    assert drawn.shape == (400, 50)
    assert (drawn.sum(dim=1) == 50).all()
    assert drawn.var().item() == pytest.approx(1 - 1 / 50, rel=0.05)  # multinomial
    assert drawn.mean(dim=0).sub(1).abs().max() < 0.25
    assert torch.equal(drawn[:30], torch.stack(list(weights(50, 30, seed=1))))
    assert not torch.equal(drawn[:30], torch.stack(list(weights(50, 30, seed=2))))


@pytest.mark.parametrize(("n", "d"), [(60, 4), (20, 32)])  # more items than features, and fewer
def test_draws_are_the_metric_of_what_was_drawn(n, d):
    x, real = features(n, d, offset=0.3), features(100, d, seed=1)
    reference = moments(real)
    frechet, scores = FrechetDistance(reference).draws(x, 20, seed=3), InceptionScore(x.shape[1]).draws(x, 20, seed=3)
    for draw, w in enumerate(weights(n, 20, seed=3)):
        again = redrawn(x, w)
        assert frechet[draw].item() == pytest.approx(frechet_distance(moments(again), reference), rel=1e-6)
        assert scores[draw].item() == pytest.approx(score(again), rel=1e-9)


def test_draws_of_the_kernel_distance_leave_out_an_item_with_itself(monkeypatch):
    x, real = features(15, offset=0.3).double(), features(12, seed=1).double()
    found = KernelDistance(real).draws(x, 20, seed=3)
    kernel = (x @ x.T / 4 + 1) ** 3
    across = ((x @ real.T / 4 + 1) ** 3).mean(dim=1)
    for draw, w in enumerate(weights(15, 20, seed=3)):
        pairs = torch.outer(w, w).fill_diagonal_(0.0)
        own = (pairs * kernel).sum() / pairs.sum()
        rest = kernel_distance(x, real) + 2 * across.mean() - (kernel.sum() - kernel.trace()) / (15 * 14)  # of the real
        assert found[draw].item() == pytest.approx(float(own + rest - 2 * w @ across / 15), rel=1e-9)
    monkeypatch.setattr("lit_aigc.metrics.kernel._ROWS", 4)
    assert torch.allclose(KernelDistance(real).draws(x, 20, seed=3), found, rtol=1e-10)


def test_the_standard_error_is_the_spread_over_sets_of_samples():
    """Of 200 sets of 200 samples, against the bootstrap of some of them."""
    n, d = 200, 16
    real = features(2000, d, seed=9)
    reference, some = moments(real), real[:300]
    sets = features(200 * n, d, seed=1, offset=0.4).view(200, n, d)
    for metric, draws in (
        (lambda x: frechet_distance(moments(x), reference), lambda x: FrechetDistance(reference).draws(x, 100)),
        (lambda x: kernel_distance(x, some), lambda x: KernelDistance(some).draws(x, 100)),
        (score, lambda x: InceptionScore(x.shape[1]).draws(x, 100)),
    ):
        true = statistics.stdev(metric(x) for x in sets)
        found = statistics.mean(estimate(0.0, draws(x)).standard_error for x in sets[:6])
        assert found == pytest.approx(true, rel=0.25)


def test_the_interval_lies_around_the_number_though_draws_are_biased():
    x, reference = features(100, 16), moments(features(5000, 16, seed=1))
    value, draws = frechet_distance(moments(x), reference), FrechetDistance(reference).draws(x, 100)
    assert draws.mean() > 1.5 * value  # biased by 1/n once more
    found = estimate(value, draws)
    assert found.low < value < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.standard_error, rel=0.3)


def test_estimate_by_hand():
    found = estimate(10.0, torch.arange(101.0), scale=0.5)
    assert (found.value, found.low, found.high) == pytest.approx((10.0, 10 - 23.75, 10 + 23.75))
    assert found.standard_error == pytest.approx(0.5 * statistics.stdev(range(101)))
    assert estimate(1.0, torch.arange(101.0), least=0.0).low == 0.0


def test_constant_features_have_no_spread():
    same = torch.ones(30, 4)
    assert estimate(0.0, FrechetDistance(moments(features(50))).draws(same, 20)).standard_error == pytest.approx(
        0.0, abs=1e-9
    )
    assert estimate(1.0, InceptionScore(same.shape[1]).draws(same, 20)).standard_error == pytest.approx(0.0, abs=1e-9)


def test_too_few_are_refused():
    with pytest.raises(InputError, match="at least 2 samples, got 1"):
        FrechetDistance(moments(features(50))).draws(features(1), 20)
    with pytest.raises(InputError, match="bootstrap=5: expected the number of draws, 20 or more"):
        InceptionScore(4).draws(features(10), 5)


def test_difference_of_two_numbers():
    far = difference((10.0, 0.3), (8.0, 0.4))
    assert far[:2] == pytest.approx((-2.0, 0.5))
    assert (far.low, far.high) == pytest.approx((-2.0 - 0.98, -2.0 + 0.98), abs=1e-4)
    assert far.beyond_noise
    assert not difference((10.0, 0.3), (9.1, 0.4)).beyond_noise
    assert not difference((1.0, 0.0), (1.0, 0.0)).beyond_noise
    collapsed = difference((1.0 + 3.3e-13, 6e-14), (1.0, 7e-14))  # inception scores of samples that are all alike
    assert not collapsed.beyond_noise
    assert collapsed.low < 0 < collapsed.high
    assert difference((1.0, 0.0), (1.0001, 0.0)).beyond_noise
    assert difference((1e-9, 1e-11), (2e-9, 1e-11)).beyond_noise  # relative to the values, however small they are
    with pytest.raises(InputError, match="standard errors"):
        difference((1.0, math.nan), (1.0, 0.0))


def test_differences_of_equal_models_are_rarely_beyond_noise():
    """About 5 % of pairs from one distribution, and nearly all of pairs from different ones."""
    reference = moments(features(2000, seed=9))

    def made(seed: int, offset: float) -> bootstrap.Estimate:
        x = features(100, seed=seed, offset=offset)
        return estimate(frechet_distance(moments(x), reference), FrechetDistance(reference).draws(x, 40, seed=seed))

    first = [made(100 + number, 0.4) for number in range(40)]
    second = [made(200 + number, 0.4) for number in range(40)]
    worse = [made(300 + number, 0.8) for number in range(40)]
    pairs = [difference(a, b).beyond_noise for a, b in zip(first, second, strict=True)]
    assert sum(pairs) <= 8
    assert all(difference(a, b).beyond_noise for a, b in zip(first, worse, strict=True))


def evaluation(value: float, error: float, **protocol: object) -> dict[str, object]:
    facts = {"extractor_hash": "h", "n_fake": 100, "reference": {"n": 9}, **protocol}
    return {"fid_toy": value, "fid_toy_standard_error": error, "protocol": {"toy": facts, "other": {}}}


def test_comparison_of_two_evaluations():
    assert compare(evaluation(10.0, 0.3), evaluation(8.0, 0.4), "fid_toy").beyond_noise
    assert not compare(evaluation(10.0, 3.0), evaluation(8.0, 0.4), "fid_toy").beyond_noise
    with pytest.raises(InputError, match=r"not measured alike and can't be compared \(n_fake: 100 and 50\)"):
        compare(evaluation(10.0, 0.3), evaluation(8.0, 0.4, n_fake=50), "fid_toy")
    without = evaluation(8.0, 0.4)
    del without["fid_toy_standard_error"]
    with pytest.raises(InputError, match=r"lacks fid_toy_standard_error: make both with .* bootstrap=200"):
        compare(evaluation(10.0, 0.3), without, "fid_toy")
    with pytest.raises(InputError, match="no protocol of fid_toy"):
        compare(evaluation(1.0, 0.1) | {"protocol": {}}, evaluation(8.0, 0.4), "fid_toy")
