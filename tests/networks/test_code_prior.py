"""The autoregressive prior: a distribution of maps of codes, sampled fast and each map by its own noise."""

import itertools

import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.networks.code_prior import CodePrior
from lit_aigc.noise import Noise

SHAPE = (1, 28, 28)


def prior(codes=5, scale=10.0, **options):
    """A small prior whose weights are large enough that all it reads shows in its logits."""
    torch.manual_seed(0)
    made = CodePrior(SHAPE, codes, **{"width": 16, "layers": 2, "heads": 2, **options})
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
    return made.eval()


@pytest.mark.parametrize("num_classes", [0, 3])
def test_a_code_changes_only_what_comes_after_it(num_classes):
    made = prior(num_classes=num_classes, size=3)
    codes = torch.randint(5, (2, 9))
    y = torch.tensor([0, 2]) if num_classes else None
    logits = made(codes, y)
    assert logits.shape == (2, 9, 5)
    for i in range(9):
        changed = codes.clone()
        changed[:, i] = (codes[:, i] + 1) % 5
        difference = (made(changed, y) - logits).abs().amax(dim=2)
        assert (difference[:, : i + 1] < 1e-5).all()
        assert (difference[:, i + 1 :] > 1e-4).all()


def test_the_class_changes_all_of_it():
    made, codes = prior(num_classes=3), torch.randint(5, (1, 49))
    difference = made(codes, torch.tensor([0])) - made(codes, torch.tensor([1]))
    assert (difference.abs().amax(dim=2) > 1e-4).all()


@pytest.mark.parametrize("num_classes", [0, 2])
def test_the_probabilities_of_all_maps_sum_to_one(num_classes):
    made = prior(codes=3, size=2, num_classes=num_classes)
    maps = torch.tensor(list(itertools.product(range(3), repeat=4)))
    y = torch.ones(len(maps), dtype=torch.int64) if num_classes else None
    p = made.log_prob(maps, y).double().exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    assert p.max() > 4 * p.min()


def without_cache(made, n, y, noise, temperature):
    chances = noise.uniform(n, made.length, made.codes).clamp_min(2.0**-25).double()
    gumbel = -torch.log(-torch.log(chances))
    codes = torch.zeros(n, made.length, dtype=torch.int64)
    for i in range(made.length):
        codes[:, i] = (made(codes, y)[:, i] / temperature + gumbel[:, i]).argmax(dim=1)
    return codes


@pytest.mark.parametrize("num_classes", [0, 10])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
@torch.no_grad()
def test_sampling_with_a_cache_is_that_without(num_classes, temperature):
    made = prior(num_classes=num_classes, layers=3)
    y = torch.arange(6) if num_classes else None
    fast = made.sample(6, y, noise=Noise(1), temperature=temperature)
    assert torch.equal(fast, without_cache(made, 6, y, Noise(1), temperature))
    assert len(fast.unique()) == 5


def test_a_map_depends_on_its_own_noise_alone():
    made = prior(num_classes=3)
    y = torch.tensor([0, 1, 2, 0, 1])
    whole = made.sample(5, y, noise=Noise(3))
    assert torch.equal(made.sample(2, y[3:], noise=Noise(3, 3)), whole[3:])
    assert not torch.equal(made.sample(5, y, noise=Noise(4)), whole)


def test_maps_are_drawn_as_often_as_their_probability_says():
    made = prior(codes=2, size=2)
    maps = torch.tensor(list(itertools.product(range(2), repeat=4)))
    p = made.log_prob(maps).exp()
    drawn = made.sample(4000, noise=Noise(0)) @ torch.tensor([8, 4, 2, 1])
    shares = torch.bincount(drawn, minlength=16) / 4000
    assert (shares - p).abs().max() < 4 * (p * (1 - p) / 4000).sqrt().max()
    assert p.max() > 0.1  # not all alike, or this would say little


def test_a_low_temperature_draws_what_is_likely():
    made = prior()
    likely = [made.log_prob(made.sample(64, noise=Noise(0), temperature=t)).mean().item() for t in (0.01, 1.0, 3.0)]
    assert likely == sorted(likely, reverse=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codes": 1}, "prior.codes=1"),
        ({"heads": 3}, "a multiple of heads"),
        ({"layers": 0}, "prior.layers=0"),
        ({"width": 0}, "prior.width=0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        prior(**options)
