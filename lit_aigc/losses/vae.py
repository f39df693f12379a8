"""Terms of variational bounds: pure functions on tensors, in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOG_2PI = math.log(2 * math.pi)


def normal_log_prob(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Log density of a normal distribution, elementwise; all shapes broadcast."""
    return -0.5 * (LOG_2PI + log_var + (x - mean).square() * torch.exp(-log_var))


class _BernoulliLogProb(torch.autograd.Function):
    """Log-sigmoids by log and sigmoid: on CPUs a fourth of the time of PyTorch's, which go by log1p."""

    @staticmethod
    def forward(ctx, logits: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(logits, target)
        return torch.sigmoid(logits.abs()).log_().sub_(logits.clamp(min=0)).addcmul_(target, logits)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        logits, target = ctx.saved_tensors
        return (target - torch.sigmoid(logits)).mul_(gradient), None


def bernoulli_log_prob(logits: Tensor, target: Tensor) -> Tensor:
    """Log-probability of 1 with chance `target` and else of 0, elementwise: minus the cross-entropy.

    Args:
        logits: Of the chance of a 1; any shape.
        target: Of the same shape, in [0, 1]; has no gradient.
    """
    return _BernoulliLogProb.apply(logits, target)


def kl_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, 1)), elementwise (Kingma and Welling, 2014, appendix B)."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var)


def free_bits(kl: Tensor, least: float) -> Tensor:
    """The KL of each group, of which the first nats are free (Kingma et al., 2016, equation 15).

    Args:
        kl: ``(N, G)`` KL of each group of latents.
        least: Nats of a group, in the mean over the batch, below which there is nothing to gain.

    Returns:
        ``(G,)``.
    """
    return kl.mean(dim=0).clamp(min=least)


def importance_bound(log_weights: Tensor) -> Tensor:
    """The importance-weighted bound ``log 1/k sum_i w_i`` (Burda, Grosse and Salakhutdinov, 2016, equation 8).

    Args:
        log_weights: ``(..., k)``: log p(x, z_i) - log q(z_i | x) of k draws z_i from q.

    Returns:
        ``(...)``: for k = 1 a sample of the ELBO; for more draws closer to log p(x), from below.
    """
    return torch.logsumexp(log_weights, dim=-1) - math.log(log_weights.shape[-1])


def annealed(weight: float, progress: float, share: float) -> float:
    """A weight that rises linearly from 0 over the first `share` of the budget (Bowman et al., 2016).

    Args:
        weight: Its value from then on.
        progress: Share of the budget that is used, in [0, 1].
        share: Of the budget; 0: no rise.
    """
    return weight * min(1.0, progress / share) if share else weight
