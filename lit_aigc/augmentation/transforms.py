"""What augmentation does to images: pure functions of a batch, each image by its own numbers.

All of them keep gradients with respect to the images, and change an image alike in any batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def constants(like: Tensor, *values: float) -> Tensor:
    """Numbers as a 1-D tensor of the dtype and on the device of another, without a copy to the device."""
    return torch.stack([like.new_full((), value) for value in values])


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
        images = F.pad(images, (1, 1, 1, 1), value=fill)
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


def cut_out(images: Tensor, centers: Tensor, size: Sequence[int], *, fill: float = 0.0) -> Tensor:
    """Cover a rectangle of each image.

    Args:
        images: ``(N, C, H, W)``.
        centers: ``(N, 2)`` int64, row and column of the rectangle's middle (of an even size: the pixel after it). What
            lies outside the image is lost.
        size: Height and width of the rectangle in pixels.
        fill: The value in it; 0 is mid grey in the usual range.
    """
    inside = []
    for axis in (0, 1):
        pixel = torch.arange(images.shape[2 + axis], device=images.device)
        first = centers[:, axis, None] - size[axis] // 2
        inside.append((pixel >= first) & (pixel < first + size[axis]))  # (N, H), then (N, W)
    rows, columns = inside
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], fill)


def affine(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Move what images show by affine maps: one bilinear resampling, of images that go on mirrored beyond their edges.

    Args:
        images: ``(N, C, H, W)``, H and W above 1.
        matrix: ``(N, 2, 2)``, invertible. What is at (x, y), in pixels right of and below the centre, goes to
            ``matrix @ (x, y) + offset``.
        offset: ``(N, 2)`` pixels, right and down.
    """
    n, _, height, width = images.shape
    half = constants(matrix, (width - 1) / 2, (height - 1) / 2)  # from the centre to the middle of the last pixel
    inverse = torch.linalg.inv_ex(matrix).inverse  # from a pixel to where it comes from; `inv` would wait for a GPU
    start = (-inverse @ offset[:, :, None] / half[:, None]).to(images)  # (N, 2, 1), in units of half
    inverse = (inverse * half / half[:, None]).to(images)
    x, y = (torch.linspace(-1, 1, size, dtype=images.dtype, device=images.device) for size in (width, height))
    pixels = torch.stack([x.expand(height, width), y[:, None].expand(height, width)]).flatten(1)  # (2, HW)
    grid = torch.baddbmm(start, inverse, pixels.expand(n, -1, -1)).view(n, 2, height, width).permute(0, 2, 3, 1)
    return _Sample.apply(images, grid)


class _Sample(torch.autograd.Function):
    """`grid_sample` of images, whose gradient can be differentiated again: torch has no second derivative of it.

    It is linear in the images, and the grid is taken as a constant, so each derivative is it or its transpose. After
    ``grid_sample_gradfix`` of StyleGAN2-ADA (Karras et al., 2020).
    """

    @staticmethod
    def forward(ctx, images: Tensor, grid: Tensor) -> Tensor:
        """Bilinear, with images mirrored beyond their edges."""
        ctx.save_for_backward(grid)
        ctx.size = images.shape
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=True)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        """The transpose."""
        return _Spread.apply(gradient, *ctx.saved_tensors, ctx.size), None


class _Spread(torch.autograd.Function):
    """The transpose of `_Sample`."""

    @staticmethod
    def forward(ctx, gradient: Tensor, grid: Tensor, size: torch.Size) -> Tensor:
        """Each value to the four pixels that it was interpolated from."""
        ctx.save_for_backward(grid)
        like = gradient.new_zeros(size)  # only its shape matters
        bilinear, reflection, align_corners = 0, 2, True
        spread = torch.ops.aten.grid_sampler_2d_backward
        return spread(gradient, like, grid, bilinear, reflection, align_corners, [True, False])[0]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The transpose of the transpose."""
        return _Sample.apply(gradient, *ctx.saved_tensors), None, None


def color_map(brightness: Tensor, contrast: Tensor, luma_flip: Tensor, hue: Tensor, saturation: Tensor) -> Tensor:
    """The affine map of RGB that five changes make, one after the other (Karras et al., 2020, appendix B).

    With v = (1, 1, 1)/sqrt(3), the direction of grey: add the brightness, multiply by the contrast, mirror at the
    plane across v, turn around v by the hue, multiply what is across v by the saturation.

    Args:
        brightness: ``(N,)``, added.
        contrast: ``(N,)`` factors.
        luma_flip: ``(N,)``, -1 where the image is mirrored, else 1.
        hue: ``(N,)`` radians.
        saturation: ``(N,)`` factors.

    Returns:
        ``(N, 3, 4)``: matrices, and beside them offsets.
    """
    device = contrast.device
    along = torch.full((3, 3), 1 / 3, device=device).to(contrast.dtype)  # the projection on v
    eye = torch.eye(3, device=device, dtype=contrast.dtype)
    across = eye - along
    turned = (eye.roll(1, 0) - eye.roll(-1, 0)) / math.sqrt(3)  # the product v x ...
    grey = contrast * luma_flip
    colors = torch.cos(hue)[:, None, None] * across + torch.sin(hue)[:, None, None] * turned
    matrix = grey[:, None, None] * along + (contrast * saturation)[:, None, None] * colors
    return torch.cat([matrix, (brightness * grey)[:, None, None].expand(-1, 3, 1)], dim=2)


def recolor(images: Tensor, maps: Tensor) -> Tensor:
    """Send each image's colours through its affine map.

    Args:
        images: ``(N, C, H, W)``. With C other than 3, each channel goes where a grey of RGB would.
        maps: ``(N, 3, 4)``, of `color_map`.
    """
    maps = maps.to(images)
    if images.shape[1] == 3:
        return torch.baddbmm(maps[:, :, 3:], maps[:, :, :3], images.flatten(2)).view_as(images)
    return torch.addcmul(maps[:, :1, 3:, None], maps[:, :1, :3].sum(2)[:, :, None, None], images)
