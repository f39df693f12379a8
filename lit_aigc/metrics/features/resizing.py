"""Bring images to the size and the number of channels that a network takes.

The three ways in `RESIZES` are protocols whose FIDs are not comparable: pure functions of uint8 or float levels
0 … 255, ``(N, C, H, W)``, to float32 of another size, without rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_aigc.errors import InputError
from lit_aigc.machine.precision import full_precision


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 ``(N, C, H, W)`` to uint8 of another size, bilinear and antialiased.

    The image data modules do the same, so that on a CPU it makes no difference which of the two resizes.
    """
    if images.shape[2:] == (height, width):
        return images
    if images.device.type == "cpu":
        return F.interpolate(images, (height, width), mode="bilinear", antialias=True)
    levels = F.interpolate(images.float(), (height, width), mode="bilinear", antialias=True)
    return levels.add(0.5).floor().clamp(0.0, 255.0).to(torch.uint8)


def match_channels(images: Tensor, channels: int) -> Tensor:
    """Convert gray to RGB by repetition, and RGB to gray by ITU-R 601 luma; images that fit are returned as they are.

    Raises:
        InputError: For other numbers of channels.
    """
    given = images.shape[1]
    if given == channels:
        return images
    if given == 1:
        return images.repeat(1, channels, 1, 1)
    if given == 3 and channels == 1:
        weights = torch.tensor([0.299, 0.587, 0.114], device=images.device)[:, None, None]
        return (images.float() * weights).sum(dim=1, keepdim=True).round().to(torch.uint8)
    raise InputError(f"The extractor takes images of {channels} channel(s), got {given}: expected 1 or 3.")


def tensorflow(images: Tensor, height: int, width: int) -> Tensor:
    """Resize bilinearly as TensorFlow 1 did, which FID was defined with: corners at the origin, not antialiased.

    Pixel i of the result lies at ``i * size / new size``, so an enlarged picture moves up and left by half a pixel.
    """
    levels = images.float()
    rows, columns = (
        _weights(old, new, images.device) for old, new in zip(images.shape[2:], (height, width), strict=True)
    )
    with full_precision(images.device):
        return rows @ (levels @ columns.T)


def _weights(old: int, new: int, device: torch.device) -> Tensor:
    """Return ``(new, old)``; each row has the weights of two neighbors."""
    at = torch.arange(new, dtype=torch.float32) * torch.tensor(old / new, dtype=torch.float32)
    before = at.long().clamp(max=old - 1)
    share = at - before
    weights = torch.zeros(new, old)
    row = torch.arange(new)
    weights[row, before] += 1.0 - share
    weights[row, (before + 1).clamp(max=old - 1)] += share
    return weights.to(device)


def legacy(images: Tensor, height: int, width: int) -> Tensor:
    """Resize bilinearly as PyTorch does, and many evaluation scripts did: pixel centers aligned, not antialiased."""
    return F.interpolate(images.float(), (height, width), mode="bilinear", align_corners=False)


def clean(images: Tensor, height: int, width: int) -> Tensor:
    """Resize each channel in float, bicubic, antialiased, clipped (Parmar et al., 2022, arXiv:2104.11222)."""
    resized = F.interpolate(images.float(), (height, width), mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp(0.0, 255.0)


RESIZES: dict[str, Callable[[Tensor, int, int], Tensor]] = {"tensorflow": tensorflow, "legacy": legacy, "clean": clean}
IN_WORDS = {
    "tensorflow": "bilinear as TensorFlow 1, not antialiased",
    "legacy": "bilinear as PyTorch, not antialiased",
    "clean": "bicubic, antialiased, in float",
}
