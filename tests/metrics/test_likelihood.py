"""The test likelihood: against integration and against figures that are known, whatever the batches."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.metrics.likelihood import evaluate_likelihood
from lit_aigc.modules.vae import VAE
from lit_aigc.networks.latent import SingleLevel
from lit_aigc.networks.likelihood import Bernoulli, Gaussian, Likelihood
from lit_aigc.networks.mlp import Decoder, Encoder
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, DataSpec

SHAPE = (1, 4, 4)
SPEC = DataSpec("image", SHAPE, num_classes=3, class_names=("a", "b", "c"))
IMAGES = (Noise(1).uniform(13, *SHAPE) * 256).to(torch.uint8)


def batches(size: int) -> list[Batch]:
    labels = torch.arange(len(IMAGES)) % 3
    return [Batch(IMAGES[i : i + size], labels[i : i + size], i) for i in range(0, len(IMAGES), size)]


def vae(likelihood: Likelihood, latent_dim: int = 1, conditional: bool = False) -> VAE:
    torch.manual_seed(0)
    options = {"num_classes": 3 if conditional else 0, "latent_dim": latent_dim, "hidden": [8]}
    network = SingleLevel(Encoder(SHAPE, **options), Decoder(SHAPE, likelihood, **options))
    with torch.no_grad():
        network.decoder.layers[0].weight.mul_(4)  # else the latent hardly matters
    return VAE(network, SPEC, conditional)


@torch.no_grad()
def integrated(module: VAE, x: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
    """Exact log p(x) ``(N,)`` where there is one latent: the integral over it, by the trapezoidal rule."""
    z = torch.linspace(-8, 8, 801)[:, None]
    log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(z[:, 0]).double()
    found = []
    for i in range(len(x)):
        y = None if labels is None else labels[i].expand(len(z))
        log_px = module.network.likelihood.log_prob(module.network.decode(z, y), x[i : i + 1].expand(len(z), *SHAPE))
        found.append(torch.logsumexp(log_prior + log_px.double(), 0) + math.log(16 / 800))
    return torch.stack(found)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian()])
def test_it_is_the_integral_over_the_latent(likelihood, conditional):
    module = vae(likelihood, conditional=conditional)
    exact = integrated(module, IMAGES / 127.5 - 1, torch.arange(len(IMAGES)) % 3 if conditional else None)
    values, protocol = evaluate_likelihood(module, batches(5), 1000)
    assert values["nll"] == pytest.approx(-float(exact.mean()), abs=0.02)
    assert values["nll_standard_error"] == pytest.approx(float(exact.std()) / math.sqrt(13), abs=0.02)
    assert -values["elbo"] > values["nll"] + 0.05  # or the two could not be told apart
    assert "nll_bits_per_dim" not in values  # grey levels and densities have no bits
    assert (protocol["images"], protocol["samples"], protocol["binarisation"]) == (13, 1000, "none")


def test_more_samples_come_closer_from_above():
    module = vae(Gaussian())
    few, some, many = (evaluate_likelihood(module, batches(13), k)[0] for k in (1, 10, 300))
    assert few["nll"] == pytest.approx(-few["elbo"])
    assert few["elbo"] == some["elbo"] == many["elbo"]
    assert few["nll"] > some["nll"] > many["nll"]


@pytest.mark.parametrize("size", [1, 5])
def test_the_batch_size_makes_no_difference(size):
    module = vae(Bernoulli(binarize=True), latent_dim=3)
    whole, _ = evaluate_likelihood(module, batches(13), 300)
    parts, _ = evaluate_likelihood(module, batches(size), 300)
    assert parts == pytest.approx(whole, abs=1e-5)


def test_the_seed_is_of_latents_and_binarisation():
    module = vae(Bernoulli(binarize=True))
    one, two = (evaluate_likelihood(module, batches(13), 3, seed=seed) for seed in (0, 1))
    assert one == evaluate_likelihood(module, batches(13), 3, seed=0)
    assert abs(one[0]["nll"] - two[0]["nll"]) > 1e-3
    assert two[1]["binarisation"] == "random, seed 1"
    assert one[0]["nll_bits_per_dim"] == pytest.approx(one[0]["nll"] / (16 * math.log(2)))


class Known:
    """A module whose likelihoods are given."""

    device = torch.device("cpu")
    spec = SPEC
    network = SimpleNamespace(likelihood=Bernoulli(binarize=True))

    def __init__(self, *estimates: float):
        self.estimates = torch.tensor(estimates, dtype=torch.float64)

    def observed(self, images, noise):
        assert (float(images.min()), float(images.max())) == (-1.0, 1.0)
        return images

    def log_likelihood(self, images, labels, *, samples, noise):
        return torch.stack([self.estimates[noise.start :][: len(images)]] * 2, dim=1) - torch.tensor([0.0, 0.5])


ENDS = torch.tensor([0, 255], dtype=torch.uint8).repeat(2, 1, 4, 2)


def test_the_standard_error_is_over_the_images():
    values, protocol = evaluate_likelihood(Known(-1, -2, -3, -6), [Batch(ENDS, None, 0), Batch(ENDS, None, 2)], 7)
    assert values["nll"] == 3
    assert values["elbo"] == -3.5
    assert values["nll_standard_error"] == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3) / 2)
    assert values["nll_bits_per_dim"] == pytest.approx(3 / (16 * math.log(2)))
    assert protocol["bound"].startswith("upper bound")


def test_what_is_no_number_is_told():
    with pytest.raises(InputError, match="images among 2 to 3 is not finite"):
        evaluate_likelihood(Known(-1, -2, math.nan, -3), [Batch(ENDS, None, 0), Batch(ENDS, None, 2)], 1)
    with pytest.raises(InputError, match="two images or more, not 0"):
        evaluate_likelihood(Known(), [], 1)
