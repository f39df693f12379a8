"""Muon in the precision in which the machine is fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim._muon import _adjust_lr


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` (Jordan, 2024), which orthogonalizes in bfloat16 wherever it runs.

    On a CPU this one does so in the precision of autocast, or without autocast in that of the weights: matrix products
    in bfloat16 take 20 times as long on CPUs that have no instructions for them.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step, as `torch.optim.Muon` does."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            weights, gradients, momenta = [], [], []
            self._init_group(group, weights, gradients, momenta)
            for weight, gradient, momentum in zip(weights, gradients, momenta, strict=True):
                momentum.lerp_(gradient, 1 - group["momentum"])
                update = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
                update = orthogonalized(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-_adjust_lr(group["lr"], group["adjust_lr_fn"], weight.shape))
        return loss


def orthogonalized(matrix: Tensor, coefficients: Sequence[float], steps: int, eps: float) -> Tensor:
    """Return a matrix with its singular values brought near 1 by Newton-Schulz iterations.

    Args:
        matrix: ``(m, n)``.
        coefficients: Of the odd quintic polynomial that each iteration applies to the singular values.
        steps: Number of iterations.
        eps: The smallest norm by which the matrix is divided at first.

    Returns:
        ``(m, n)`` in the precision that it was computed in.
    """
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(_precision(matrix))
    x = x.T if tall else x
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        gram = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, gram, x, beta=a)
    return x.T if tall else x


def _precision(matrix: Tensor) -> torch.dtype:
    if matrix.device.type != "cpu":
        return torch.bfloat16
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else matrix.dtype
