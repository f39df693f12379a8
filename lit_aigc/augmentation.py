"""Augmentations of image batches: pure, batched, differentiable, and drawn item by item.

The functions take what is drawn as tensors; the classes draw it from a `Noise`, so that an image is changed alike in
any batch and on any number of processes. All of them keep gradients with respect to the images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_aigc.errors import InputError
from lit_aigc.noise import Noise

PADDING_MODES = ("constant", "edge", "reflect")


def horizontal_flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror some images of a batch left to right.

    Args:
        images: ``(N, C, H, W)``.
        flipped: ``(N,)`` bool, True for each image to mirror.
    """
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)


def shift(images: Tensor, offsets: Tensor, *, mode: str = "constant", fill: float = -1.0) -> Tensor:
    """Move each image by whole pixels: padding on all sides, then a crop of the original size.

    Args:
        images: ``(N, C, H, W)``.
        offsets: ``(N, 2)`` int64 pixels, down and right positive; with ``reflect`` each is below H and W in size.
        mode: What fills the space: ``constant`` (the value `fill`), ``edge``, or ``reflect`` (the edge not repeated).
        fill: The value of ``constant``; -1 is black in the usual range.
    """
    n, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device) - offsets[:, :1]  # (N, H): the row that each row comes from
    columns = torch.arange(width, device=images.device) - offsets[:, 1:]  # (N, W)
    if mode == "constant":
        images = torch.nn.functional.pad(images, (1, 1, 1, 1), value=fill)
        rows, columns = (rows + 1).clamp(0, height + 1), (columns + 1).clamp(0, width + 1)
    elif mode == "reflect":
        rows, columns = _reflect(rows, height), _reflect(columns, width)
    else:
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    rows = rows + torch.arange(n, device=images.device)[:, None] * images.shape[2]  # of all images, one under the other
    places = rows[:, :, None] * images.shape[3] + columns[:, None, :]  # (N, H, W)
    pixels = images.permute(0, 2, 3, 1).reshape(-1, channels)
    moved = pixels.index_select(0, places.flatten()).view(n, height, width, channels)
    return moved.permute(0, 3, 1, 2)


def _reflect(index: Tensor, size: int) -> Tensor:
    """The place inside [0, size) that an index up to size - 1 outside mirrors."""
    return (size - 1) - ((size - 1) - index.abs()).abs()


class HorizontalFlip:
    """Mirror each image left to right with the given probability."""

    def __init__(self, probability: float = 0.5):
        if not 0 <= probability <= 1:
            raise InputError(f"HorizontalFlip: probability is {probability!r}, expected a number from 0 to 1.")
        self.probability = probability

    def __call__(self, images: Tensor, *, noise: Noise) -> Tensor:
        """Images ``(N, C, H, W)`` to the same shape; image i draws item i of `noise`."""
        drawn = noise.stream("horizontal_flip").uniform(len(images), 1, device=images.device)[:, 0]
        return horizontal_flip(images, drawn < self.probability)


class RandomShift:
    """Move each image by up to `pixels` in both directions: the random crop with padding of CIFAR-10 recipes."""

    def __init__(self, pixels: int = 4, mode: str = "constant", fill: float = -1.0):
        if isinstance(pixels, bool) or not isinstance(pixels, int) or pixels < 0:
            raise InputError(f"RandomShift: pixels is {pixels!r}, expected a whole number, 0 or more.")
        if mode not in PADDING_MODES:
            raise InputError(f"RandomShift: mode is {mode!r}, expected one of {', '.join(PADDING_MODES)}.")
        self.pixels, self.mode, self.fill = pixels, mode, fill

    def __call__(self, images: Tensor, *, noise: Noise) -> Tensor:
        """Images ``(N, C, H, W)`` to the same shape; image i draws item i of `noise`.

        Raises:
            InputError: The shift is as large as the image.
        """
        if self.pixels >= min(images.shape[-2:]):
            height, width = images.shape[-2:]
            raise InputError(
                f"RandomShift: pixels={self.pixels} is too much for images of {height}x{width}; use fewer."
            )
        noise, n, steps = noise.stream("random_shift"), len(images), 2 * self.pixels + 1
        down = noise.stream("down").integers(n, steps, device=images.device)
        right = noise.stream("right").integers(n, steps, device=images.device)
        return shift(images, torch.stack([down, right], dim=1) - self.pixels, mode=self.mode, fill=self.fill)


BY_NAME = {"horizontal_flip": HorizontalFlip, "random_shift": RandomShift}
"""What a plain name in ``data.augment`` stands for; everything else is a ``_target_``."""
