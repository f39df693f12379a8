from __future__ import annotations

import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.metrics.memorization import (
    LEVEL,
    Nearness,
    below_quantile,
    copying_z,
    judge,
    more_often,
    rank_p_values,
    twins,
    wilson,
)
from lit_aigc.noise import Noise


def uniform(n: int, seed: int, *shape: int) -> torch.Tensor:
    return Noise(seed).uniform(n, *shape).double()


def nearness(distances: torch.Tensor, own: float = 1.0) -> Nearness:
    return Nearness(distances, torch.zeros(distances.shape).long(), torch.full((len(distances),), own))


def test_closeness_by_hand():
    found = nearness(torch.tensor([[0.0, 3.0, 6.0], [2.0, 2.0, 2.0], [1.0, 2.0, 6.0], [0.0, 0.0, 0.0]]).double())
    assert found.closeness.tolist() == pytest.approx([0.0, 1.0, 1 / 3, 0.0])


def test_authentic_is_farther_than_the_neighbours_own_neighbour():
    assert nearness(torch.tensor([[0.0], [0.9], [1.0], [1.1]]).double()).authentic.tolist() == [False] * 3 + [True]


def test_copying_z_by_hand():
    fake, real = torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, 4.0, 5.0]).double()
    expected = (0 - 3) / (2 * 3 * 6 / 12) ** 0.5
    assert copying_z(fake, real) == pytest.approx(expected)
    assert copying_z(real, fake) == pytest.approx(-expected)
    assert copying_z(real, real) == pytest.approx(0.0)
    assert copying_z(torch.ones(4), torch.ones(3)) == 0.0
    assert copying_z(torch.ones(1), torch.ones(1)) == 0.0


@pytest.mark.parametrize("levels", [1000, 5])
def test_copying_z_equals_mann_and_whitneys_of_scipy(levels):
    stats = pytest.importorskip("scipy.stats")
    fake, real = ((uniform(n, seed, 1)[:, 0] * levels).floor() + shift for n, seed, shift in ((70, 1, 0), (90, 2, 0.0)))
    fake = (fake * 0.9).floor()
    options = {"method": "asymptotic", "use_continuity": False, "alternative": "less"}
    expected = stats.norm.ppf(stats.mannwhitneyu(fake.numpy(), real.numpy(), **options).pvalue)
    assert copying_z(fake, real) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "quantile"), [(40, 30, 0.1), (200, 1000, 0.01), (1000, 50, 0.01), (10, 2, 0.01)])
def test_the_count_below_a_quantile_is_beta_binomial(n, m, quantile):
    stats = pytest.importorskip("scipy.stats")
    fake, real = uniform(n, 3, 1)[:, 0] * 0.7, uniform(m, 4, 1)[:, 0] * 0.8 + 0.2
    found = below_quantile(fake, real, quantile)
    r = max(int(quantile * (m + 1)), 1)
    assert found.threshold == real.sort().values[r - 1]
    assert found.count == int((fake < found.threshold).sum()) > 0
    assert found.expected == pytest.approx(r / (m + 1))
    tail = stats.betabinom.pmf(range(found.count, n + 1), n, r, m - r + 1).sum()
    assert found.p_value == pytest.approx(tail, rel=1e-8, abs=0.0)
    interval = stats.binomtest(found.count, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_a_p_value_below_a_level_is_as_rare_as_the_level():
    draws = uniform(1500, 5, 100)
    found = [below_quantile(row[:40], row[40:], 0.1) for row in draws]
    share = sum(each.p_value <= 0.05 for each in found) / len(found)
    assert 0.02 < share < 0.05 + 3 * (0.05 * 0.95 / 1500) ** 0.5  # counts are whole: it can't be hit exactly
    mean = sum(each.share for each in found) / len(found)
    assert mean == pytest.approx(found[0].expected, rel=0.05)


def test_equal_values_are_not_below():
    same = below_quantile(torch.zeros(50), torch.zeros(50))
    assert (same.count, same.low, same.p_value) == (0, 0.0, 1.0)


def test_wilson_at_the_ends():
    assert wilson(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert wilson(10, 10) == pytest.approx((0.72247, 1.0), abs=1e-5)


@pytest.mark.parametrize("table", [(0, 9, 0, 7), (3, 20, 1, 30), (20, 20, 0, 1), (5, 1000, 70, 10_000), (2, 9, 7, 7)])
def test_more_often_is_fishers_exact_test(table):
    stats = pytest.importorskip("scipy.stats")
    count, n, real, m = table
    expected = stats.fisher_exact([[count, n - count], [real, m - real]], alternative="greater").pvalue
    assert more_often(*table) == pytest.approx(expected, rel=1e-8)


def test_rank_p_values_by_hand():
    real = torch.tensor([3.0, 1.0, 2.0])
    assert rank_p_values(torch.tensor([0.5, 1.0, 2.5, 9.0]), real).tolist() == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_twins_are_within_a_grey_level():
    assert twins(torch.tensor([0.0, 1.0, 1.01])).tolist() == [True, True, False]


def honest(n: int, seed: int) -> Nearness:
    return nearness(uniform(n, seed, 4).add(2.0).sort(dim=1).values)


def test_the_verdict_on_honest_samples_keeps_to_its_level():
    alarms = 0
    for seed in range(200):
        spaces = [{name: honest(150, 4 * seed + i + j) for i, name in ((0, "pixels"), (2, "toy"))} for j in (0, 1)]
        alarms += judge(*spaces, torch.full((150,), 9.0))[0]["memorised"]
    assert alarms <= 8  # of 200 at a level of 1 %: more has a probability below 3e-4


def test_all_figures_and_what_raises_the_alarm():
    real = {"pixels": honest(300, 11), "toy": honest(300, 12)}
    fake = {"pixels": honest(200, 13), "toy": honest(200, 14)}
    among = torch.full((200,), 9.0)
    values, tests = judge(fake, real, among)
    assert values["memorised"] is False
    assert {"duplicates_of_training", "duplicates_among_samples", "nearest_distance"} < set(values)
    assert {f"{key}_{space}" for key in ("memorised_share", "copying_z") for space in fake} < set(values)
    assert values["authenticity_toy"] == values["authenticity_real_toy"] == 1.0
    assert values["nearest_distance"] == float(fake["pixels"].distances[:, 0].median())

    copied = fake["toy"].distances.clone()
    copied[:20, 0] = 0.1
    found, tests = judge(fake | {"toy": nearness(copied)}, real, among)
    assert found["memorised"] is True
    assert found["memorised_share_toy"] >= 0.1 > found["memorised_share_pixels"]
    assert tests["memorised_share_toy"]["p_value"] < LEVEL / 3 < tests["memorised_share_pixels"]["p_value"]
    assert found["authenticity_toy"] == 0.9

    collapsed, _ = judge(fake, real, torch.where(torch.arange(200) < 50, 0.5, 9.0))
    assert collapsed["duplicates_among_samples"] == 50


def test_copies_show_though_the_test_images_have_some_too():
    """A hundredth of the test images is in the training images: nothing is closer than these, but copies are more."""
    real, fake = honest(300, 1), honest(200, 3)
    real.distances[:6, 0] = 0.0
    fake.distances[:40, 0] = 0.0
    values, _ = judge({"pixels": fake}, {"pixels": real}, torch.full((200,), 9.0))
    assert values["memorised_share_pixels"] == 0.0
    assert (values["duplicates_of_training"], values["duplicates_of_training_real"]) == (40, 6)
    assert values["memorised"] is True
    fake.distances[4:40, 0] = 1.5
    assert judge({"pixels": fake}, {"pixels": real}, torch.full((200,), 9.0))[0]["memorised"] is False


@pytest.mark.parametrize(("n", "m"), [(0, 100), (100, 0), (1, 100), (100, 1)])
def test_too_few_to_tell(n, m):
    with pytest.raises(InputError, match=f"{n} samples and {m} real test images are too few"):
        judge({"pixels": honest(n, 1)}, {"pixels": honest(m, 2)}, torch.zeros(n))
