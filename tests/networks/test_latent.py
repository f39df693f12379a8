"""Every network with latent variables keeps to the contract of `LatentModel`."""

import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.networks import conv_vae, mlp
from lit_aigc.networks.hierarchical import Hierarchical
from lit_aigc.networks.latent import SingleLevel
from lit_aigc.networks.likelihood import Bernoulli, DiscretizedLogisticMixture, Gaussian
from lit_aigc.networks.prior import VampPrior

SHAPE = (3, 28, 28)
LIKELIHOODS = {"bernoulli": Bernoulli, "gaussian": lambda: Gaussian("pixel"), "logistics": DiscretizedLogisticMixture}


def single_level(kind, likelihood, classes, prior=None, **options):
    encoder = kind.Encoder(SHAPE, classes, latent_dim=5, **options)
    return SingleLevel(encoder, kind.Decoder(SHAPE, likelihood, classes, latent_dim=5, **options), prior)


NETWORKS = {
    "mlp": lambda likelihood, classes: single_level(mlp, likelihood, classes, hidden=[16]),
    "conv_vae": lambda likelihood, classes: single_level(conv_vae, likelihood, classes, channels=4, hidden=16),
    "vamp": lambda likelihood, classes: single_level(mlp, likelihood, 0, VampPrior(SHAPE, 6), hidden=[16]),
    "hierarchical": lambda likelihood, classes: Hierarchical(
        SHAPE, likelihood, classes, latent_dim=5, channels=4, map_latents=[3, 2], groups=2
    ),
}


def make(name, likelihood="bernoulli", classes=0):
    """A network whose every weight matters: some start at zero."""
    torch.manual_seed(0)
    network = NETWORKS[name](LIKELIHOODS[likelihood](), classes).eval()
    for p in network.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return network


def given(network, classes, n=3, k=1):
    x = torch.rand(n, *SHAPE) * 2 - 1
    return x, torch.randn(n, k, network.latent_dim), torch.arange(n) % classes if classes else None


networks = pytest.mark.parametrize("name", NETWORKS)
with_and_without_classes = pytest.mark.parametrize("classes", [0, 3])


@networks
@with_and_without_classes
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_shapes(name, classes, likelihood):
    network = make(name, likelihood, classes)
    x, eps, y = given(network, classes, k=2)
    drawn = network(x, eps, y)
    assert drawn.parameters.shape == (6, network.likelihood.maps(3), 28, 28)
    assert drawn.z.shape == (6, network.latent_dim)
    assert drawn.kl.shape[0] == 6
    assert drawn.log_ratio.shape == (6,)
    assert network.likelihood.log_prob(drawn.parameters, x.repeat_interleave(2, dim=0)).isfinite().all()


@networks
@with_and_without_classes
def test_decoding_inferred_latents_gives_the_same_parameters(name, classes):
    network = make(name, classes=classes)
    x, eps, y = given(network, classes)
    drawn = network.infer(network.encode(x, y), eps[:, 0], y)
    torch.testing.assert_close(network.decode(drawn.z, y), drawn.parameters)


@networks
@with_and_without_classes
def test_k_draws_are_k_inferences(name, classes):
    network = make(name, classes=classes)
    x, eps, y = given(network, classes, k=3)
    drawn = network(x, eps, y)
    for k in range(3):
        alone = network.infer(network.encode(x, y), eps[:, k], y)
        for together, expected in zip(drawn, alone, strict=True):
            torch.testing.assert_close(together.unflatten(0, (3, 3))[:, k], expected, rtol=1e-4, atol=1e-4)


@networks
@with_and_without_classes
def test_the_kl_is_the_expected_log_ratio(name, classes):
    network = make(name, classes=classes)
    x, eps, y = given(network, classes, n=1, k=2000)
    with torch.no_grad():
        drawn = network(x, eps, y)
    difference = drawn.kl.sum(dim=1) - drawn.log_ratio
    assert difference.mean().abs() <= 4 * difference.std() / 2000**0.5
    assert drawn.log_ratio.mean() > 0.01


@networks
@with_and_without_classes
def test_classes_are_heard(name, classes):
    network = make(name, classes=classes)
    if network_is_unconditional := name == "vamp" or not classes:
        assert all("embedding" not in key for key in network.state_dict())
    x, eps, _ = given(network, classes)
    one, other = (network(x, eps, torch.full((3,), label) if classes else None) for label in (0, 2))
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b) == network_is_unconditional
    decoded = [network.decode(eps[:, 0], torch.full((3,), label) if classes else None) for label in (0, 2)]
    assert torch.equal(*decoded) == network_is_unconditional


@networks
def test_draws_are_made_by_decode_alone(name):
    """Latents of the prior have the shape of inferred ones, each from its own noise."""
    network = make(name)
    eps = torch.randn(4, network.latent_dim)
    z = network.draw(eps)
    assert z.shape == eps.shape
    assert torch.equal(network.draw(eps[1:3]), z[1:3])
    assert network.decode(z).shape == (4, 3, 28, 28)


@networks
@with_and_without_classes
def test_every_weight_has_a_gradient(name, classes):
    network = make(name, "gaussian", classes).train()
    x, eps, y = given(network, classes, k=2)
    drawn = network(x, eps, y)
    (drawn.log_ratio - network.likelihood.log_prob(drawn.parameters, x.repeat_interleave(2, dim=0))).sum().backward()
    without = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


@networks
def test_half_precision_leaves_the_terms_of_the_bound_in_full(name):
    network = make(name)
    x, eps, _ = given(network, 0)
    full = network(x, eps)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(x, eps)
    assert half.kl.dtype == half.log_ratio.dtype == half.z.dtype == torch.float32
    torch.testing.assert_close(half.log_ratio, full.log_ratio, rtol=0.05, atol=0.3)


def test_encoder_and_decoder_must_agree():
    encoder, decoder = mlp.Encoder(SHAPE, latent_dim=5), mlp.Decoder(SHAPE, Bernoulli(), latent_dim=6)
    with pytest.raises(InputError, match=r"encoder\.latent_dim=5: .*decoder\.latent_dim=6"):
        SingleLevel(encoder, decoder)


@pytest.mark.parametrize("latent_dim", [0, -3])
@pytest.mark.parametrize("kind", [mlp, conv_vae])
def test_a_latent_of_nothing(kind, latent_dim):
    with pytest.raises(InputError, match=f"latent_dim={latent_dim}: expected 1 or more"):
        kind.Encoder(SHAPE, latent_dim=latent_dim)
    with pytest.raises(InputError, match=f"latent_dim={latent_dim}: expected 1 or more"):
        kind.Decoder(SHAPE, Bernoulli(), latent_dim=latent_dim)
