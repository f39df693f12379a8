"""Images: how samples of them are shown, and tensors as pictures, grids and PNG files."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lit_aigc.files import write_atomically
from lit_aigc.spec import Batch, DataSpec

UNIT = "images"
PICTURES = True
EXAMPLE = "bundle=. n=64 out=samples"


def describe(spec: DataSpec) -> str:
    """Return the shape of an image in words; see `lit_aigc.media.modality`."""
    channels, height, width = spec.shape
    return f"{height}x{width}, {'gray' if channels == 1 else f'{channels} channels'}"


def to_uint8(images: Tensor, value_range: Sequence[float]) -> Tensor:
    """Map floats in ``value_range`` to the 256 gray levels, rounding to the nearest and halves up.

    Args:
        images: Floats of any shape and device; values beyond the range are clamped, NaN becomes 0. uint8 images, which
            are gray levels already, are returned unchanged.
        value_range: Smallest and largest value, as in `lit_aigc.spec.DataSpec`.

    Returns:
        uint8 of the same shape on the same device.
    """
    if images.dtype == torch.uint8:
        return images
    low, high = value_range
    levels = (images.detach().float() - low) * (255.0 / (high - low))
    return levels.nan_to_num(0.0, posinf=255.0, neginf=0.0).clamp(0.0, 255.0).add(0.5).floor().to(torch.uint8)


def decode(samples: Tensor, module: Any) -> list[Image.Image]:
    """Return images ``(n, C, H, W)`` in the range of the module's data as Pillow images."""
    return [to_pil(image) for image in to_uint8(samples, module.spec.value_range)]


def to_pil(image: Tensor) -> Image.Image:
    """Return a uint8 image ``(1, H, W)`` or ``(H, W)`` in mode "L", ``(3, H, W)`` in mode "RGB".

    Raises:
        ValueError: Another dtype, or a shape that isn't an image's.
    """
    if image.dtype != torch.uint8:
        raise ValueError(f"expected uint8 gray levels, got {image.dtype}: use to_uint8 first")
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"expected one image of shape (1|3, H, W) or (H, W), got {tuple(image.shape)}")
    array = image.cpu().permute(1, 2, 0).contiguous().numpy()  # (H, W, C)
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def save_png(image: Tensor | Image.Image, path: str | Path) -> Path:
    """Write one uint8 image (see `to_pil`) or Pillow image as a PNG; a reader sees all of the file or none of it."""
    buffer = io.BytesIO()
    (to_pil(image) if isinstance(image, Tensor) else image).save(buffer, format="PNG")
    return write_atomically(path, buffer.getvalue())


def sample_name(index: int) -> str:
    """Return the file name of the sample with this index: ``000012.png``."""
    return f"{index:06d}.png"


def save_images(images: Tensor, directory: str | Path, start: int = 0) -> list[Path]:
    """Write uint8 images ``(N, C, H, W)`` as PNG files, named by the index of the sample: ``000012.png``.

    Args:
        images: The images.
        directory: Folder to write to; created when missing.
        start: Index of the first image, so that a set can be written in parts, or by several processes.
    """
    return [save_png(image, Path(directory) / sample_name(start + i)) for i, image in enumerate(images.cpu())]


def upscale(images: Tensor, factor: int) -> Tensor:
    """Repeat each pixel of ``(..., H, W)`` `factor` times in both directions."""
    return images.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)


def make_grid(images: Tensor, columns: int, padding: int = 2, background: int = 255) -> Tensor:
    """Lay out uint8 images ``(N, C, H, W)`` row by row, `padding` pixels of background between them and none outside.

    Returns:
        ``(C, rows * (H + padding) - padding, columns * (W + padding) - padding)`` uint8; unused cells of
        the last row are background. With fewer images than columns the grid is as wide as the images need.
    """
    n, channels, height, width = images.shape
    columns = max(1, min(columns, n))
    rows = math.ceil(n / columns)
    size = (max(rows * (height + padding) - padding, 0), columns * (width + padding) - padding)
    grid = images.new_full((channels, *size), background)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + padding), (i % columns) * (width + padding)
        grid[:, top : top + height, left : left + width] = image
    return grid


def first_images(
    batches: Iterable[Batch], n: int, shape: Sequence[int], classes: Sequence[int] | None = None
) -> tuple[Tensor, list[int]]:
    """Take the first images of a data set, or the first of given classes.

    Args:
        batches: uint8 images in order; read as far as needed.
        n: Number of images.
        shape: ``(C, H, W)`` of each.
        classes: The class of each of the n images; None: of any.

    Returns:
        ``(n, C, H, W)`` uint8, white where there is no image, and the places where there is none.
    """
    images = torch.full((n, *shape), 255, dtype=torch.uint8)
    missing = list(range(n))
    batches = iter(batches)
    while missing and (batch := next(batches, None)):
        labels = None if classes is None else batch.labels.tolist()
        for i, image in enumerate(batch.images.cpu()):
            place = next((place for place in missing if labels is None or classes[place] == labels[i]), None)
            if place is not None:
                images[place] = image
                missing.remove(place)
    return images, missing
