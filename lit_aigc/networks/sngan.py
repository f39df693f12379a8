"""Residual networks with spectral normalization (Miyato et al., "Spectral normalization for GANs", 2018).

The blocks are the paper's (appendix B.4), except that each upsampling or pooling is merged with the adjacent 3x3
convolution (`layers.pyramid`), which is equivalent and less than half the work. The paper's networks for 32 px
have the same width everywhere (``growth=1``); here each halving of the map multiplies the width by `growth`, up to
`widening` times the width of the image-sized map: most of the work is on small maps, where it is cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_aigc.networks.layers import discriminator
from lit_aigc.networks.layers.conditioning import ConditionalBatchNorm2d
from lit_aigc.networks.layers.pyramid import DownsampledConv2d, UpsampledConv2d, stages, upsample_nearest, widths
from lit_aigc.networks.layers.spectral import spectral_norm


def _initialize(network: nn.Module) -> None:
    """Initialize by Xavier's uniform rule, with gain sqrt(2) inside the blocks and 1 elsewhere."""
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            inside = name.endswith((".first", ".second"))
            nn.init.xavier_uniform_(module.weight, gain=2**0.5 if inside else 1.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _normalize(network: nn.Module) -> None:
    """Normalize all convolutions and linear layers spectrally, but not the gains and biases of BatchNorm."""
    for module in list(network.modules()):
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            spectral_norm(module)


class UpBlock(nn.Module):
    """Normalization, ReLU, upsampling, convolution, normalization, ReLU, convolution, and an upsampled shortcut.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        num_classes: Classes of the normalization, 0 for none.
    """

    def __init__(self, inputs: int, outputs: int, num_classes: int = 0) -> None:
        super().__init__()
        self.first_norm = ConditionalBatchNorm2d(inputs, num_classes)
        self.first = UpsampledConv2d(inputs, outputs, bias=False)  # BatchNorm removes any bias
        self.second_norm = ConditionalBatchNorm2d(outputs, num_classes)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Map ``(N, inputs, H, W)`` to ``(N, outputs, 2H, 2W)``."""
        h = self.first(F.relu_(self.first_norm(x, y)))
        h = self.second(F.relu_(self.second_norm(h, y)))
        return h.add_(upsample_nearest(self.shortcut(x)))  # a 1x1 convolution and upsampling commute


class DownBlock(nn.Module):
    """ReLU, convolution, ReLU, convolution, pooling, and a pooled shortcut; without normalization.

    The shortcut is pooled before it widens (the paper's figure 13).

    Args:
        inputs: Channels in.
        hidden: Channels between the convolutions.
        outputs: Channels out.
        down: Whether it halves the map; if not, and the width stays, the shortcut is the identity.
        of_images: Whether it reads images, which pass through no ReLU first.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, down: bool = True, of_images: bool = False) -> None:
        super().__init__()
        self.down, self.of_images = down, of_images
        self.first = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.second = DownsampledConv2d(hidden, outputs) if down else nn.Conv2d(hidden, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False) if down or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs, H, W)`` to ``(N, outputs, H / 2, W / 2)``, or the same size."""
        h = self.second(F.relu_(self.first(x if self.of_images else F.relu(x))))
        if self.down:
            x = F.avg_pool2d(x, 2)
        return h + (x if self.shortcut is None else self.shortcut(x))


class Generator(nn.Module):
    """Map latents to images, with classes by conditional batch normalization.

    Args:
        shape: ``(C, H, W)`` of the images: square, 4 or 7 times a power of two.
        num_classes: Number of classes, 0 for an unconditional network.
        latent_dim: Size of the latent.
        channels: Width of the image-sized map.
        growth: Factor on the width for each halving of the map.
        widening: Largest width, as a multiple of `channels`.
        spectral: Whether each convolution and linear layer is spectrally normalized (Zhang et al., 2019).
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int = 0,
        latent_dim: int = 128,
        channels: int = 32,
        growth: int = 2,
        widening: int = 4,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        smallest, doublings = stages(shape)
        width = widths(channels, doublings + 1, growth, widening)[::-1]  # the smallest map first
        self.latent_dim = latent_dim
        self.start = (smallest, smallest, width[0])
        self.project = nn.Linear(latent_dim, width[0] * smallest**2)
        self.blocks = nn.ModuleList(UpBlock(a, b, num_classes) for a, b in pairwise(width))
        self.norm = nn.BatchNorm2d(channels)
        self.to_image = nn.Conv2d(channels, shape[0], 3, padding=1)
        _initialize(self)
        if spectral:
            _normalize(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map ``z`` (N, latent_dim) and labels ``y`` (N,) to images (N, C, H, W) in [-1, 1]."""
        # Features in the order (row, column, channel) are a channels-last map, without a copy.
        x = self.project(z).unflatten(1, self.start).permute(0, 3, 1, 2)  # (N, width, 4 or 7, 4 or 7)
        for block in self.blocks:
            x = block(x, y)
        return torch.tanh(self.to_image(F.relu_(self.norm(x))))


class Discriminator(discriminator.Discriminator):
    """Map images to logits, each layer spectrally normalized, and classes by projection (Miyato and Koyama, 2018).

    Blocks halve the map down to 7 or 8 px; `flat_blocks` follow at that size; then ReLU and the sum over positions.

    Args:
        shape: ``(C, H, W)`` of the images: square, 4 or 7 times a power of two.
        num_classes: Number of classes, 0 for an unconditional network.
        channels: Width of the image-sized map, inside the first block.
        growth: Factor on the width for each further block.
        widening: Largest width, as a multiple of `channels`.
        flat_blocks: Blocks that keep the size; the paper has two.
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int = 0,
        channels: int = 32,
        growth: int = 2,
        widening: int = 4,
        flat_blocks: int = 1,
    ) -> None:
        super().__init__()
        smallest, doublings = stages(shape)
        downs = doublings if smallest == 7 else doublings - 1
        width = widths(channels, 1 + downs + flat_blocks, growth, widening)
        self.blocks = nn.Sequential(
            DownBlock(shape[0], width[0], width[1], of_images=True),
            *(DownBlock(a, a, b, down=level < downs) for level, (a, b) in enumerate(pairwise(width[1:]), start=1)),
        )
        self.logit = nn.Linear(width[-1], 1)
        self.projection = nn.Embedding(num_classes, width[-1]) if num_classes else None
        _initialize(self)
        _normalize(self)
        if self.projection is not None:
            spectral_norm(self.projection)
        self._add_layers(shape[1])

    def _add_layers(self, size: int) -> None:
        """Add to the finished blocks, for images of `size` px; a subclass may."""

    def features(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to (N, width), >= 0."""
        return F.relu(self.blocks(x)).sum(dim=(2, 3))
