"""Adversarial losses on the discriminator's logits, each a pair of pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F


class AdversarialLoss(NamedTuple):
    """The losses of both players.

    Attributes:
        discriminator: Maps logits of real and of fake images, ``(N,)`` each, to the discriminator's mean loss.
        generator: Maps the same to the generator's mean loss.
        compares: Whether the generator's loss depends on the real logits.
        pairs: Whether only differences of real and fake logits count, not their signs.
        least: Smallest value of the discriminator's loss, which it approaches when it separates real and fake images.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor | None, Tensor], Tensor]
    compares: bool = False
    pairs: bool = False
    least: float = 0.0


def logistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return ``-log sigmoid(real) - log(1 - sigmoid(fake))`` (Goodfellow et al., "GANs", 2014, equation 1)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def minimax_generator(real: Tensor | None, fake: Tensor) -> Tensor:
    """Return ``log(1 - sigmoid(fake))``, the minimax game's loss (Goodfellow et al., 2014, equation 1)."""
    return -F.softplus(fake).mean()


def non_saturating_generator(real: Tensor | None, fake: Tensor) -> Tensor:
    """Return ``-log sigmoid(fake)`` (Goodfellow et al., 2014, section 3)."""
    return F.softplus(-fake).mean()


def least_squares_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return ``((real - 1)^2 + fake^2) / 2`` (Mao et al., "Least squares GANs", 2017, equation 9)."""
    return 0.5 * ((real - 1.0).square().mean() + fake.square().mean())


def least_squares_generator(real: Tensor | None, fake: Tensor) -> Tensor:
    """Return ``(fake - 1)^2 / 2`` (Mao et al., 2017, equation 9)."""
    return 0.5 * (fake - 1.0).square().mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return ``max(0, 1 - real) + max(0, 1 + fake)`` (Lim and Ye, "Geometric GAN", 2017)."""
    return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()


def hinge_generator(real: Tensor | None, fake: Tensor) -> Tensor:
    """Return ``-fake`` (Lim and Ye, 2017)."""
    return -fake.mean()


def wasserstein_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return ``fake - real``, the negative estimate of the distance (Arjovsky et al., "Wasserstein GAN", 2017).

    It is an estimate only if the discriminator is Lipschitz: clip its weights, or add the gradient penalty.
    """
    return fake.mean() - real.mean()


def relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return ``-log sigmoid(real - fake)`` over pairs of one real and one fake image.

    Jolicoeur-Martineau, "The relativistic discriminator", 2018; Huang et al., "The GAN is dead; long live the GAN!",
    2024, equation 2.
    """
    return F.softplus(fake - real).mean()


def relativistic_generator(real: Tensor | None, fake: Tensor) -> Tensor:
    """Return ``-log sigmoid(fake - real)`` over the same pairs as the discriminator's loss."""
    return F.softplus(real - fake).mean()


ADVERSARIAL_LOSSES = {
    "minimax": AdversarialLoss(logistic_discriminator, minimax_generator),
    "non_saturating": AdversarialLoss(logistic_discriminator, non_saturating_generator),
    "least_squares": AdversarialLoss(least_squares_discriminator, least_squares_generator),
    "hinge": AdversarialLoss(hinge_discriminator, hinge_generator),
    "wasserstein": AdversarialLoss(wasserstein_discriminator, hinge_generator, pairs=True, least=float("-inf")),
    "relativistic": AdversarialLoss(relativistic_discriminator, relativistic_generator, compares=True, pairs=True),
}
