"""The base of models that train against a discriminator: the two steps, statistics of health, and an alarm."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_aigc.build import did_you_mean
from lit_aigc.errors import InputError
from lit_aigc.losses.gan import ADVERSARIAL_LOSSES
from lit_aigc.modules.base import CHECKPOINT_KEY, GenerativeModule, TrainingDiverged
from lit_aigc.modules.capabilities import HasFeatures, JudgesPairs
from lit_aigc.spec import Batch

log = logging.getLogger(__name__)

PATIENCE = 10  # log windows in a row that have to look collapsed
_SAME_LOGIT_FOR_ALL = 1e-5
_NOTHING_LEFT_TO_LEARN = 1e-4
_SAME_IMAGE_FOR_ALL = 0.1

_WITHOUT_BATCH_NORM = "model.discriminator.normalization=none"


@dataclasses.dataclass
class Alarm:
    """Counts the log windows in a row in which a network looked collapsed.

    Attributes:
        discriminator: Windows in which it gave all images the same logit, or made no error to learn from.
        generator: Windows in which it drew one image per class.
    """

    discriminator: int = 0
    generator: int = 0

    def observe(self, means: Mapping[str, float], least: float = 0.0) -> None:
        """Take in the means of a window, and the least value that the discriminator's loss can have."""
        perfect = means["d_loss"] - least < _NOTHING_LEFT_TO_LEARN
        self.discriminator = self.discriminator + 1 if _silent(means) or perfect else 0
        self.generator = self.generator + 1 if means.get("diversity", 1.0) < _SAME_IMAGE_FOR_ALL else 0

    def discriminator_collapsed(self, means: Mapping[str, float]) -> str | None:
        """Return how it shows that no generator can learn from the discriminator any more, or None."""
        if self.discriminator < PATIENCE:
            return None
        if _silent(means):
            return f"it gives all images the same logit (spread {means['d_spread']:.1e})"
        return f"it tells real from fake without error (loss {means['d_loss']:.1e})"


def _silent(means: Mapping[str, float]) -> bool:
    return means["d_spread"] < _SAME_LOGIT_FOR_ALL


class AdversarialModule(GenerativeModule):
    """A generative module with a discriminator, whose optimizer is the first, and an opponent, which generates.

    A subclass's constructor ends with `set_players`.

    Attributes:
        discriminator: ``discriminator(x, y) -> (N,)`` logits.
        loss: One of `lit_aigc.losses.gan.ADVERSARIAL_LOSSES`.
        alarm: Counts how long a network has looked collapsed, from ``d_spread``, ``d_loss`` and ``diversity``.
        penalizes_gradients: Whether the discriminator's loss holds a gradient with respect to images; set by a
            subclass's constructor.
        n_critic: Discriminator steps per step of the opponent.
        opponent: The option that holds the optimizer of the discriminator's opponent, for messages.
        penalty: The option of a penalty on gradients that restrains the discriminator, for messages.
        remedy: What else helps against a discriminator that wins, for messages.
    """

    penalizes_gradients: bool
    n_critic = 1
    opponent = "generator_optimizer"
    penalty = "model.regularization.r1=1"
    remedy = "use augmentation (model.augment)"

    def set_players(
        self,
        generating: nn.Module,
        discriminator: nn.Module,
        loss: str,
        optimizers: Mapping[str, Any],
        needs_features: str = "",
    ) -> None:
        """Take both players, and prepare them; the end of a subclass's constructor.

        Args:
            generating: The opponent, already an attribute.
            discriminator: See the class.
            loss: Name of the loss.
            optimizers: By name in the log, the configs of the discriminator's optimizer and the opponent's.
            needs_features: What needs the discriminator's features, for a message; empty: nothing.

        Raises:
            InputError: If there is no loss of that name, or the discriminator has no features.
        """
        if needs_features and not isinstance(discriminator, HasFeatures):
            raise InputError(
                f"{needs_features} needs a discriminator with features(x) and head(features, y), which "
                f"{type(discriminator).__name__} lacks."
            )
        if loss not in ADVERSARIAL_LOSSES:
            raise InputError(f"model.loss={loss!r} is unknown{did_you_mean(loss, ADVERSARIAL_LOSSES)}")
        self.discriminator = discriminator
        self._judges_pairs = isinstance(discriminator, JudgesPairs)
        self.loss = ADVERSARIAL_LOSSES[loss]
        self.alarm = Alarm()
        self._shares = False  # whether the discriminator's step leaves a graph for its opponent's
        self._outputs: Any = None  # what the opponent made of the batch
        self._compiled_pair = torch.compile(self._eager_pair) if self.recipe.compile else self._eager_pair
        (d, d_config), (g, g_config) = optimizers.items()
        self.prepare(generating, discriminator, optimizers={d: (d_config, discriminator), g: (g_config, generating)})

    # -- what a subclass implements

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the discriminator's loss and scalars to log; leave the opponent's outputs for its own step."""
        raise NotImplementedError

    def opponent_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the discriminator's opponent, and scalars to log."""
        raise NotImplementedError

    def after_discriminator(self, values: dict[str, Tensor], batch: Batch) -> None:
        """Do what follows the discriminator's step; may change its scalars."""

    # -- training

    def train_batch(self, batch: Batch) -> Mapping[str, Tensor]:
        """Make one step of the discriminator, and one of its opponent if that is due."""
        discriminator_optimizer, opponent_optimizer = self.optimizers()
        due = (self.batches + 1) % self.n_critic == 0
        # One forward pass of the opponent serves both steps, unless the batch comes in parts to save memory.
        self._shares = due and self.recipe.accumulate == 1
        values = self.update(discriminator_optimizer, batch, self.discriminator_loss, name="d", generates=False)
        self.after_discriminator(values, batch)
        if due:
            # The opponent's gradient passes through the discriminator, whose weights need none.
            self.discriminator.requires_grad_(False)
            values |= self.update(opponent_optimizer, batch, self.opponent_loss, name=self.optimizer_names[1])
            self.discriminator.requires_grad_(True)
            self._outputs = None
        return values

    def logits_of_pair(self, real: Tensor, fake: Tensor, y: Tensor | None, twice: bool) -> tuple[Tensor, Tensor]:
        """Return the logits ``(N,)`` of two batches of one size and the same labels, in float32.

        Args:
            real: ``(N, C, H, W)``.
            fake: ``(N, C, H, W)``.
            y: ``(N,)`` of both, or None.
            twice: Whether their gradients will be differentiated again, which compiled code can't be.
        """
        pair = self._eager_pair if twice else self._compiled_pair
        real_logits, fake_logits = pair(real, fake.to(real.dtype), y)
        return real_logits.float(), fake_logits.float()

    def _eager_pair(self, real: Tensor, fake: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        if self._judges_pairs:
            return self.discriminator.pair(real, fake, y)
        return self.discriminator.forward(real, y), self.discriminator.forward(fake, y)

    @property
    def synchronizes_statistics(self) -> bool:
        """True if the discriminator's BatchNorm spans several processes: its backward has no derivative."""
        layers = any(isinstance(layer, nn.SyncBatchNorm) for layer in self.discriminator.modules())
        return layers and self.trainer.world_size > 1

    @property
    def damping(self) -> str:
        """Name the options that restrain the discriminator, for messages; see `penalty`."""
        return f"{_WITHOUT_BATCH_NORM} and {self.penalty}" if self.synchronizes_statistics else self.penalty

    def on_fit_start(self) -> None:
        """Refuse what would fail at the first batch.

        Raises:
            InputError: If a penalty's gradient would have to be differentiated through a synchronized BatchNorm.
        """
        if self.penalizes_gradients and self.synchronizes_statistics:
            raise InputError(
                "r1, r2 and gradient_penalty can't be trained through a BatchNorm that is synchronized among "
                "processes, since PyTorch can't differentiate it twice. Set "
                f"{_WITHOUT_BATCH_NORM} (or spectral), or trainer.sync_batchnorm=false."
            )

    def check_health(self, means: Mapping[str, float]) -> None:
        """Stop when nothing could learn from the discriminator any more; warn when the generator has collapsed."""
        self.alarm.observe(means, self.loss.least)
        batches = PATIENCE * self.log_every
        if self.alarm.generator == PATIENCE and self.trainer.is_global_zero:  # once per collapse
            log.warning(
                f"The generator has collapsed: for {batches} batches its images of one class differ by less than a "
                f"tenth of what real ones do (train/diversity {means['diversity']:.3f}). Raise "
                f"discriminator_optimizer.lr, add {self.damping}, or start again with another seed."
            )
        if seen := self.alarm.discriminator_collapsed(means):
            raise TrainingDiverged(
                f"The discriminator has collapsed: for {batches} batches {seen}, so the generator learns nothing more. "
                f"The last good checkpoint is kept. Lower discriminator_optimizer.lr, raise {self.opponent}.lr, or "
                f"{self.remedy}."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save, besides what the base saves, how long something has looked wrong."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY]["alarm"] = dataclasses.asdict(self.alarm)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` saved."""
        super().on_load_checkpoint(checkpoint)
        vars(self.alarm).update(checkpoint[CHECKPOINT_KEY].get("alarm", {}))


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
