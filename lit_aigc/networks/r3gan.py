"""A modern pair of ConvNets without normalization, in the manner of R3GAN.

Huang et al., "The GAN is dead; long live the GAN! A modern baseline GAN", 2024: residual bottlenecks with grouped
convolutions, leaky ReLU, bilinear resampling, initialization after Fixup (Zhang et al., 2019), for the relativistic
loss with R1 and R2. As in `lit_aigc.networks.sngan`, smaller maps are wider. Most of the time is spent on the
image-sized map; with ``stride=2`` there is none, and a 4x4 convolution of stride 2 connects the image and the map of
half its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_aigc.errors import InputError, check
from lit_aigc.networks.layers import discriminator
from lit_aigc.networks.layers.conditioning import class_embedding, with_classes
from lit_aigc.networks.layers.minibatch import MinibatchStd
from lit_aigc.networks.layers.pyramid import doubling, halving, stages, upsample_bilinear, widths

SLOPE = 0.2


class Bottleneck(nn.Module):
    """``x + project(act(grouped(act(expand(x)))))``, with 1x1 convolutions around a grouped 3x3 one.

    It starts as the identity, since the last convolution starts at zero.

    Args:
        channels: Channels in and out.
        expansion: Channels inside, as a multiple.
        group_size: Channels that a 3x3 convolution mixes; 1: depthwise; 0: all.
    """

    def __init__(self, channels: int, expansion: int = 2, group_size: int = 16) -> None:
        super().__init__()
        inside = expansion * channels
        size = min(group_size, inside) or inside  # 0: one group of all channels
        if inside % size:
            raise InputError(
                f"group_size={group_size} doesn't divide expansion * channels = {inside} of one of the maps: choose "
                "channels that are a multiple of it, or group_size=0 for plain convolutions."
            )
        self.expand = nn.Conv2d(channels, inside, 1)
        self.mix = nn.Conv2d(inside, inside, 3, padding=1, groups=inside // size)
        self.project = nn.Conv2d(inside, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, channels, H, W)`` to the same shape."""
        h = F.leaky_relu_(self.expand(x), SLOPE)  # (N, expansion * channels, H, W)
        h = F.leaky_relu_(self.mix(h), SLOPE)
        return x + self.project(h)


def _initialize(network: nn.Module) -> None:
    """Initialize by Fixup for branches of three layers: the first two scaled by ``blocks^(-1/4)``, the last zero."""
    blocks = [module for module in network.modules() if isinstance(module, Bottleneck)]
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if isinstance(module, nn.ConvTranspose2d):
                _initialize_bilinear(module)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    # Without normalization the variance would grow with every block; the scale keeps it bounded.
    for block in blocks:
        for layer in (block.expand, block.mix):
            nn.init.kaiming_normal_(layer.weight, SLOPE, nonlinearity="leaky_relu")
            layer.weight.data.mul_(len(blocks) ** -0.25)
        nn.init.zeros_(block.project.weight)


def _initialize_bilinear(layer: nn.ConvTranspose2d) -> None:
    """Initialize a 4x4 kernel as a 1x1 convolution and bilinear upsampling, so that no checkerboard shows at first."""
    taps = torch.tensor([0.25, 0.75, 0.75, 0.25])
    each = torch.randn(layer.in_channels, layer.out_channels, 1, 1) * layer.in_channels**-0.5
    layer.weight.data.copy_(each * taps[:, None] * taps)


def _maps(
    shape: Sequence[int], channels: int, growth: int, widening: int, blocks: int | Sequence[int], stride: int
) -> tuple[int, list[int], list[int]]:
    """Return the size of the smallest map, and each map's width and number of blocks, those of the largest first.

    The last number of `blocks` is repeated for smaller maps.
    """
    numbers = [blocks] if isinstance(blocks, int) else list(blocks)
    check(
        ("stride", stride, stride in (1, 2), "1 (a map of the image's size) or 2 (none)"),
        ("blocks", blocks, min(numbers, default=-1) >= 0, "a number, or a list of them, the largest map's first"),
    )
    smallest, doublings = stages(shape)
    levels = doublings - stride + 2
    return smallest, widths(channels, levels, growth, widening), (numbers + [numbers[-1]] * levels)[:levels]


class Generator(nn.Module):
    """Map latents, concatenated with class embeddings, to images.

    Args:
        shape: ``(C, H, W)`` of the images: square, 4 or 7 times a power of two.
        num_classes: Number of classes, 0 for an unconditional network.
        latent_dim: Size of the latent.
        channels: Width of the largest map.
        growth: Factor on the width for each halving of the map.
        widening: Largest width, as a multiple of `channels`.
        blocks: Residual blocks on each map, or one number per map, the largest map's first.
        expansion: Width inside a block, as a multiple.
        group_size: Channels that a 3x3 convolution mixes; 1: depthwise; 0: all.
        stride: 1: the largest map has the image's size; 2: half of it.
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int = 0,
        latent_dim: int = 64,
        channels: int = 32,
        growth: int = 2,
        widening: int = 4,
        blocks: int | Sequence[int] = 2,
        expansion: int = 2,
        group_size: int = 16,
        stride: int = 1,
    ) -> None:
        super().__init__()
        smallest, *by_map = _maps(shape, channels, growth, widening, blocks, stride)
        width, number = (values[::-1] for values in by_map)  # the smallest map first
        self.latent_dim = latent_dim
        self.embedding = class_embedding(num_classes, latent_dim)
        self.start = (smallest, smallest, width[0])
        self.project = nn.Linear(latent_dim * (2 if num_classes else 1), width[0] * smallest**2)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Bottleneck(w, expansion, group_size) for _ in range(n)))
            for w, n in zip(width, number, strict=True)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) for a, b in pairwise(width))
        self.to_image = nn.Conv2d(channels, shape[0], 1) if stride == 1 else doubling(channels, shape[0])
        _initialize(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map ``z`` (N, latent_dim) and labels ``y`` (N,) to images (N, C, H, W) in [-1, 1]."""
        z = with_classes(z, self.embedding, y)
        # Features in the order (row, column, channel) are a channels-last map, without a copy.
        x = self.project(z).unflatten(1, self.start).permute(0, 3, 1, 2)  # (N, width, 4 or 7, 4 or 7)
        x = self.stages[0](x)
        for narrow, stage in zip(self.narrow, list(self.stages)[1:], strict=True):
            x = stage(upsample_bilinear(narrow(x)))
        return torch.tanh(self.to_image(x))


class Discriminator(discriminator.Discriminator):
    """Images to logits; classes by projection (Miyato and Koyama, 2018).

    Args:
        shape: ``(C, H, W)`` of the images: square, 4 or 7 times a power of two.
        num_classes: Number of classes, 0 for an unconditional network.
        channels: Width of the largest map.
        growth: Factor on the width for each halving of the map.
        widening: Largest width, as a multiple of `channels`.
        blocks: Residual blocks on each map, or one number per map, the largest map's first.
        expansion: Width inside a block, as a multiple.
        group_size: Channels that a 3x3 convolution mixes; 1: depthwise; 0: all.
        stride: 1: the largest map has the image's size; 2: half of it.
        minibatch_group: Images per group of the minibatch standard deviation; 0: no such statistic.
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int = 0,
        channels: int = 32,
        growth: int = 2,
        widening: int = 4,
        blocks: int | Sequence[int] = 2,
        expansion: int = 2,
        group_size: int = 16,
        stride: int = 1,
        minibatch_group: int = 0,
    ) -> None:
        super().__init__()
        smallest, width, number = _maps(shape, channels, growth, widening, blocks, stride)

        # From the image down: blocks on each map, then half the size and the next width.
        layers = [nn.Conv2d(shape[0], channels, 1) if stride == 1 else halving(shape[0], channels)]
        for level, (w, n) in enumerate(zip(width, number, strict=True)):
            layers += [Bottleneck(w, expansion, group_size) for _ in range(n)]
            if level + 1 < len(width):
                # Bilinear at half the size is the mean of 2x2 pixels.
                layers += [nn.AvgPool2d(2), nn.Conv2d(w, width[level + 1], 1, bias=False)]
        self.features = nn.Sequential(*layers)

        # The head: a learned weight per channel and position pools the smallest map.
        self.minibatch_std = MinibatchStd(minibatch_group) if minibatch_group else nn.Identity()
        last = width[-1] + bool(minibatch_group)
        self.pool = nn.Parameter(torch.randn(last, smallest, smallest) / smallest)
        self.logit = nn.Linear(last, 1)
        self.projection = discriminator.class_projection(num_classes, last)
        _initialize(self)

    def head(self, features: Tensor, y: Tensor | None = None) -> Tensor:
        """Map features (N, width, 4 or 7, 4 or 7) and labels (N,) to logits (N,)."""
        features = self.minibatch_std(features)
        # A depthwise convolution as large as the map.
        pooled = (features * self.pool.to(features.dtype)).sum(dim=(2, 3))  # (N, width)
        return super().head(pooled, y)
