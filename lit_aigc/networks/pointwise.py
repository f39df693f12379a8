"""Cheap operations with their gradients written by hand, which saves half of autograd's passes over memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact).square_()
        scale = square.div_(x.shape[-1]).add_(eps).rsqrt_().to(x.dtype)
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        y, scale = ctx.saved_tensors
        along = (gradient * y).mean(dim=-1, keepdim=True)
        return torch.addcmul(gradient, y, along, value=-1.0).mul_(scale), None


def rms_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """``x / sqrt(mean(x**2) + eps)`` over the last dimension (Zhang and Sennrich, 2019), without a learned gain."""
    return _RMSNorm.apply(x, eps)


class _SquaredReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = x.clamp_min(0)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return (gradient * positive).mul_(2.0)


def squared_relu(x: Tensor) -> Tensor:
    """``max(x, 0)**2`` (So et al., "Primer", 2021)."""
    return _SquaredReLU.apply(x)


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _rotated(x, cosine, sine)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return _rotated(gradient, cosine, -sine), None, None


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions (Su et al., 2021): the i-th number of the first half and of the second are turned as a pair.

    Args:
        x: ``(…, d)``.
        cosine: Of the angles, ``(…, d / 2)``.
        sine: Of the angles.
    """
    return _Rotation.apply(x, cosine.to(x.dtype), sine.to(x.dtype))


def _rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    out = torch.empty_like(x)
    a, b = out.chunk(2, dim=-1)
    torch.mul(first, cosine, out=a).addcmul_(second, sine, value=-1.0)
    torch.mul(first, sine, out=b).addcmul_(second, cosine)
    return out
