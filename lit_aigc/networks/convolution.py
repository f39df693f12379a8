"""The convolutions that read and draw gray images, faster on CPUs than torch's own, and the layout of gradients.

Between wide maps a convolution runs at the speed of a matrix product. Towards a single channel it runs at a twentieth
of that, since its vector instructions compute channels side by side. There it is written as a matrix product, whose
columns are added up at their pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _serves(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, channels: int) -> bool:
    plain = layer.groups == 1 and layer.dilation == (1, 1) and not any(layer.output_padding)
    square = len({*layer.kernel_size}) == len({*layer.stride}) == 1 and not isinstance(layer.padding, str)
    ordinary = plain and square and len({*layer.padding}) == 1 and layer.padding_mode == "zeros"
    return ordinary and channels == 1 and x.device.type == "cpu" and not torch.compiler.is_compiling()


def _cast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In autocast's precision where that is on, as torch casts the inputs of a convolution."""
    if not torch.is_autocast_enabled("cpu"):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype("cpu")) for tensor in tensors)


class ReadingConv2d(nn.Conv2d):
    """A convolution of images: `nn.Conv2d` with a faster gradient for the images."""

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to maps, as `nn.Conv2d`."""
        if not (_serves(self, x, self.in_channels) and x.requires_grad and torch.is_grad_enabled()):
            return super().forward(x)
        y = _FromOne.apply(*_cast(x, self.weight), self.stride[0], self.padding[0])
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]


class DrawingConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution to images: `nn.ConvTranspose2d`, with a faster way forward."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to images, as `nn.ConvTranspose2d`."""
        if not _serves(self, x, self.out_channels):
            return super().forward(x)
        (kernel, *_), (stride, *_), (padding, *_) = self.kernel_size, self.stride, self.padding
        size = tuple((length - 1) * stride - 2 * padding + kernel for length in x.shape[-2:])
        y = _ToOne.apply(*_cast(x, self.weight), stride, padding, size)
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]


def keep_layout(x: Tensor) -> Tensor:
    """The same tensor, whose gradient comes in its own memory layout.

    Flattening a map that has channels last leaves a gradient that has them first, and torch's pointwise derivatives are
    twenty times slower on two layouts than on one.
    """
    return x if torch.compiler.is_compiling() else _KeepLayout.apply(x)


class _KeepLayout(torch.autograd.Function):
    """The identity."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.last = inputs[0].is_contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous(memory_format=torch.channels_last) if ctx.last else gradient


class _ToOne(torch.autograd.Function):
    """``conv_transpose2d(x, w)`` of given size, for x (N, C, H, W) and w (C, 1, k, k); differentiable at will."""

    @staticmethod
    def forward(x: Tensor, w: Tensor, stride: int, padding: int, size: tuple[int, int]) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            columns = x.permute(0, 2, 3, 1).flatten(1, 2) @ w.flatten(1)  # (N, H W, k k)
            return F.fold(columns.transpose(1, 2), size, w.shape[-1], stride=stride, padding=padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w, ctx.stride, ctx.padding, _ = inputs
        ctx.save_for_backward(x, w)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        options = {"stride": ctx.stride, "padding": ctx.padding}
        towards_x = towards_w = None
        if ctx.needs_input_grad[0]:
            towards_x = F.conv2d(gradient, w, **options)
        if ctx.needs_input_grad[1]:
            towards_w = nn.grad.conv2d_weight(gradient, w.shape, x, **options)
            if w.stride(1) == 1:  # DDP wants the strides of the weight, which are free where there is one channel
                towards_w = towards_w.squeeze(1).unsqueeze(-1).movedim(-1, 1)
        return towards_x, towards_w, None, None, None


class _FromOne(torch.autograd.Function):
    """``conv2d(x, w)`` for x (N, 1, H, W) and w (C, 1, k, k); differentiable at will."""

    @staticmethod
    def forward(x: Tensor, w: Tensor, stride: int, padding: int) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(x, w, stride=stride, padding=padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(x, w)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        towards_x = towards_w = None
        if ctx.needs_input_grad[0]:
            towards_x = _ToOne.apply(gradient, w, ctx.stride, ctx.padding, tuple(x.shape[-2:]))
        if ctx.needs_input_grad[1]:
            towards_w = nn.grad.conv2d_weight(x, w.shape, gradient, stride=ctx.stride, padding=ctx.padding)
        return towards_x, towards_w, None, None
