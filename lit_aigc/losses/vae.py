"""Terms of variational bounds: pure functions on tensors, in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def free_bits(kl: Tensor, least: float) -> Tensor:
    """Return the KL of each group, of which the first nats are free (Kingma et al., 2016, equation 15).

    Args:
        kl: ``(N, G)`` KL of each group of latents.
        least: Nats per group, in the mean over the batch, below which there is nothing to gain.

    Returns:
        ``(G,)``.
    """
    return kl.mean(dim=0).clamp(min=least)


def importance_bound(log_weights: Tensor) -> Tensor:
    """Return the importance-weighted bound ``log 1/k sum_i w_i`` (Burda, Grosse and Salakhutdinov, 2016, equation 8).

    Args:
        log_weights: ``(..., k)``: log p(x, z_i) - log q(z_i | x) of k draws z_i from q.

    Returns:
        ``(...)``: for k = 1 a sample of the ELBO; for more draws closer to log p(x), from below.
    """
    return torch.logsumexp(log_weights, dim=-1) - math.log(log_weights.shape[-1])


def annealed(weight: float, progress: float, share: float) -> float:
    """Return a weight that rises linearly from 0 over the first `share` of the budget (Bowman et al., 2016).

    Args:
        weight: Its value after that.
        progress: Share of the budget that is used, in [0, 1].
        share: Of the budget; 0: no rise.
    """
    return weight * min(1.0, progress / share) if share else weight
