"""Adversarial losses on the discriminator's logits, each a pair of pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F


class AdversarialLoss(NamedTuple):
    """The two sides of a game.

    Attributes:
        discriminator: From the logits of real and of fake images, ``(N,)`` each, to the discriminator's mean loss.
        generator: From the logits of fake images, ``(N,)``, to the generator's mean loss.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def logistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """``-log sigmoid(real) - log(1 - sigmoid(fake))`` (Goodfellow et al., "Generative adversarial nets", 2014)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def non_saturating_generator(fake: Tensor) -> Tensor:
    """``-log sigmoid(fake)`` (Goodfellow et al., 2014, section 3)."""
    return F.softplus(-fake).mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """``max(0, 1 - real) + max(0, 1 + fake)`` (Lim and Ye, "Geometric GAN", 2017)."""
    return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """``-fake`` (Lim and Ye, 2017)."""
    return -fake.mean()


ADVERSARIAL_LOSSES = {
    "non_saturating": AdversarialLoss(logistic_discriminator, non_saturating_generator),
    "hinge": AdversarialLoss(hinge_discriminator, hinge_generator),
}
