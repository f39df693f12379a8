"""Ways in which a class label enters a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConditionalBatchNorm2d(nn.Module):
    """Batch normalization with a gain and a bias for each class.

    Dumoulin et al., "A learned representation for artistic style", 2017, equation 5; in GANs since Miyato and Koyama,
    "cGANs with projection discriminator", 2018. All classes start with gain 1 and bias 0, so that an untrained
    generator treats them alike. Without classes it is `nn.BatchNorm2d`.

    Args:
        num_features: Channels of the maps.
        num_classes: Number of classes, 0 for plain batch normalization.
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
        """Normalize ``x`` (N, C, H, W), given labels ``y`` (N,), which are ignored without classes."""
        x = self.norm(x)
        if self.gain is None:
            return x
        gain = self.gain(y).to(x.dtype)[:, :, None, None]  # (N, C, 1, 1)
        bias = self.bias(y).to(x.dtype)[:, :, None, None]
        return torch.addcmul(bias, x, gain)


def class_embedding(num_classes: int, dim: int) -> nn.Embedding | None:
    """Make class embeddings of norm about 1, like a one-hot code, or None without classes.

    Next to a latent of norm ``sqrt(dim)`` such a class doesn't drown the latent. A generator that starts with larger
    class embeddings learns to ignore the latent.
    """
    if not num_classes:
        return None
    embedding = nn.Embedding(num_classes, dim)
    nn.init.normal_(embedding.weight, 0.0, dim**-0.5)
    return embedding


def with_classes(z: Tensor, embedding: nn.Embedding | None, y: Tensor | None) -> Tensor:
    """Concatenate latents ``(N, d)`` with class embeddings ``(N, d')`` if there are classes."""
    return z if embedding is None else torch.cat([z, embedding(y)], dim=1)
