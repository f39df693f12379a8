"""Cheap operations with hand-written gradients, which save half of autograd's passes over memory.

Gradients save inputs and outputs only, never an intermediate result. So they can be differentiated again, and
`torch.func` works.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _RMSNorm(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        exact = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact)
        scale = (norm * norm).div_(x.shape[-1]).add_(eps).rsqrt_().to(x.dtype)
        return x * scale, scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, of_scale: Tensor) -> tuple[Tensor, None]:
        y, scale = ctx.saved_tensors
        along = (gradient * y).mean(dim=-1, keepdim=True) + of_scale * scale / y.shape[-1]
        return torch.addcmul(gradient, y, along, value=-1.0).mul_(scale), None


def rms_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Return ``x / sqrt(mean(x**2) + eps)`` over the last dimension (Zhang and Sennrich, 2019), without a gain."""
    return _RMSNorm.apply(x, eps)[0]


class _SquaredReLU(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        positive = x.clamp_min(0)
        return positive.mul_(positive)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.addcmul(x.new_zeros(()), gradient, x.clamp_min(0), value=2.0)


def squared_relu(x: Tensor) -> Tensor:
    """Return ``max(x, 0)**2`` (So et al., "Primer", 2021)."""
    return _SquaredReLU.apply(x)


class _Rotation(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        return _rotated(x, cosine, sine)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return _rotated(gradient, cosine, -sine), None, None


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Apply rotary positions (Su et al., 2021): rotate pairs of the i-th numbers of the first and the second half.

    Args:
        x: ``(…, d)``.
        cosine: Cosines of the angles, ``(…, d / 2)``.
        sine: Sines of the angles.
    """
    return _Rotation.apply(x, cosine.to(x.dtype), sine.to(x.dtype))


def _rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    out = x * torch.cat([cosine, cosine], dim=-1)
    out[..., :half].addcmul_(x[..., half:], sine, value=-1.0)
    out[..., half:].addcmul_(x[..., :half], sine)
    return out
