"""Noise by sample index: independent of the batch, and as random as it claims."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_aigc.noise import Noise

seeds = st.integers(min_value=-(2**63), max_value=2**64)


@given(seed=seeds, start=st.integers(0, 2**40), parts=st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_any_split_into_batches_draws_the_same(seed: int, start: int, parts: list[int]) -> None:
    noise = Noise(seed, start)
    whole = {kind: getattr(noise, kind)(sum(parts), *shape) for kind, shape in KINDS.items()}
    for kind, shape in KINDS.items():
        done, drawn = 0, []
        for part in parts:
            drawn.append(getattr(noise.skip(done), kind)(part, *shape))
            done += part
        assert torch.equal(torch.cat(drawn), whole[kind])


KINDS = {"bits": (5,), "normal": (3, 1), "uniform": (2, 2), "integers": (7,)}


def test_values_are_pinned() -> None:
    # a change here changes every sample that was ever made with a seed
    assert Noise(0).bits(1, 2).tolist() == PINNED_BITS
    assert Noise(7, 3).integers(4, 10).tolist() == PINNED_INTEGERS
    torch.testing.assert_close(Noise(1).normal(1, 3)[0], torch.tensor(PINNED_NORMAL), rtol=0, atol=1e-6)


PINNED_BITS = [[-6121942839864375326, 1655454919081017106]]
PINNED_INTEGERS = [5, 0, 5, 9]
PINNED_NORMAL = [0.3593903, -0.381552, 1.0224242]


def splitmix_finaliser(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


@given(seed=seeds, start=st.integers(0, 2**40))
def test_bits_are_those_of_exact_integer_arithmetic(seed: int, start: int) -> None:
    golden = 0x9E3779B97F4A7C15
    key = splitmix_finaliser((seed * golden + 0xBF58476D1CE4E5B9) % 2**64)
    item = splitmix_finaliser((start * golden % 2**64) ^ key)
    expected = [splitmix_finaliser((item + position * golden) % 2**64) for position in (1, 2, 3)]
    assert [value % 2**64 for value in Noise(seed, start).bits(1, 3)[0].tolist()] == expected


@pytest.mark.parametrize("seed", [0, 1, 12345, -1])
def test_normal_is_standard_normal(seed: int) -> None:
    values = Noise(seed).normal(2000, 50).double().flatten()
    count = values.numel()
    assert abs(values.mean()) < 4 / count**0.5
    assert abs(values.var() - 1) < 4 * (2 / count) ** 0.5
    assert abs((values**3).mean()) < 4 * (15 / count) ** 0.5
    assert abs((values**4).mean() - 3) < 4 * (96 / count) ** 0.5
    assert scipy.stats.kstest(values.numpy(), "norm").pvalue > 1e-3
    assert torch.isfinite(values).all()
    assert values.abs().max() < 6.8


@pytest.mark.parametrize("axis", [0, 1])
def test_normal_is_independent_along_items_and_positions(axis: int) -> None:
    values = Noise(3).normal(2000, 64).double()
    values = values if axis == 0 else values.T
    for lag in (1, 2, 3, 16):
        pairs = values[lag:] * values[:-lag]
        assert abs(pairs.mean()) < 4 / pairs.numel() ** 0.5


def test_both_halves_of_a_box_muller_pair_are_independent() -> None:
    values = Noise(5).normal(100_000, 2).double()
    first, second = values.unbind(1)
    assert abs((first * second).mean()) < 4 / len(values) ** 0.5
    assert abs((first**2 * second**2).mean() - 1) < 4 * (8 / len(values)) ** 0.5
    angle = torch.atan2(second, first) / (2 * torch.pi) + 0.5
    assert scipy.stats.kstest(angle.numpy(), "uniform").pvalue > 1e-3


def test_streams_seeds_and_neighbours_are_uncorrelated() -> None:
    noise = Noise(0)
    several = [
        noise,
        noise.stream("a"),
        noise.stream("b"),
        noise.stream("a").stream("a"),
        Noise(1),
        Noise(2),
        Noise(-1),
    ]
    values = torch.stack([each.normal(1000, 20).flatten().double() for each in several])
    correlations = torch.corrcoef(values) - torch.eye(len(several))
    assert correlations.abs().max() < 5 / values.shape[1] ** 0.5
    assert not torch.equal(several[1].bits(2, 2), several[3].bits(2, 2))


def test_a_stream_keeps_its_place() -> None:
    assert torch.equal(Noise(4, 10).stream("x").bits(3, 2), Noise(4).stream("x").bits(13, 2)[10:])


def test_uniform_fills_its_range() -> None:
    values = Noise(9).uniform(1000, 100)
    assert values.min() >= 0
    assert values.max() < 1
    assert scipy.stats.kstest(values.double().flatten().numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("high", [1, 2, 7, 10, 1000])
def test_integers_are_uniform(high: int) -> None:
    values = Noise(11).integers(100_000, high)
    assert values.dtype == torch.int64
    assert values.min() >= 0
    assert values.max() < high
    if high > 1:
        assert scipy.stats.chisquare(np.bincount(values.numpy(), minlength=high)).pvalue > 1e-3


def test_bits_are_balanced_and_distinct() -> None:
    bits = Noise(13).bits(5000, 4)
    assert bits.unique().numel() == bits.numel()
    shares = torch.stack([(bits >> place) & 1 for place in range(64)]).double().mean(dim=(1, 2))
    assert (shares - 0.5).abs().max() < 5 * 0.5 / bits.numel() ** 0.5


def test_empty_and_scalar_shapes() -> None:
    assert Noise(0).normal(0, 3).shape == (0, 3)
    assert Noise(0).normal(4).shape == (4,)
