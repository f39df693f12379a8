"""How images are brought to the size that a network takes: three protocols whose FIDs are not comparable.

Pure functions of uint8 or float levels 0 … 255, ``(N, C, H, W)``, to float32 of another size; nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_aigc.machine.precision import full_precision


def tensorflow(images: Tensor, height: int, width: int) -> Tensor:
    """Bilinear as TensorFlow 1 did it, which FID was defined with: corners at the origin, not antialiased.

    Pixel i of the result lies at ``i * size / new size``, so a picture that grows moves up and left by half a pixel.
    """
    levels = images.float()
    rows, columns = (
        _weights(old, new, images.device) for old, new in zip(images.shape[2:], (height, width), strict=True)
    )
    with full_precision(images.device):
        return rows @ (levels @ columns.T)


def _weights(old: int, new: int, device: torch.device) -> Tensor:
    """``(new, old)``, rows of two neighbours' weights."""
    at = torch.arange(new, dtype=torch.float32) * torch.tensor(old / new, dtype=torch.float32)
    before = at.long().clamp(max=old - 1)
    share = at - before
    weights = torch.zeros(new, old)
    row = torch.arange(new)
    weights[row, before] += 1.0 - share
    weights[row, (before + 1).clamp(max=old - 1)] += share
    return weights.to(device)


def legacy(images: Tensor, height: int, width: int) -> Tensor:
    """Bilinear as PyTorch does it and many evaluation scripts did: pixel centres aligned, not antialiased."""
    return F.interpolate(images.float(), (height, width), mode="bilinear", align_corners=False)


def clean(images: Tensor, height: int, width: int) -> Tensor:
    """Antialiased bicubic, each channel by itself in float, cut to 0 … 255 (Parmar et al., 2022, arXiv:2104.11222)."""
    resized = F.interpolate(images.float(), (height, width), mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp(0.0, 255.0)


RESIZES: dict[str, Callable[[Tensor, int, int], Tensor]] = {"tensorflow": tensorflow, "legacy": legacy, "clean": clean}
IN_WORDS = {
    "tensorflow": "bilinear as TensorFlow 1, not antialiased",
    "legacy": "bilinear as PyTorch, not antialiased",
    "clean": "bicubic, antialiased, in float",
}
