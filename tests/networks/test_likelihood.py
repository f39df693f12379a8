"""Likelihoods: probabilities that sum to one, samples that follow them, means that are theirs."""

import itertools

import pytest
import torch
from torch import distributions

from lit_aigc.errors import InputError
from lit_aigc.networks import likelihood as likelihoods
from lit_aigc.networks.likelihood import Bernoulli, DiscretizedLogisticMixture, Gaussian
from lit_aigc.noise import Noise

ALL = [
    Bernoulli(),
    Bernoulli(binarize=True),
    *map(Gaussian, ("fixed", "shared", "pixel")),
    DiscretizedLogisticMixture(3),
]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("likelihood", ALL)
def test_shapes(likelihood, channels):
    parameters = normal(4, likelihood.maps(channels), 5, 6)
    noise = Noise(0)
    images = likelihood.observe(normal(4, channels, 5, 6).clamp(-1, 1), noise)
    assert likelihood.log_prob(parameters, images).shape == (4,)
    assert likelihood.mean(parameters).shape == likelihood.sample(parameters, noise).shape == images.shape


@pytest.mark.parametrize("likelihood", ALL)
def test_image_i_is_drawn_with_item_i(likelihood):
    parameters = normal(4, likelihood.maps(3), 5, 6)
    whole = likelihood.sample(parameters, Noise(7))
    assert torch.equal(likelihood.sample(parameters[2:], Noise(7, 2)), whole[2:])
    assert not torch.equal(likelihood.sample(parameters, Noise(8)), whole)


@pytest.mark.parametrize("likelihood", ALL)
def test_half_precision_parameters_are_counted_in_full(likelihood):
    parameters = normal(2, likelihood.maps(1), 8, 8).bfloat16()
    images = normal(2, 1, 8, 8).sign()
    found = likelihood.log_prob(parameters, images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, likelihood.log_prob(parameters.float(), images))


# -- Bernoulli


def test_bernoulli_is_that_of_torch():
    logits, images = normal(5, 1, 4, 4), normal(5, 1, 4, 4, seed=1).sign()
    bernoulli = distributions.Bernoulli(logits=logits)
    expected = bernoulli.log_prob((images + 1) / 2).sum(dim=(1, 2, 3))
    torch.testing.assert_close(Bernoulli(binarize=True).log_prob(logits, images), expected)
    torch.testing.assert_close(Bernoulli().mean(logits), 2 * bernoulli.mean - 1)


def test_bernoulli_samples_are_black_or_white_as_often_as_they_should():
    logits = torch.tensor([-2.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 100, 100)
    drawn = Bernoulli().sample(logits, Noise(0))
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(drawn.mean(dim=(2, 3)), Bernoulli().mean(logits)[:, :, 0, 0], atol=0.03, rtol=0)


def test_gray_images_are_observed_as_they_are():
    images = normal(2, 1, 4, 4)
    assert Bernoulli().observe(images, Noise(0)) is images
    assert not Bernoulli().discrete  # a cross-entropy with gray levels is no probability
    assert Bernoulli(binarize=True).discrete


def test_binarisation_goes_by_the_place_in_the_stream():
    images = normal(6, 1, 9, 9).clamp(-1, 1)
    observe = Bernoulli(binarize=True).observe
    whole = observe(images, Noise(3, 10))
    assert set(whole.unique().tolist()) == {-1.0, 1.0}
    halves = torch.cat([observe(images[:2], Noise(3, 10)), observe(images[2:], Noise(3, 12))])
    assert torch.equal(whole, halves)
    assert not torch.equal(whole, observe(images, Noise(3, 16)))  # anew each time that it is seen


def test_gray_levels_are_the_chances_of_white():
    levels = torch.tensor([-1.0, -0.5, 0.2, 1.0])
    seen = (
        Bernoulli(binarize=True).observe(levels.view(1, 4, 1, 1).expand(1, 4, 150, 150), Noise(0)).mean(dim=(0, 2, 3))
    )
    torch.testing.assert_close(seen, levels, atol=0.02, rtol=0)
    assert seen[0] == -1  # black stays black, white white
    assert seen[-1] == 1


# -- Gaussian


@pytest.mark.parametrize("variance", ["fixed", "shared", "pixel"])
def test_gaussian_is_that_of_torch(variance):
    gaussian = Gaussian(variance)
    parameters, images = normal(4, gaussian.maps(3), 5, 5), normal(4, 3, 5, 5, seed=1)
    if variance == "shared":
        torch.nn.init.constant_(gaussian.log_var, -1.5)
    log_var = {"fixed": torch.zeros(()), "shared": torch.tensor(-1.5), "pixel": parameters[:, 3:]}[variance]
    torch_normal = distributions.Normal(parameters[:, :3], (0.5 * log_var).exp())
    expected = torch_normal.log_prob(images).sum(dim=(1, 2, 3))
    torch.testing.assert_close(gaussian.log_prob(parameters, images), expected)
    assert torch.equal(gaussian.mean(parameters), parameters[:, :3])


def test_gaussian_samples_have_its_moments():
    parameters = torch.tensor([0.5, -1.0]).view(1, 2, 1, 1).expand(1, 2, 200, 200)
    drawn = Gaussian("pixel").sample(parameters, Noise(0))
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.01)
    assert drawn.var().log().item() == pytest.approx(-1.0, abs=0.02)


def test_the_best_shared_variance_is_the_mean_square_of_the_errors():
    """Rybkin et al. (2021), equation 4."""
    gaussian, mean, images = Gaussian("shared"), normal(3, 1, 4, 4), normal(3, 1, 4, 4, seed=1)
    torch.nn.init.constant_(gaussian.log_var, (images - mean).square().mean().log().item())
    gaussian.log_prob(mean, images).sum().backward()
    assert gaussian.log_var.grad.item() == pytest.approx(0, abs=1e-4)


def test_a_density_does_not_grow_without_end():
    certain = torch.tensor([0.0, -100.0]).view(1, 2, 1, 1)
    assert Gaussian("pixel").log_prob(certain, torch.zeros(1, 1, 1, 1)) < 6


def test_an_unknown_variance():
    with pytest.raises(InputError, match=r"likelihood\.variance=full: expected fixed, shared or pixel"):
        Gaussian("full")


# -- the mixture of discretised logistics


def levels(count=256):
    """All values of a pixel, (count,)."""
    return torch.arange(count) * (2 / (count - 1)) - 1


def probabilities(mixture, parameters, images):
    """Of images (M, C, 1, 1), given the parameters (maps,) of a pixel."""
    return mixture.log_prob(parameters.view(1, -1, 1, 1).expand(len(images), -1, -1, -1), images).double().exp()


@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("components", [1, 4])
def test_probabilities_of_all_levels_sum_to_one(components, scale):
    """Also with means far outside, and scales from much below a level to much above the range."""
    mixture = DiscretizedLogisticMixture(components)
    for seed in range(20):
        parameters = scale * normal(mixture.maps(1), seed=seed)
        total = probabilities(mixture, parameters, levels().view(-1, 1, 1, 1)).sum()
        assert total.item() == pytest.approx(1, abs=1e-4)


def test_probabilities_of_all_colors_sum_to_one(monkeypatch):
    """Of pixels with 12 levels, so that all 1728 colors can be counted."""
    monkeypatch.setattr(likelihoods, "LEVELS", 12)
    colors = torch.tensor(list(itertools.product(levels(12).tolist(), repeat=3)))[:, :, None, None]
    mixture = DiscretizedLogisticMixture(3)
    for seed in range(10):
        found = probabilities(mixture, 2 * normal(mixture.maps(3), seed=seed), colors)
        assert found.sum().item() == pytest.approx(1, abs=1e-4)


def test_the_last_channel_sums_out():
    """Over the 256 levels of blue, the probabilities of a color are those of its red and green."""
    color, both = DiscretizedLogisticMixture(2), DiscretizedLogisticMixture(2)
    parameters = normal(color.maps(3)).view(2, 10)  # a component: logit, 3 means, 3 log-scales, 3 coefficients
    without_blue = parameters[:, [0, 1, 2, 4, 5, 7]].flatten()
    red_green = torch.tensor([0.25, -0.5])
    pixels = torch.cat([red_green.expand(256, 2), levels()[:, None]], dim=1)[:, :, None, None]
    expected = probabilities(both, without_blue, red_green.view(1, 2, 1, 1))
    found = probabilities(color, parameters.flatten(), pixels).sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_log_prob_is_the_textbook_formula():
    """The logarithm of a sum of differences of sigmoids, in float64 and one pixel at a time."""
    mixture = DiscretizedLogisticMixture(2)
    parameters = 0.5 * normal(3, mixture.maps(3), 2, 2)
    images = levels()[torch.randint(256, (3, 3, 2, 2), generator=torch.Generator().manual_seed(1))]
    images[0, 0, 0, 0], images[1, 1, 0, 0] = -1, 1
    expected = []
    for p, x in zip(parameters.double(), images.double(), strict=True):
        total = 0.0
        for row, column in itertools.product(range(2), repeat=2):
            pixel, chance = x[:, row, column], 0.0
            parts = p[:, row, column].view(2, 10)
            for part, weight in zip(parts, parts[:, 0].softmax(dim=0), strict=True):
                means, scales, (a, b, c) = part[1:4], part[4:7].exp(), part[7:].tanh()
                means = torch.stack([means[0], means[1] + a * pixel[0], means[2] + b * pixel[0] + c * pixel[1]])
                above = torch.where(pixel == 1, 1.0, ((pixel + 1 / 255 - means) / scales).sigmoid())
                below = torch.where(pixel == -1, 0.0, ((pixel - 1 / 255 - means) / scales).sigmoid())
                chance = chance + weight * (above - below).prod()
            total += chance.log()
        expected.append(total)
    torch.testing.assert_close(mixture.log_prob(parameters, images).double(), torch.stack(expected), rtol=1e-5, atol=0)


@pytest.mark.parametrize("log_scale", [-100.0, -7.0, 0.0, 100.0])
@pytest.mark.parametrize("mean", [-1000.0, -1.0, 0.0, 1.0, 1000.0])
def test_gradients_are_finite_at_the_extremes(mean, log_scale):
    mixture = DiscretizedLogisticMixture(2)
    parts = torch.tensor([0.0, mean, log_scale]).repeat(2)
    parts[0] = 1000.0  # all but certain of the first component
    parameters = parts.view(1, 6, 1, 1).repeat(5, 1, 1, 1).requires_grad_()
    found = mixture.log_prob(parameters, torch.tensor([-1.0, -253 / 255, 1 / 255, 253 / 255, 1.0]).view(5, 1, 1, 1))
    found.sum().backward()
    assert found.isfinite().all()
    assert (found <= 0).all()
    assert parameters.grad.isfinite().all()


def test_samples_follow_the_probabilities():
    mixture = DiscretizedLogisticMixture(3)
    # logit, mean, log-scale: narrow; wide, with a part of it cut off at the end; in between
    parameters = torch.tensor([0.0, -0.3, -4.0, 0.5, 0.8, -1.0, -1.0, 0.4, -2.5])
    drawn = mixture.sample(parameters.view(1, -1, 1, 1).expand(1, -1, 200, 200), Noise(0))
    seen = torch.bincount(((drawn.flatten() + 1) * 127.5).round().long(), minlength=256).double() / drawn.numel()
    expected = probabilities(mixture, parameters, levels().view(-1, 1, 1, 1))
    assert (seen.cumsum(0) - expected.cumsum(0)).abs().max() < 1.63 / 200  # Kolmogorov-Smirnov, one in a hundred
    assert abs(seen[-1] - expected[-1]) < 0.005 < expected[-1]


def test_colors_of_samples_hang_together_as_in_the_probabilities():
    mixture = DiscretizedLogisticMixture(2)
    parameters = torch.tensor([0.0, -0.4, 0.1, -2.0, -2.5, 1.0, 0.7, 0.5, -0.2, -2.0, -2.0, -1.0])
    drawn = mixture.sample(parameters.view(1, -1, 1, 1).expand(1, -1, 200, 200), Noise(0))[0].flatten(1)
    pairs = torch.cartesian_prod(levels(), levels())  # (65536, 2)
    weights = probabilities(mixture, parameters, pairs[:, :, None, None])
    assert weights.sum().item() == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(drawn.mean(dim=1).double(), weights @ pairs.double(), atol=0.01, rtol=0)
    expected = torch.cov(pairs.T.double(), aweights=weights)
    torch.testing.assert_close(torch.cov(drawn).double(), expected, atol=0.01, rtol=0)
    assert expected[0, 1].abs() > 0.02


def test_the_mean_is_that_of_samples():
    mixture = DiscretizedLogisticMixture(2)
    parameters = torch.zeros(2, 10)
    parameters[:, 0] = torch.tensor([0.0, 1.0])
    parameters[:, 1:4] = torch.tensor([[-0.3, 0.2, 0.1], [0.3, -0.1, 0.0]])
    parameters[:, 4:7] = -4.0  # narrow, so that nothing is cut off at the ends of the range
    parameters[:, 7:] = torch.tensor([[0.5, -0.4, 0.8], [-0.6, 0.3, 0.2]])
    maps = parameters.view(1, -1, 1, 1).expand(1, -1, 150, 150)
    drawn = mixture.sample(maps, Noise(0)).mean(dim=(2, 3))
    torch.testing.assert_close(drawn, mixture.mean(maps)[:, :, 0, 0], atol=0.01, rtol=0)


def test_a_mixture_of_nothing():
    with pytest.raises(InputError, match=r"likelihood\.components=0: expected 1 or more"):
        DiscretizedLogisticMixture(0)
