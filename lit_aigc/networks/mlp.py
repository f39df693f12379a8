"""Fully connected networks, as in the first GAN (Goodfellow et al., 2014) and the first VAE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lit_aigc.networks.latent import checked_latent_dim
from lit_aigc.networks.layers import discriminator
from lit_aigc.networks.layers.conditioning import class_embedding, with_classes
from lit_aigc.networks.likelihood import Likelihood


class Generator(nn.Module):
    """Map latents, concatenated with class embeddings, to images by fully connected layers.

    Args:
        shape: ``(C, H, W)`` of the images.
        num_classes: Number of classes, 0 for an unconditional network.
        latent_dim: Size of the latent.
        hidden: Widths of the hidden layers.
    """

    def __init__(
        self, shape: Sequence[int], num_classes: int = 0, latent_dim: int = 64, hidden: Sequence[int] = (256, 512, 1024)
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.latent_dim = latent_dim
        self.embedding = class_embedding(num_classes, latent_dim)
        widths = [latent_dim * (2 if num_classes else 1), *hidden]
        outputs = math.prod(self.shape)
        self.layers = nn.Sequential(*_hidden(widths, nn.LeakyReLU(0.2)), nn.Linear(widths[-1], outputs), nn.Tanh())

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map ``z`` (N, latent_dim) and labels ``y`` (N,) to images (N, C, H, W) in [-1, 1]."""
        z = with_classes(z, self.embedding, y)
        return self.layers(z).unflatten(1, self.shape)


class Discriminator(discriminator.Discriminator):
    """Map images to logits by fully connected layers, and classes by projection (Miyato and Koyama, 2018).

    Args:
        shape: ``(C, H, W)`` of the images.
        num_classes: Number of classes, 0 for an unconditional network.
        hidden: Widths of the hidden layers.
    """

    def __init__(self, shape: Sequence[int], num_classes: int = 0, hidden: Sequence[int] = (512, 256)) -> None:
        super().__init__()
        widths = [math.prod(shape), *hidden]
        self.features = nn.Sequential(nn.Flatten(), *_hidden(widths, nn.LeakyReLU(0.2)))
        self.logit = nn.Linear(widths[-1], 1)
        self.projection = discriminator.class_projection(num_classes, widths[-1])


class Encoder(nn.Module):
    """Map images, concatenated with class embeddings, to a normal distribution of latents.

    Args:
        shape: ``(C, H, W)`` of the images.
        num_classes: Number of classes, 0 for an unconditional network.
        latent_dim: Size of the latent.
        hidden: Widths of the hidden layers.

    Raises:
        InputError: If `latent_dim` is below 1.
    """

    def __init__(
        self, shape: Sequence[int], num_classes: int = 0, latent_dim: int = 20, hidden: Sequence[int] = (400,)
    ) -> None:
        super().__init__()
        self.latent_dim = checked_latent_dim(latent_dim)
        self.embedding = class_embedding(num_classes, latent_dim)
        self.layers = _layers([math.prod(shape) + latent_dim * bool(num_classes), *hidden], 2 * latent_dim)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map ``x`` (N, C, H, W) and labels ``y`` (N,) to mean and log-variance, (N, latent_dim) each."""
        return self.layers(with_classes(x.flatten(1), self.embedding, y)).chunk(2, dim=1)


class Decoder(nn.Module):
    """Map latents, concatenated with class embeddings, to parameters of a likelihood.

    Args:
        shape: ``(C, H, W)`` of the images.
        likelihood: Likelihood of images.
        num_classes: Number of classes, 0 for an unconditional network.
        latent_dim: Size of the latent.
        hidden: Widths of the hidden layers.

    Raises:
        InputError: If `latent_dim` is below 1.
    """

    def __init__(
        self,
        shape: Sequence[int],
        likelihood: Likelihood,
        num_classes: int = 0,
        latent_dim: int = 20,
        hidden: Sequence[int] = (400,),
    ) -> None:
        super().__init__()
        self.latent_dim = checked_latent_dim(latent_dim)
        self.likelihood = likelihood
        self.shape = (likelihood.maps(shape[0]), *shape[1:])
        self.embedding = class_embedding(num_classes, latent_dim)
        self.layers = _layers([latent_dim * (2 if num_classes else 1), *hidden], math.prod(self.shape))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map ``z`` (N, latent_dim) and labels ``y`` (N,) to parameters (N, maps, H, W)."""
        return self.layers(with_classes(z, self.embedding, y)).unflatten(1, self.shape)


def _layers(widths: Sequence[int], outputs: int) -> nn.Sequential:
    """Make hidden layers with ReLU and a linear output layer."""
    return nn.Sequential(*_hidden(widths, nn.ReLU()), nn.Linear(widths[-1], outputs))


def _hidden(widths: Sequence[int], activation: nn.Module) -> list[nn.Module]:
    """Make linear layers between consecutive widths, each followed by the same activation."""
    return [layer for inputs, outputs in pairwise(widths) for layer in (nn.Linear(inputs, outputs), activation)]
