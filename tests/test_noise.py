"""Noise by sample index: independent of the batch, and as random as it claims."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

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


def digest(values: torch.Tensor) -> str:
    return hashlib.blake2b(values.contiguous().numpy().tobytes(), digest_size=8).hexdigest()


@pytest.mark.parametrize(
    ("seed", "start", "expected"),
    [
        (0, 0, "0272603c02440ab5 7db3828f53f47631 08e8bba78cc38658 360281089dbd91d2 3456f4a2efa5d143"),
        (-5, 3, "4897a52389e4ab5e 2889dd1e13657d67 717957c4cc50113e 968440ca97f71a45 002d4cd03e7830eb"),
        (2**64 - 1, 2**40, "5bf6d274bafb7278 ac85b6560d856c63 cd0821abef072771 7650abd74a6c5d0f 442f5195112318d5"),
    ],
)
def test_old_seeds_draw_the_same_to_the_bit(seed: int, start: int, expected: str) -> None:
    """Made with NumPy's unsigned arithmetic, before draws moved to the device."""
    noise = Noise(seed, start)
    drawn = [
        noise.bits(300, 41),
        noise.uniform(300, 41),
        torch.cat([noise.integers(3000, high) for high in (1, 10, 2**31, 2**32)]),
        noise.normal(30, 7),
        noise.stream("x").normal(5, 2, 3),
    ]
    assert [digest(values) for values in drawn] == expected.split()


def test_normals_are_those_of_numpy_but_for_rare_last_bits() -> None:
    """Logarithms and sines of two libraries may differ in the last bit of float64, hardly ever in float32's."""
    bits = Noise(2).bits(1000, 250).numpy().view(np.uint64)
    radius = np.sqrt(-2.0 * np.log(((bits >> np.uint64(32)) + 0.5) * 2.0**-32))
    angle = (bits & np.uint64(0xFFFFFFFF)) * (2.0**-31 * np.pi)
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)
    steps = np.abs(Noise(2).normal(1000, 500).numpy().view(np.int32) - expected.view(np.int32))
    assert steps.max() <= 1
    assert (steps > 0).mean() < 1e-4


def test_single_elements_are_those_of_the_whole() -> None:
    noise = Noise(6, 2**33)
    items, positions = torch.tensor([4, 0, 4, 2]), torch.tensor([0, 8, 3, 3])
    assert torch.equal(noise.bits_at(items, positions), noise.bits(5, 9)[items, positions])
    assert torch.equal(noise.bits_at(items[:, None], positions), noise.bits(5, 9)[items][:, positions])
    assert items.tolist() == [4, 0, 4, 2], "arguments stay as they are"
    assert positions.tolist() == [0, 8, 3, 3], "arguments stay as they are"


def test_draws_are_made_on_the_device_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU nothing is copied from the CPU; MPS lacks float64, so the CPU draws for it."""
    kinds = {"bits": (5, 3), "normal": (5, 3), "uniform": (5, 3), "integers": (5, 10)}
    with FakeTensorMode(allow_non_fake_inputs=False), Copies() as copies:
        for kind, shape in kinds.items():
            assert getattr(Noise(1), kind)(*shape, device="cuda").device.type == "cuda"
        assert copies.seen == []
    places = []
    arange = torch.arange
    monkeypatch.setattr(torch, "arange", lambda *a, device=None, **k: (places.append(device), arange(*a, **k))[1])
    monkeypatch.setattr(torch.Tensor, "to", lambda values, device: (places.append(device), values)[1])
    for kind, shape in kinds.items():
        places.clear()
        assert torch.equal(getattr(Noise(1), kind)(*shape, device="mps"), getattr(Noise(1), kind)(*shape))
        assert places[:3] == ["cpu", "cpu", "mps"]


class Copies(TorchDispatchMode):
    """Notes operations that carry values between devices or back to Python."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [value for value in (*args, result) if isinstance(value, torch.Tensor) and value.dim()]
        if len({tensor.device.type for tensor in tensors}) > 1 or "_local_scalar_dense" in str(function):
            self.seen.append(str(function))
        return result


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
