"""The hierarchy of latents: units, prior, posterior, and what may be asked for."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from lit_aigc.errors import InputError
from lit_aigc.networks.hierarchical import Group, Hierarchical
from lit_aigc.networks.likelihood import Bernoulli


def shaken(network):
    """The network with no weight left at zero."""
    torch.manual_seed(0)
    for p in network.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return network


def hierarchical(shape=(1, 28, 28), **options):
    return Hierarchical(shape, Bernoulli(), **{"latent_dim": 5, "channels": 4, "map_latents": [3, 2]} | options)


def test_a_group_in_the_units_of_its_prior_is_one_in_those_of_the_map():
    """KL and log ratio of shifts and scales of a prior are those of the two normal distributions themselves."""
    group = shaken(Group(6, 3)).double()
    x, features = torch.randn(4, 6, 5, 5).double(), torch.randn(4, 6, 5, 5).double()
    eps = torch.randn(4, 3, 5, 5).double()
    following, drawn = group.infer(x, features, eps)

    def normal(mean_and_log_var):
        mean, log_var = mean_and_log_var.chunk(2, dim=1)
        return Normal(mean.double(), (0.5 * 6 * (log_var / 6).tanh()).exp().double())

    prior = normal(group.prior(x).float())
    shift = normal(group.posterior(group.join(torch.cat([x, features], dim=1))).float())
    posterior = Normal(prior.mean + prior.stddev * shift.mean, prior.stddev * shift.stddev)
    z = posterior.mean + posterior.stddev * eps
    log_ratio = (posterior.log_prob(z) - prior.log_prob(z)).flatten(1).sum(dim=1)
    torch.testing.assert_close(drawn.log_ratio.double(), log_ratio, rtol=1e-4, atol=1e-4)
    kl = kl_divergence(posterior, prior).flatten(1).sum(dim=1)
    torch.testing.assert_close(drawn.kl.double(), kl, rtol=1e-4, atol=1e-4)
    expected = group.block(x + group.inject(z))
    torch.testing.assert_close(following, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(group.generate(x, drawn.z), following)


def test_draws_of_the_prior_are_standard_normal_numbers():
    network = hierarchical()
    eps = torch.randn(3, network.latent_dim)
    assert torch.equal(network.draw(eps), eps)


@pytest.mark.parametrize(
    ("shape", "map_latents", "groups", "sizes"),
    [
        ((1, 28, 28), [3, 2], 1, [3 * 7**2, 2 * 14**2]),
        ((1, 28, 28), [3, 2], 2, [3 * 7**2, 3 * 7**2, 2 * 14**2, 2 * 14**2]),
        ((3, 32, 32), [4, 3, 2], 1, [4 * 4**2, 3 * 8**2, 2 * 16**2]),
        ((1, 28, 28), 3, 1, [3 * 7**2, 1 * 14**2]),
        ((3, 64, 64), 4, 1, [4 * 4**2, 2 * 8**2, 16**2, 32**2]),
        ((3, 64, 64), [4, 3, 2, 1], 1, [4 * 4**2, 3 * 8**2, 2 * 16**2, 32**2]),
    ],
)
def test_a_vector_and_then_maps_from_coarse_to_fine(shape, map_latents, groups, sizes):
    network = hierarchical(shape, map_latents=map_latents, groups=groups)
    assert network.latent_dim == 5 + sum(sizes)
    drawn = network(torch.rand(2, *shape), torch.randn(2, 1, network.latent_dim))
    assert drawn.kl.shape == (2, 1 + len(sizes))
    assert drawn.parameters.shape == (2, *shape)


def test_at_first_the_maps_cost_nothing():
    """Their posteriors start as their priors; the vector's does not."""
    network = hierarchical(groups=2)
    drawn = network(torch.rand(3, 1, 28, 28), torch.randn(3, 1, network.latent_dim))
    assert (drawn.kl[:, 0] > 0).all()
    assert (drawn.kl[:, 1:] == 0).all()


def test_each_group_depends_on_those_before():
    """The posterior of a later group moves with the noise of an earlier one, and never the other way round."""
    network = shaken(hierarchical())
    x, eps = torch.rand(1, 1, 28, 28), torch.randn(2, 1, network.latent_dim)
    eps[1, :, 5:] = eps[0, :, 5:]  # the vector differs
    one, other = (network(x, part[None]).kl[0] for part in eps)
    assert one[0] == other[0]
    assert (one[1:] != other[1:]).all()
    eps[1] = eps[0]
    eps[1, :, -1] += 1  # the last number differs
    one, other = (network(x, part[None]) for part in eps)
    assert torch.equal(one.kl, other.kl)
    assert not torch.equal(one.parameters, other.parameters)


def test_variances_stay_within_bounds():
    network = hierarchical()
    heads = [head for (group,) in network.groups for head in (group.prior, group.posterior)]
    for last in (network.top[-1], *(head[-1] for head in heads)):
        torch.nn.init.constant_(last.bias[len(last.bias) // 2 :], 1e4)
    drawn = network(torch.rand(2, 1, 28, 28), torch.randn(2, 1, network.latent_dim))
    assert (drawn.kl < 1e6).all()
    assert drawn.log_ratio.isfinite().all()
    assert drawn.parameters.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"map_latents": [3]}, r"map_latents=\[3\].*28x28 have maps of 2 sizes; expected 2 numbers"),
        ({"map_latents": 0}, r"map_latents=\[0, 0\].*1 or more"),
        ({"map_latents": []}, r"map_latents=\[\].*expected 2 numbers"),
        ({"map_latents": [3, 2, 1]}, r"map_latents=\[3, 2, 1\].*expected 2 numbers"),
        ({"map_latents": [3, 0]}, r"map_latents=\[3, 0\].*1 or more"),
        ({"groups": 0}, "groups=0.*1 or more"),
        ({"blocks": -1}, "blocks=-1.*blocks of 0 or more"),
        ({"channels": 0}, "channels=0"),
        ({"latent_dim": 0}, "latent_dim=0: expected 1 or more"),
        ({"shape": (1, 30, 30)}, "images of 30x30"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        hierarchical(**options)
