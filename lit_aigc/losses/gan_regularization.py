"""Regularizers of adversarial training: pure functions on tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def squared_gradient(logits: Tensor, images: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Return the squared norm of each logit's gradient with respect to its own image; it is differentiable.

    Args:
        logits: ``(N,)``, computed from `images`.
        images: ``(N, ...)`` that require gradients.
        scale: Factor on the gradient while it is computed, for half precision. The loss scale keeps small values
            from underflowing, as in PyTorch's recipe for gradient penalties under automatic mixed precision.

    Returns:
        ``(N,)`` float32, whatever the scale.
    """
    (gradient,) = torch.autograd.grad(logits.sum() * scale, images, create_graph=True)
    return (gradient.float() / scale).square().flatten(1).sum(dim=1)


def zero_centered_penalty(logits: Tensor, images: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Return ``E |grad D(x)|^2 / 2``: R1 on real images, R2 on fake ones.

    Mescheder et al., "Which training methods for GANs do actually converge?", 2018, equation 9. Shapes as for
    `squared_gradient`; a scalar.
    """
    return 0.5 * squared_gradient(logits, images, scale).mean()


def one_centered_penalty(logits: Tensor, images: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Return ``E (|grad D(x)| - 1)^2``, the gradient penalty of WGAN-GP.

    Gulrajani et al., "Improved training of Wasserstein GANs", 2017, equation 3. Shapes as for `squared_gradient`; a
    scalar.
    """
    # The square root has no derivative at 0, so a dead discriminator would turn all weights into NaN.
    norms = (squared_gradient(logits, images, scale) + 1e-12).sqrt()
    return (norms - 1.0).square().mean()


def interpolate(real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Interpolate linearly between real and fake images (Gulrajani et al., 2017).

    Args:
        real: ``(N, ...)``.
        fake: ``(N, ...)``.
        share: ``(N,)``, the weight of the real image, in [0, 1].
    """
    share = share.view(-1, *[1] * (real.dim() - 1)).to(real.dtype)
    return share * real + (1.0 - share) * fake


def feature_matching(real: Tensor, fake: Tensor) -> Tensor:
    """Return ``mean_d (E f_d(real) - E f_d(fake))^2`` of the discriminator's features.

    Salimans et al., "Improved techniques for training GANs", 2016, section 3.1, which sums over the features; the
    mean makes the weight independent of the width.

    Args:
        real: ``(N, ...)``, taken as a constant.
        fake: ``(N, ...)``.
    """
    difference = real.detach().float().flatten(1).mean(dim=0) - fake.float().flatten(1).mean(dim=0)
    return difference.square().mean()


def learned_similarity(real: Tensor, fake: Tensor) -> Tensor:
    """Return half the squared distance between the features of each image and those of its reconstruction.

    Up to a constant, the negative log-likelihood of a Gaussian with unit variance: Larsen et al., "Autoencoding beyond
    pixels using a learned similarity metric", 2016, equation 7.

    Args:
        real: ``(N, ...)``.
        fake: ``(N, ...)``.

    Returns:
        ``(N,)`` float32, summed over the features.
    """
    return 0.5 * (real.float() - fake.float()).square().flatten(1).sum(dim=1)


@torch.no_grad()
def clip_weights(parameters: list[Tensor], limit: float) -> None:
    """Clip each weight to [-limit, limit], in place (Arjovsky et al., "Wasserstein GAN", 2017, algorithm 1)."""
    torch._foreach_clamp_min_(parameters, -limit)
    torch._foreach_clamp_max_(parameters, limit)
