"""Priors of latents: a standard normal, or a mixture of posteriors."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_aigc.errors import InputError, check
from lit_aigc.networks.layers.densities import kl_standard_normal, normal_log_prob

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Images ``(N, C, H, W)`` to the mean and log-variance of their posterior, ``(N, d)`` each."""


class StandardNormal(nn.Module):
    """N(0, 1) in each dimension."""

    def draw(self, eps: Tensor, encode: Encode) -> Tensor:
        """Map standard normal noise ``(N, d)`` to latents ``(N, d)``."""
        return eps

    def log_prob(self, z: Tensor, encode: Encode) -> Tensor:
        """Map latents ``(N, d)`` to log densities ``(N,)``."""
        return normal_log_prob(z, z.new_zeros(()), z.new_zeros(())).sum(dim=1)

    def kl(self, mean: Tensor, log_var: Tensor) -> Tensor | None:
        """Return the KL of posteriors from it in closed form, ``(N, d)``."""
        return kl_standard_normal(mean, log_var)


class VampPrior(nn.Module):
    """The mixture of the posteriors of learned images (Tomczak and Welling, "VAE with a VampPrior", 2018).

    Not for class-conditional models, whose encoders would need a class for each learned image.

    Args:
        shape: ``(C, H, W)`` of the images.
        components: Number of learned images.
        num_classes: Number of classes: 0.

    Raises:
        InputError: If there are no components, or there are classes.
    """

    def __init__(self, shape: tuple[int, int, int], components: int = 500, num_classes: int = 0) -> None:
        super().__init__()
        if num_classes:
            raise InputError(
                "The learned images of a VampPrior have no classes: set model.conditional=false, or use the prior "
                "lit_aigc.networks.prior.StandardNormal."
            )
        check(("prior.components", components, components >= 1, "1 or more"))
        self.images = nn.Parameter(0.5 * torch.randn(components, *shape))

    def draw(self, eps: Tensor, encode: Encode) -> Tensor:
        """Map standard normal noise ``(N, d)`` to latents ``(N, d)``; the first number also selects the component."""
        mean, log_var = self._components(encode)
        k = len(mean)
        # The whole part of a uniform number selects the component; its fraction is uniform too, and independent.
        place = torch.special.ndtr(eps[:, 0].double()) * k  # in [0, k)
        chosen = place.long().clamp(max=k - 1)
        fraction = (place - chosen).clamp(1e-9, 1 - 1e-9)
        rest = torch.special.ndtri(fraction).to(eps)  # normal again
        eps = torch.cat([rest[:, None], eps[:, 1:]], dim=1)
        return mean[chosen] + (0.5 * log_var[chosen]).exp() * eps

    def log_prob(self, z: Tensor, encode: Encode) -> Tensor:
        """Map latents ``(N, d)`` to log densities ``(N,)``."""
        # The sum over d of (z - m)^2 / v as three matrix products takes (N, K) numbers instead of (N, K, d). The terms
        # nearly cancel if v is small; float64, which autocast doesn't touch, is precise enough.
        z = z.double()
        mean, log_var = (part.double() for part in self._components(encode))  # (K, d)
        precision = torch.exp(-log_var)
        squares = z.square() @ precision.T - 2 * z @ (mean * precision).T + (mean.square() * precision).sum(dim=1)
        constant = log_var.sum(dim=1) + mean.shape[1] * math.log(2 * math.pi)
        return (torch.logsumexp(-0.5 * (squares + constant), dim=1) - math.log(len(mean))).float()

    def kl(self, mean: Tensor, log_var: Tensor) -> Tensor | None:
        """Return None, since there is no closed form."""
        return None

    def _components(self, encode: Encode) -> tuple[Tensor, Tensor]:
        mean, log_var = encode(torch.tanh(self.images))
        return mean.float(), log_var.float()
