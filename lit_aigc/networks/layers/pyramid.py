"""Maps of doubling size, from 4 or 7 px to the image: their number, their widths, and cheap steps between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_aigc.errors import InputError, at_least, check


def stages(shape: Sequence[int]) -> tuple[int, int]:
    """Return the size of the smallest map, 4 or 7 px, and the number of doublings from there to the image.

    Args:
        shape: ``(C, H, W)`` of the images.

    Raises:
        InputError: If the images are not square, or not 4 or 7 times a power of two.
    """
    _, height, width = shape
    for smallest in (4, 7):
        doublings = (height // smallest).bit_length() - 1
        if height == width == smallest << max(doublings, 0) and 2 <= doublings <= 6:
            return smallest, doublings
    raise InputError(
        f"These networks don't support images of {height}x{width}: expected square images of 4 or 7 times a power of "
        "two, such as 28, 32 or 64 px. Set data.image_size=32 (or 28, 64)."
    )


def widths(channels: int, levels: int, growth: int, widening: int) -> list[int]:
    """Return the channels of each map, the image's first: ``channels * min(growth^k, widening)`` after k halvings.

    Raises:
        InputError: If a number is below 1.
    """
    check(*at_least(1, "", channels=channels, growth=growth, widening=widening))
    return [channels * min(growth**level, widening) for level in range(levels)]


def halving(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    """Make a 4x4 convolution of stride 2: ``(N, inputs, 2H, 2W)`` to ``(N, outputs, H, W)``."""
    return nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=bias)


def doubling(inputs: int, outputs: int, bias: bool = True) -> nn.ConvTranspose2d:
    """Make a 4x4 transposed convolution of stride 2: ``(N, inputs, H, W)`` to ``(N, outputs, 2H, 2W)``."""
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=bias)


class UpsampledConv2d(nn.Conv2d):
    """Nearest-neighbor upsampling by 2 and a 3x3 convolution as one transposed convolution with a 4x4 kernel.

    Equal to the two steps up to rounding, with 16 instead of 36 products for each input position, channel and output
    channel. ``(N, inputs, H, W)`` to ``(N, outputs, 2H, 2W)``.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        bias: Whether it has a bias.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs, H, W)`` to ``(N, outputs, 2H, 2W)``."""
        # In each direction two neighboring taps hit the same input pixel; the transposed convolution flips the kernel.
        kernel = _box(self.weight).flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


class DownsampledConv2d(nn.Conv2d):
    """A 3x3 convolution and 2x2 average pooling as one strided convolution with a 4x4 kernel.

    Equal to the two steps up to rounding, with 16 instead of 36 products for each output position.
    ``(N, inputs, 2H, 2W)`` to ``(N, outputs, H, W)``.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        bias: Whether it has a bias.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs, 2H, 2W)`` to ``(N, outputs, H, W)``."""
        return F.conv2d(x, 0.25 * _box(self.weight), self.bias, stride=2, padding=1)


def _box(weight: Tensor) -> Tensor:
    """Convolve 3x3 kernels with a 2x2 box: ``(..., 3, 3)`` to ``(..., 4, 4)``."""
    rows = F.pad(weight, (0, 0, 0, 1)) + F.pad(weight, (0, 0, 1, 0))
    return F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))


def upsample_nearest(x: Tensor) -> Tensor:
    """Map ``(N, C, H, W)`` to ``(N, C, 2H, 2W)``, each value four times."""
    return F.interpolate(x, scale_factor=2)


def upsample_bilinear(x: Tensor) -> Tensor:
    """Map ``(N, C, H, W)`` to ``(N, C, 2H, 2W)``, with weights 3/4 and 1/4 in each direction."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
