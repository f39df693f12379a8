"""Attention by the fastest implementation for the device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_LONGEST_SPELLED_OUT = 512


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend from each position to itself and those before it.

    On a CPU the gradient of PyTorch's fused attention takes several times as long as all the rest of a small
    transformer. So when training on short rows it is spelled out; the scores then take memory for
    ``N * heads * T * T`` numbers.

    Args:
        q: Queries, ``(N, heads, T, d)``.
        k: Keys of the same shape.
        v: Values of the same shape.

    Returns:
        ``(N, heads, T, d)``.
    """
    if not _spell_out(q, k):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return _spelled_out(q, k, v, torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1))


def masked_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attend to the positions that a mask selects.

    Args:
        q: Queries, ``(N, heads, T, d)``.
        k: Keys, ``(N, heads, S, d)``.
        v: Values, ``(N, heads, S, d)``.
        mask: ``(N, S)`` bool, True for the positions to attend to.

    Returns:
        ``(N, heads, T, d)``.
    """
    if not _spell_out(q, k):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
    return _spelled_out(q, k, v, ~mask.repeat_interleave(q.shape[1], 0)[:, None])


def _spell_out(q: Tensor, k: Tensor) -> bool:
    return q.device.type == "cpu" and torch.is_grad_enabled() and max(q.shape[2], k.shape[2]) <= _LONGEST_SPELLED_OUT


def _spelled_out(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
    """Attend with one matrix product per step; `hidden` is ``(T, S)`` or ``(N heads, 1, S)`` bool, True to ignore."""
    n, heads, _, d = q.shape
    q, k, v = (x.reshape(n * heads, -1, d) for x in (q, k, v))
    bias = torch.zeros(hidden.shape, dtype=q.dtype).masked_fill_(hidden, -torch.inf)
    with torch.autocast("cpu", enabled=False):  # otherwise the scores are copied to full precision and back
        scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=d**-0.5)  # (N heads, T, S)
        return (F.softmax(scores, dim=2) @ v).unflatten(0, (n, heads))
