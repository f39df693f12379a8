"""GAN health: statistics for the log, and an alarm for collapses that GANs don't recover from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

PATIENCE = 10  # log windows in a row that have to look collapsed
_SAME_LOGIT_FOR_ALL = 1e-5
_NOTHING_LEFT_TO_LEARN = 1e-4
_SAME_IMAGE_FOR_ALL = 0.1


def spread_within_classes(images: Tensor, labels: Tensor | None, num_classes: int) -> Tensor:
    """Return the root mean squared distance of pixels from the mean image of their class in the batch.

    Args:
        images: ``(N, C, H, W)``.
        labels: ``(N,)``, or None for one class.
        num_classes: Number of classes.

    Returns:
        A scalar in the unit of the images: 0 when all images of a class are the same.
    """
    flat = images.detach().float().flatten(1)
    if labels is None:
        return (flat - flat.mean(dim=0)).square().mean().sqrt()
    sums = flat.new_zeros(num_classes, flat.shape[1]).index_add_(0, labels, flat)
    counts = flat.new_zeros(num_classes).index_add_(0, labels, flat.new_ones(len(flat))).clamp(min=1)
    return (flat - (sums / counts[:, None])[labels]).square().mean().sqrt()


def gan_statistics(real: Tensor, fake: Tensor, labels: Tensor | None, num_classes: int) -> dict[str, Tensor]:
    """Return statistics of the generator's output, for the log.

    Args:
        real: ``(N, C, H, W)``.
        fake: ``(N, C, H, W)``.
        labels: ``(N,)`` of both, or None.
        num_classes: Number of classes.

    Returns:
        ``mean_output`` and ``std_output`` of all pixels, and ``diversity``: how much images of one class differ,
        relative to real ones; near 0 is mode collapse, 1 is healthy.
    """
    fake_spread = spread_within_classes(fake, labels, num_classes)
    real_spread = spread_within_classes(real, labels, num_classes)
    return {
        "mean_output": fake.detach().float().mean(),
        "std_output": fake.detach().float().std(),
        "diversity": fake_spread / real_spread.clamp(min=1e-6),
    }


@dataclasses.dataclass
class Alarm:
    """Counts the log windows in a row in which a network looked collapsed.

    Attributes:
        least_loss: The smallest value that the discriminator's loss can have.
        discriminator: Windows in which it gave all images the same logit, or made no error to learn from.
        generator: Windows in which it drew one image per class.
    """

    least_loss: float = 0.0
    discriminator: int = 0
    generator: int = 0

    def observe(self, means: Mapping[str, float]) -> None:
        """Take in the means of a window."""
        self.discriminator = self.discriminator + 1 if _silent(means) or self._perfect(means) else 0
        self.generator = self.generator + 1 if means.get("diversity", 1.0) < _SAME_IMAGE_FOR_ALL else 0

    def discriminator_collapsed(self, means: Mapping[str, float]) -> str | None:
        """Return how it shows that no generator can learn from the discriminator any more, or None."""
        if self.discriminator < PATIENCE:
            return None
        if _silent(means):
            return f"it gives all images the same logit (spread {means['d_spread']:.1e})"
        return f"it tells real from fake without error (loss {means['d_loss']:.1e})"

    @property
    def generator_collapsed(self) -> bool:
        """Whether the generator's collapse has just lasted long enough to be reported."""
        return self.generator == PATIENCE

    def state_dict(self) -> dict[str, int]:
        """Return the counts, for a checkpoint."""
        return {"discriminator": self.discriminator, "generator": self.generator}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore the counts of `state_dict`."""
        self.discriminator, self.generator = state["discriminator"], state["generator"]

    def _perfect(self, means: Mapping[str, float]) -> bool:
        return means["d_loss"] - self.least_loss < _NOTHING_LEFT_TO_LEARN


def _silent(means: Mapping[str, float]) -> bool:
    return means["d_spread"] < _SAME_LOGIT_FOR_ALL


def logit_statistics(real: Tensor, fake: Tensor, pairs: bool) -> dict[str, Tensor]:
    """Return statistics of the discriminator's logits ``(N,)``, for the log.

    Args:
        real: Logits of real images.
        fake: Logits of fake images.
        pairs: Whether only differences of real and fake logits mean something (relativistic and Wasserstein losses).

    Returns:
        ``d_accuracy``, the share of images on the right side of 0, or of pairs in the right order; ``d_spread``, the
        deviation of all logits.
    """
    real, fake = real.detach(), fake.detach()
    if pairs:
        accuracy = (real > fake).float().mean()
    else:
        accuracy = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
    return {"d_accuracy": accuracy, "d_spread": torch.cat([real, fake]).std(correction=0)}
