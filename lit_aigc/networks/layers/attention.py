"""Attention that is fast where it runs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_LONGEST_WRITTEN_OUT = 512


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of each position to itself and those before, ``(N, heads, T, d)`` each and so the result.

    On a CPU the gradient of PyTorch's fused attention takes several times as long as all the rest of a small
    transformer, so for short rows that are trained on it is written out: the scores then take ``N * heads * T * T``
    numbers.
    """
    if not _write_out(q, k):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return _written_out(q, k, v, torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1))


def masked_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Attention of ``q`` (N, heads, T, d) to those of ``k`` and ``v`` (N, heads, S, d) that are seen.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        seen: ``(N, S)`` bool.
    """
    if not _write_out(q, k):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None])
    return _written_out(q, k, v, ~seen.repeat_interleave(q.shape[1], 0)[:, None])


def _write_out(q: Tensor, k: Tensor) -> bool:
    return q.device.type == "cpu" and torch.is_grad_enabled() and max(q.shape[2], k.shape[2]) <= _LONGEST_WRITTEN_OUT


def _written_out(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
    """`hidden` is ``(T, S)`` or ``(N heads, 1, S)`` bool."""
    n, heads, _, d = q.shape
    q, k, v = (x.reshape(n * heads, -1, d) for x in (q, k, v))
    bias = torch.zeros(hidden.shape, dtype=q.dtype).masked_fill_(hidden, -torch.inf)
    with torch.autocast("cpu", enabled=False):  # else the scores are copied to full precision and back
        scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=d**-0.5)  # (N heads, T, S)
        return (F.softmax(scores, dim=2) @ v).unflatten(0, (n, heads))
