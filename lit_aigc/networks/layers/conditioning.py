"""Layers that a class label conditions."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConditionalBatchNorm2d(nn.Module):
    """Batch normalization with a gain and a bias for each class.

    Dumoulin et al., "A learned representation for artistic style", 2017, equation 5; in GANs since Miyato and Koyama,
    "cGANs with projection discriminator", 2018. All classes start with gain 1 and bias 0, so that a fresh generator
    tells them apart only as far as training makes it. Without classes it is `nn.BatchNorm2d`.

    Args:
        num_features: Channels of the maps.
        num_classes: Number of classes, 0 for a layer without them.
    """

    def __init__(self, num_features: int, num_classes: int = 0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(num_features, affine=not num_classes)
        self.gain = nn.Embedding(num_classes, num_features) if num_classes else None
        self.bias = nn.Embedding(num_classes, num_features) if num_classes else None
        if num_classes:
            nn.init.ones_(self.gain.weight)
            nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Maps ``(N, C, H, W)`` and labels ``(N,)`` to maps of the same shape; labels are not looked at without
        classes.
        """
        x = self.norm(x)
        if self.gain is None:
            return x
        gain = self.gain(y).to(x.dtype)[:, :, None, None]  # (N, C, 1, 1)
        bias = self.bias(y).to(x.dtype)[:, :, None, None]
        return torch.addcmul(bias, x, gain)
