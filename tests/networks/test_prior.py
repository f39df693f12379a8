"""Priors: densities against `torch.distributions`, and draws that follow them."""

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from lit_aigc.errors import InputError
from lit_aigc.networks.prior import StandardNormal, VampPrior
from lit_aigc.noise import Noise


def vamp(mean, log_var):
    """A prior of given components, and the encoder that gives them whatever it sees."""
    return VampPrior((1, 2, 2), len(mean)), lambda images: (mean, log_var)


def mixture(mean, log_var):
    parts = Independent(Normal(mean.double(), (0.5 * log_var.double()).exp()), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(mean), dtype=torch.float64)), parts)


def components(k, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(k, d, generator=generator), torch.randn(k, d, generator=generator)


def test_standard_normal():
    z, mean, log_var = Noise(0).normal(3, 5, 4).unbind()
    prior, standard = StandardNormal(), Normal(torch.zeros(4), torch.ones(4))
    torch.testing.assert_close(prior.log_prob(z, None), standard.log_prob(z).sum(dim=1))
    torch.testing.assert_close(prior.kl(mean, log_var), kl_divergence(Normal(mean, (0.5 * log_var).exp()), standard))
    assert prior.draw(z, None) is z


def test_the_density_of_a_vamp_prior_is_that_of_the_mixture():
    mean, log_var = components(6, 4)
    prior, encode = vamp(mean, log_var)
    z = 3 * Noise(0).normal(50, 4)
    expected = mixture(mean, log_var).log_prob(z.double()).float()
    torch.testing.assert_close(prior.log_prob(z, encode), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("half", [False, True])
def test_narrow_components_far_from_zero_are_exact_in_half_precision_too(half):
    mean, log_var = components(6, 40)
    prior, encode = vamp(mean, log_var - 9)
    z = mean.repeat(3, 1) + (0.5 * (log_var - 9)).exp().repeat(3, 1) * Noise(0).normal(18, 40)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        found = prior.log_prob(z, encode)
    torch.testing.assert_close(found, mixture(mean, log_var - 9).log_prob(z.double()).float(), rtol=0, atol=1e-3)


def test_draws_of_a_vamp_prior_follow_its_density():
    mean = torch.tensor([[-7.0, 0.0], [0.0, 3.0], [7.0, -2.0]])
    log_var = torch.tensor([[0.0, -2.0], [-1.0, 1.0], [0.5, 0.0]])
    prior, encode = vamp(mean, log_var)
    n = 20_000
    z = prior.draw(Noise(0).normal(n, 2), encode)
    parts = Normal(mean, (0.5 * log_var).exp())
    for axis in range(2):
        ordered = z[:, axis].sort().values
        cdf = parts.cdf(ordered[:, None, None])[:, :, axis].mean(dim=1)
        assert (cdf - (torch.arange(n) + 0.5) / n).abs().max() < 1.63 / n**0.5  # Kolmogorov-Smirnov, one in a hundred
    nearest = (z[:, :1] - mean[:, 0]).abs().argmin(dim=1)
    for k in range(3):
        own = z[nearest == k]
        assert len(own) / n == pytest.approx(1 / 3, abs=0.02)
        torch.testing.assert_close(own.mean(dim=0), mean[k], atol=0.1, rtol=0)
        assert torch.corrcoef(own.T)[0, 1].abs() < 0.05  # the number that chose the component is used up


def test_a_draw_depends_on_its_own_noise_alone():
    prior, encode = vamp(*components(5, 3))
    eps = Noise(0).normal(20, 3)
    whole = prior.draw(eps, encode)
    assert torch.equal(whole, prior.draw(eps, encode))
    assert torch.equal(whole[7:9], prior.draw(eps[7:9], encode))


def test_draws_are_finite_in_the_tails():
    prior, encode = vamp(*components(5, 3))
    assert prior.draw(torch.tensor([[-8.0], [8.0], [0.0]]).expand(3, 3), encode).isfinite().all()


def test_the_learned_images_are_in_the_range_of_images_and_learn():
    prior = VampPrior((1, 2, 2), 3)
    torch.nn.init.normal_(prior.images, std=10)
    seen = []

    def encode(images):
        seen.append(images)
        return images.flatten(1), torch.zeros(3, 4)

    prior.log_prob(torch.zeros(2, 4), encode).sum().backward()
    assert seen[0].abs().max() <= 1
    assert prior.images.grad.abs().sum() > 0


def test_a_vamp_prior_of_nothing():
    with pytest.raises(InputError, match=r"prior\.components=0: expected 1 or more"):
        VampPrior((1, 2, 2), 0)


def test_a_vamp_prior_with_classes():
    with pytest.raises(InputError, match=r"no classes: set model\.conditional=false"):
        VampPrior((1, 2, 2), 3, num_classes=10)
