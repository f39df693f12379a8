"""Causal attention that is fast where it runs."""

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
    if q.device.type != "cpu" or not torch.is_grad_enabled() or q.shape[2] > _LONGEST_WRITTEN_OUT:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    n, heads, length, d = q.shape
    later = torch.full((length, length), -torch.inf, dtype=q.dtype).triu(1)
    q, k, v = (x.reshape(n * heads, length, d) for x in (q, k, v))
    with torch.autocast("cpu", enabled=False):  # else the scores are copied to full precision and back
        scores = torch.baddbmm(later, q, k.transpose(1, 2), alpha=d**-0.5)  # (N heads, T, T)
        return (F.softmax(scores, dim=2) @ v).unflatten(0, (n, heads))
