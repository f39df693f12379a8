"""Convolutional encoder and decoder of a VAE with one vector of latents."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_aigc.networks.latent import checked_latent_dim
from lit_aigc.networks.layers.conditioning import class_embedding, with_classes
from lit_aigc.networks.layers.pyramid import doubling, halving, stages
from lit_aigc.networks.likelihood import Likelihood


class Encoder(nn.Module):
    """Strided convolutions, then a hidden layer; classes enter the hidden layer.

    Args:
        shape: ``(C, H, W)`` of the images.
        num_classes: Number of classes, 0 for an unconditional network.
        latent_dim: Size of the latent.
        channels: Width of the first map; each smaller map is twice as wide.
        hidden: Width of the hidden layer.

    Raises:
        InputError: If the size of the images isn't supported, or `latent_dim` is below 1.
    """

    def __init__(
        self, shape: Sequence[int], num_classes: int = 0, latent_dim: int = 32, channels: int = 32, hidden: int = 256
    ) -> None:
        super().__init__()
        self.latent_dim = checked_latent_dim(latent_dim)
        smallest, doublings = stages(shape)
        widths = [shape[0], *(channels << level for level in range(doublings))]
        self.layers = nn.Sequential(*(layer for a, b in pairwise(widths) for layer in (halving(a, b), nn.SiLU())))
        self.embedding = class_embedding(num_classes, latent_dim)
        inputs = widths[-1] * smallest**2 + latent_dim * bool(num_classes)
        self.head = nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latent_dim))

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map ``x`` (N, C, H, W) and labels ``y`` (N,) to mean and log-variance, (N, latent_dim) each."""
        return self.head(with_classes(self.layers(x).flatten(1), self.embedding, y)).chunk(2, dim=1)


class Decoder(nn.Module):
    """A hidden layer, then transposed convolutions.

    Args:
        shape: ``(C, H, W)`` of the images.
        likelihood: Likelihood of images.
        num_classes: Number of classes, 0 for an unconditional network.
        latent_dim: Size of the latent.
        channels: Width of the last hidden map; each smaller map is twice as wide.
        hidden: Width of the hidden layer.

    Raises:
        InputError: If the size of the images isn't supported, or `latent_dim` is below 1.
    """

    def __init__(
        self,
        shape: Sequence[int],
        likelihood: Likelihood,
        num_classes: int = 0,
        latent_dim: int = 32,
        channels: int = 32,
        hidden: int = 256,
    ) -> None:
        super().__init__()
        self.latent_dim = checked_latent_dim(latent_dim)
        self.likelihood = likelihood
        smallest, doublings = stages(shape)
        widths = [channels << level for level in reversed(range(doublings))]  # the smallest map first
        self.start = (widths[0], smallest, smallest)
        self.embedding = class_embedding(num_classes, latent_dim)
        self.project = nn.Sequential(
            nn.Linear(latent_dim * (2 if num_classes else 1), hidden),
            nn.SiLU(),
            nn.Linear(hidden, widths[0] * smallest**2),
            nn.SiLU(),
        )
        hidden_layers = (layer for a, b in pairwise(widths) for layer in (doubling(a, b), nn.SiLU()))
        self.layers = nn.Sequential(*hidden_layers, doubling(channels, likelihood.maps(shape[0])))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map ``z`` (N, latent_dim) and labels ``y`` (N,) to parameters (N, maps, H, W)."""
        x = self.project(with_classes(z, self.embedding, y)).unflatten(1, self.start)
        return self.layers(x.contiguous(memory_format=torch.channels_last))
