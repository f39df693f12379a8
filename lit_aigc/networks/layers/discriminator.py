"""What all discriminators share: logits of one batch, and of a real and a fake batch in one pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Discriminator(nn.Module):
    """Images to logits in two parts, given by a subclass.

    Attributes:
        features: ``features(x)``: images ``(N, C, H, W)`` to the last hidden features ``(N, ...)``, each image on its
            own.
        head: ``head(features, y)``: features and labels ``(N,)`` or None to logits ``(N,)``. What looks at the whole
            batch, such as the minibatch standard deviation, belongs here.
    """

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) and labels (N,) to logits (N,)."""
        return self.head(self.features(x), y)

    def pair(self, real: Tensor, fake: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What ``forward(real, y)`` and then ``forward(fake, y)`` give, with one pass over both, which is faster."""
        real_features, fake_features = self.pair_features(real, fake)
        return self.head(real_features, y), self.head(fake_features, y)

    def pair_features(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """The features of real and of fake images of the same number."""
        real_features, fake_features = self.features(torch.cat([real, fake])).chunk(2)
        return real_features, fake_features
