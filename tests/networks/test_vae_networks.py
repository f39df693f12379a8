"""Encoders and decoders of one-level VAEs, fully connected and convolutional."""

import pytest
import torch

from lit_aigc.errors import InputError
from lit_aigc.networks import conv_vae, mlp
from lit_aigc.networks.likelihood import Bernoulli, DiscretizedLogisticMixture, Gaussian

SMALL = {mlp: {"hidden": [16]}, conv_vae: {"channels": 4, "hidden": 16}}
kinds = pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.__name__.rpartition(".")[2])


@kinds
@pytest.mark.parametrize("classes", [0, 4])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64)])
@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian("pixel"), DiscretizedLogisticMixture(2)])
def test_shapes(kind, classes, shape, likelihood):
    encoder = kind.Encoder(shape, classes, latent_dim=6, **SMALL[kind])
    decoder = kind.Decoder(shape, likelihood, classes, latent_dim=6, **SMALL[kind])
    y = torch.tensor([0, 1, 3]) if classes else None
    x = torch.rand(3, *shape)
    mean, log_var = encoder(x, y)
    assert mean.shape == log_var.shape == (3, 6)
    parameters = decoder(mean, y)
    assert parameters.shape == (3, likelihood.maps(shape[0]), *shape[1:])
    assert likelihood.mean(parameters).shape == x.shape


@kinds
def test_each_image_is_on_its_own(kind):
    encoder = kind.Encoder((1, 28, 28), **SMALL[kind])
    decoder = kind.Decoder((1, 28, 28), Bernoulli(), **SMALL[kind])
    x = torch.rand(5, 1, 28, 28)
    mean, _ = encoder(x)
    torch.testing.assert_close(encoder(x[1:2])[0], mean[1:2])
    torch.testing.assert_close(decoder(mean)[3:], decoder(mean[3:]))


def test_the_textbook_size():
    """784-400-20 and back (Kingma and Welling, 2014)."""
    encoder, decoder = mlp.Encoder((1, 28, 28)), mlp.Decoder((1, 28, 28), Bernoulli())
    assert sum(p.numel() for p in encoder.parameters()) == 784 * 400 + 400 + 400 * 40 + 40
    assert sum(p.numel() for p in decoder.parameters()) == 20 * 400 + 400 + 400 * 784 + 784


@pytest.mark.parametrize("size", [27, 8, 36])
def test_a_size_that_convolutions_cannot_do(size):
    for part in (lambda s: conv_vae.Encoder(s), lambda s: conv_vae.Decoder(s, Bernoulli())):
        with pytest.raises(InputError, match=f"{size}x{size}.*28, 32 or 64"):
            part((1, size, size))
