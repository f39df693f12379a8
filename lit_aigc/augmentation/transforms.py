"""Transforms of image batches: pure functions, with parameters of its own for each image.

All of them keep gradients with respect to the images, and change an image in the same way in any batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def constants(like: Tensor, *values: float) -> Tensor:
    """Return numbers as a 1-D tensor with the dtype and device of another, without a copy to the device."""
    return torch.stack([like.new_full((), value) for value in values])


def horizontal_flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror some images of a batch left to right.

    Args:
        images: ``(N, C, H, W)``.
        flipped: ``(N,)`` bool, True for each image to mirror.
    """
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)


def shift(images: Tensor, offsets: Tensor, *, mode: str = "constant", fill: float = -1.0) -> Tensor:
    """Shift each image by whole pixels: padding on all sides, then a crop of the original size.

    Args:
        images: ``(N, C, H, W)``.
        offsets: ``(N, 2)`` int64 pixels, positive for down and right; with ``reflect`` smaller than H and W.
        mode: What fills the space: ``constant`` (the value `fill`), ``edge``, or ``reflect`` (the edge not repeated).
        fill: The value of ``constant``; -1 is black in the usual range.
    """
    n, channels, height, width = images.shape
    # The row and the column that each row and column comes from, brought inside the (padded) image.
    rows = torch.arange(height, device=images.device) - offsets[:, :1]  # (N, H)
    columns = torch.arange(width, device=images.device) - offsets[:, 1:]  # (N, W)
    if mode == "constant":
        images = F.pad(images, (1, 1, 1, 1), value=fill)
        rows, columns = (rows + 1).clamp(0, height + 1), (columns + 1).clamp(0, width + 1)
    elif mode == "reflect":
        rows, columns = _reflect(rows, height), _reflect(columns, width)
    else:
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)

    # One gather for all images, stacked on top of each other.
    rows = rows + torch.arange(n, device=images.device)[:, None] * images.shape[2]
    sources = rows[:, :, None] * images.shape[3] + columns[:, None, :]  # (N, H, W)
    pixels = images.permute(0, 2, 3, 1).reshape(-1, channels)
    shifted = pixels.index_select(0, sources.flatten()).view(n, height, width, channels)
    return shifted.permute(0, 3, 1, 2)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Reflect indices that are at most size - 1 outside into [0, size)."""
    return (size - 1) - ((size - 1) - index.abs()).abs()


def cut_out(images: Tensor, centers: Tensor, size: Sequence[int], *, fill: float = 0.0) -> Tensor:
    """Cover a rectangle of each image.

    Args:
        images: ``(N, C, H, W)``.
        centers: ``(N, 2)`` int64, row and column of the rectangle's center (for an even size, the pixel after it).
            Anything outside the image is cut off.
        size: Height and width of the rectangle in pixels.
        fill: Value inside; 0 is mid gray in the usual range.
    """
    inside = []
    for axis in (0, 1):
        pixel = torch.arange(images.shape[2 + axis], device=images.device)
        first = centers[:, axis, None] - size[axis] // 2
        inside.append((pixel >= first) & (pixel < first + size[axis]))  # (N, H), then (N, W)
    rows, columns = inside
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], fill)


def affine(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Transform images by affine maps: one bilinear resampling of images that are mirrored beyond their edges.

    Args:
        images: ``(N, C, H, W)``, H and W above 1.
        matrix: ``(N, 2, 2)``, invertible. The point (x, y), in pixels right of and below the center, moves to
            ``matrix @ (x, y) + offset``.
        offset: ``(N, 2)`` pixels, right and down.
    """
    n, _, height, width = images.shape
    # `grid_sample` needs the inverse map, from pixels to where they come from, with the image as [-1, 1].
    half = constants(matrix, (width - 1) / 2, (height - 1) / 2)  # from the center to the middle of the last pixel
    inverse = torch.linalg.inv_ex(matrix).inverse  # `inv` would wait for a GPU
    start = (-inverse @ offset[:, :, None] / half[:, None]).to(images)  # (N, 2, 1), in units of half
    inverse = (inverse * half / half[:, None]).to(images)

    # The same grid of pixels for all images, each mapped by its own inverse.
    x, y = (torch.linspace(-1, 1, size, dtype=images.dtype, device=images.device) for size in (width, height))
    pixels = torch.stack([x.expand(height, width), y[:, None].expand(height, width)]).flatten(1)  # (2, HW)
    grid = torch.baddbmm(start, inverse, pixels.expand(n, -1, -1)).view(n, 2, height, width).permute(0, 2, 3, 1)
    return _Sample.apply(images, grid)


class _Sample(torch.autograd.Function):
    """`grid_sample` of images with a gradient that is differentiable itself, which torch's isn't.

    The operation is linear in the images, and the grid is a constant, so each derivative is the operation or its
    transpose. After ``grid_sample_gradfix`` of StyleGAN2-ADA (Karras et al., 2020).
    """

    @staticmethod
    def forward(ctx, images: Tensor, grid: Tensor) -> Tensor:
        """Interpolate bilinearly, with images mirrored beyond their edges."""
        ctx.save_for_backward(grid)
        ctx.size = images.shape
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=True)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        """Apply the transpose."""
        return _Spread.apply(gradient, *ctx.saved_tensors, ctx.size), None


class _Spread(torch.autograd.Function):
    """The transpose of `_Sample`."""

    @staticmethod
    def forward(ctx, gradient: Tensor, grid: Tensor, size: torch.Size) -> Tensor:
        """Spread each value over the four pixels that it was interpolated from."""
        ctx.save_for_backward(grid)
        like = gradient.new_zeros(size)  # only its shape matters
        bilinear, reflection, align_corners = 0, 2, True
        spread = torch.ops.aten.grid_sampler_2d_backward
        return spread(gradient, like, grid, bilinear, reflection, align_corners, [True, False])[0]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Apply the transpose of the transpose."""
        return _Sample.apply(gradient, *ctx.saved_tensors), None, None


def color_map(brightness: Tensor, contrast: Tensor, luma_flip: Tensor, hue: Tensor, saturation: Tensor) -> Tensor:
    """Combine five changes of color to one affine map of RGB (Karras et al., 2020, appendix B).

    With v = (1, 1, 1)/sqrt(3), the direction of gray, in this order: add the brightness, multiply by the contrast,
    reflect at the plane orthogonal to v, rotate around v by the hue, scale what is orthogonal to v by the saturation.

    Args:
        brightness: ``(N,)``, added.
        contrast: ``(N,)`` factors.
        luma_flip: ``(N,)``, -1 to reflect, else 1.
        hue: ``(N,)`` radians.
        saturation: ``(N,)`` factors.

    Returns:
        ``(N, 3, 4)``: matrices, and offsets in the last column.
    """
    device = contrast.device
    along = torch.full((3, 3), 1 / 3, device=device).to(contrast.dtype)  # the projection onto v
    eye = torch.eye(3, device=device, dtype=contrast.dtype)
    across = eye - along  # the projection onto the plane orthogonal to v
    turned = (eye.roll(1, 0) - eye.roll(-1, 0)) / math.sqrt(3)  # the cross product with v
    gray = contrast * luma_flip
    # Rodrigues' formula rotates the part that is orthogonal to v.
    colors = torch.cos(hue)[:, None, None] * across + torch.sin(hue)[:, None, None] * turned
    matrix = gray[:, None, None] * along + (contrast * saturation)[:, None, None] * colors
    return torch.cat([matrix, (brightness * gray)[:, None, None].expand(-1, 3, 1)], dim=2)


def recolor(images: Tensor, maps: Tensor) -> Tensor:
    """Apply an affine map of colors to each image.

    Args:
        images: ``(N, C, H, W)``. If C isn't 3, each channel is mapped like a gray of RGB.
        maps: ``(N, 3, 4)``, from `color_map`.
    """
    maps = maps.to(images)
    if images.shape[1] == 3:
        return torch.baddbmm(maps[:, :, 3:], maps[:, :, :3], images.flatten(2)).view_as(images)
    return torch.addcmul(maps[:, :1, 3:, None], maps[:, :1, :3].sum(2)[:, :, None, None], images)
