"""The base of models that train against a discriminator: the two steps, logits, and a check of health."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_aigc.build import did_you_mean
from lit_aigc.errors import InputError
from lit_aigc.losses.gan import ADVERSARIAL_LOSSES
from lit_aigc.modules.base import CHECKPOINT_KEY, GenerativeModule, TrainingDiverged
from lit_aigc.modules.capabilities import JudgesPairs
from lit_aigc.modules.gan_health import PATIENCE, Alarm
from lit_aigc.spec import Batch

log = logging.getLogger(__name__)

_WITHOUT_BATCH_NORM = "model.discriminator.normalization=none"


class AdversarialModule(GenerativeModule):
    """A generative module with a discriminator, whose optimizer is the first, and an opponent, which generates.

    A subclass's constructor calls `set_discriminator`.

    Attributes:
        discriminator: ``discriminator(x, y) -> (N,)`` logits.
        loss: One of `lit_aigc.losses.gan.ADVERSARIAL_LOSSES`.
        alarm: Counts how long a network has looked collapsed, from ``d_spread``, ``d_loss`` and ``diversity``.
        opponent: The option that holds the optimizer of the discriminator's opponent, for messages.
        penalty: The option of a penalty on gradients that restrains the discriminator, for messages.
        remedy: What else helps against a discriminator that wins, for messages.
    """

    opponent = "generator_optimizer"
    penalty = "model.regularization.r1=1"
    remedy = "use augmentation (model.augment)"

    def set_discriminator(self, discriminator: nn.Module, loss: str) -> None:
        """Take a discriminator and the name of its loss.

        Raises:
            InputError: If there is no loss of that name.
        """
        if loss not in ADVERSARIAL_LOSSES:
            raise InputError(f"model.loss={loss!r} is unknown{did_you_mean(loss, ADVERSARIAL_LOSSES)}")
        self.discriminator = discriminator
        self._judges_pairs = isinstance(discriminator, JudgesPairs)
        self.loss = ADVERSARIAL_LOSSES[loss]
        self.alarm = Alarm(self.loss.least)
        self._shares = False  # whether the discriminator's step leaves a graph for its opponent's
        self._outputs: Any = None  # what the opponent made of the batch
        self._compiled_pair: Callable[..., tuple[Tensor, Tensor]] | None = None
        if self.recipe.compile:
            self._compiled_pair = torch.compile(self._eager_pair)

    # -- what a subclass implements

    @property
    def opponent_is_due(self) -> bool:
        """Whether the opponent makes a step on this batch."""
        return True

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
        due = self.opponent_is_due
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
        pair = self._eager_pair if twice or self._compiled_pair is None else self._compiled_pair
        real_logits, fake_logits = pair(real, fake.to(real.dtype), y)
        return real_logits.float(), fake_logits.float()

    def _eager_pair(self, real: Tensor, fake: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        if self._judges_pairs:
            return self.discriminator.pair(real, fake, y)
        return self.discriminator.forward(real, y), self.discriminator.forward(fake, y)

    @property
    def penalizes_gradients(self) -> bool:
        """Whether the discriminator's loss holds a gradient with respect to images; given by a subclass."""
        raise NotImplementedError

    @property
    def synchronizes_statistics(self) -> bool:
        """Whether the discriminator's BatchNorm spans several processes: its backward has no derivative."""
        layers = any(isinstance(layer, nn.SyncBatchNorm) for layer in self.discriminator.modules())
        return layers and self.trainer.world_size > 1

    @property
    def damping(self) -> str:
        """What restrains the discriminator, for messages; see `penalty`."""
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
        self.alarm.observe(means)
        batches = PATIENCE * self.log_every
        if self.alarm.generator_collapsed and self.trainer.is_global_zero:
            log.warning(
                "The generator has collapsed: for %d batches its images of one class differ by less than a tenth of "
                "what real ones do (train/diversity %.3f). Raise discriminator_optimizer.lr, add %s, or start again "
                "with another seed.",
                batches,
                means["diversity"],
                self.damping,
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
        checkpoint[CHECKPOINT_KEY]["alarm"] = self.alarm.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` saved."""
        super().on_load_checkpoint(checkpoint)
        self.alarm.load_state_dict(checkpoint[CHECKPOINT_KEY].get("alarm", self.alarm.state_dict()))
