"""Self-attention GAN (Zhang et al., "Self-attention generative adversarial networks", 2019) on the SNGAN's blocks.

Both networks are spectrally normalized and attend to all positions of the map of 14 or 16 px.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_aigc.networks import sngan
from lit_aigc.networks.layers.spectral import spectral_norm


class SelfAttention(nn.Module):
    """``x + gamma * attention(x)``, where gamma starts at 0 (Zhang et al., 2019, section 3).

    The scores are the paper's product of queries and keys, without a scale: the spectral norm bounds them. Keys and
    values are max-pooled to half the map's size, as in BigGAN (Brock et al., 2019), which makes attention four times
    cheaper. The products are spelled out because gradient penalties differentiate them twice, which torch's fused
    attention can't.

    Args:
        channels: Channels of the map; queries and keys have an eighth, values a half.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner, values = max(channels // 8, 1), max(channels // 2, 1)
        self.query = spectral_norm(nn.Conv2d(channels, inner, 1, bias=False))
        self.key = spectral_norm(nn.Conv2d(channels, inner, 1, bias=False))
        self.value = spectral_norm(nn.Conv2d(channels, values, 1, bias=False))
        self.out = spectral_norm(nn.Conv2d(values, channels, 1, bias=False))
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape; H and W are even. Labels are ignored."""
        query = self.query(x).flatten(2).transpose(1, 2)  # (N, HW, C/8)
        key = F.max_pool2d(self.key(x), 2).flatten(2)  # (N, C/8, HW/4)
        value = F.max_pool2d(self.value(x), 2).flatten(2).transpose(1, 2)  # (N, HW/4, C/2)
        weights = torch.bmm(query, key).softmax(dim=2, dtype=torch.float32)  # (N, HW, HW/4)
        h = torch.bmm(weights.to(value.dtype), value)  # (N, HW, C/2)
        h = self.out(h.transpose(1, 2).unflatten(2, x.shape[2:]))  # (N, C, H, W)
        return x + self.gamma.to(x.dtype) * h


def _attention_size(size: int) -> int:
    """Return the size of the largest map of at most 16 px, for images of `size` px."""
    while size > 16:
        size //= 2
    return size


class Generator(sngan.Generator):
    """The SNGAN's generator with spectral normalization, and self-attention on the map of 14 or 16 px.

    Args:
        shape: ``(C, H, W)`` of the images: square, 4 or 7 times a power of two.
        num_classes: Number of classes, 0 for an unconditional network.
        latent_dim: Size of the latent.
        channels: Width of the image-sized map.
        growth: Factor on the width for each halving of the map.
        widening: Largest width, as a multiple of `channels`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int = 0,
        latent_dim: int = 128,
        channels: int = 32,
        growth: int = 2,
        widening: int = 4,
    ) -> None:
        super().__init__(shape, num_classes, latent_dim, channels, growth, widening, spectral=True)
        after = (_attention_size(shape[1]) // self.start[0]).bit_length() - 1  # doublings up to that map
        self.blocks.insert(after, SelfAttention(self.blocks[after - 1].second.out_channels))


class Discriminator(sngan.Discriminator):
    """The SNGAN's discriminator with self-attention on the map of 14 or 16 px.

    Args:
        shape: ``(C, H, W)`` of the images: square, 4 or 7 times a power of two.
        num_classes: Number of classes, 0 for an unconditional network.
        channels: Width of the image-sized map, inside the first block.
        growth: Factor on the width for each further block.
        widening: Largest width, as a multiple of `channels`.
        flat_blocks: Blocks that keep the size, at 7 or 8 px.
    """

    def _add_layers(self, size: int) -> None:
        after = (size // _attention_size(size)).bit_length() - 1  # halvings down to that map
        self.blocks.insert(after, SelfAttention(self.blocks[after - 1].second.out_channels))
