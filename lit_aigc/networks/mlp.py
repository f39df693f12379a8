"""Fully connected GAN networks, in the manner of the first GAN (Goodfellow et al., 2014)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_aigc.networks import discriminator
from lit_aigc.networks.dcgan import class_embedding


class Generator(nn.Module):
    """Latents, and class embeddings beside them, to images by fully connected layers.

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
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], math.prod(self.shape)), nn.Tanh())

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """``z`` (N, latent_dim) and labels ``y`` (N,) to images (N, C, H, W) in [-1, 1]."""
        if self.embedding is not None:
            z = torch.cat([z, self.embedding(y)], dim=1)
        return self.layers(z).unflatten(1, self.shape)


class Discriminator(discriminator.Discriminator):
    """Images to logits by fully connected layers; classes by projection (Miyato and Koyama, 2018).

    Args:
        shape: ``(C, H, W)`` of the images.
        num_classes: Number of classes, 0 for an unconditional network.
        hidden: Widths of the hidden layers.
    """

    def __init__(self, shape: Sequence[int], num_classes: int = 0, hidden: Sequence[int] = (512, 256)) -> None:
        super().__init__()
        widths = [math.prod(shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers)
        self.logit = nn.Linear(widths[-1], 1)
        self.projection = nn.Embedding(num_classes, widths[-1]) if num_classes else None
        if self.projection is not None:
            nn.init.zeros_(self.projection.weight)

    def head(self, features: Tensor, y: Tensor | None = None) -> Tensor:
        """Features (N, width) and labels (N,) to logits (N,)."""
        logits = self.logit(features)[:, 0]
        if self.projection is not None:
            logits = logits + (self.projection(y) * features).sum(dim=1)
        return logits
