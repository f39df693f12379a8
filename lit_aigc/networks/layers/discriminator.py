"""The base of all discriminators: logits of one batch, and of a real and a fake batch in one pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def class_projection(num_classes: int, width: int) -> nn.Embedding | None:
    """Make embeddings for `Discriminator.projection` that make no difference at first; None without classes."""
    if not num_classes:
        return None
    projection = nn.Embedding(num_classes, width)
    nn.init.zeros_(projection.weight)
    return projection


class Discriminator(nn.Module):
    """A map from images to logits in two parts, which a subclass defines.

    Attributes:
        features: ``features(x)`` maps images ``(N, C, H, W)`` to the last hidden features ``(N, ...)``, each image
            independently.
        logit: ``logit(features)`` maps features ``(N, width)`` to ``(N, 1)``.
        projection: Embeddings of the classes, ``projection(y)`` being ``(N, width)``; None without classes.
    """

    logit: nn.Module
    projection: nn.Module | None

    def head(self, features: Tensor, y: Tensor | None = None) -> Tensor:
        """Map features ``(N, width)`` and labels ``(N,)`` to logits ``(N,)``; classes by projection.

        A subclass may override it. Anything that depends on the whole batch, such as the minibatch standard deviation,
        belongs here.
        """
        logits = self.logit(features)[:, 0]
        if self.projection is not None:
            logits = logits + (self.projection(y) * features).sum(dim=1)
        return logits

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Map images (N, C, H, W) and labels (N,) to logits (N,)."""
        return self.head(self.features(x), y)

    def pair(self, real: Tensor, fake: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``forward(real, y)`` and ``forward(fake, y)``, by one pass over both, which is faster."""
        real_features, fake_features = self.pair_features(real, fake)
        return self.head(real_features, y), self.head(fake_features, y)

    def pair_features(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of real and of fake images, of which there are equally many."""
        return self.features(torch.cat([real, fake])).chunk(2)
