"""How far training is under a plain Trainer, whose limits take the place of a budget."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch

from lit_aigc.errors import InputError

log = logging.getLogger(__name__)


class Timekeeper(L.Callback):
    """A callback that sets a module's ``progress`` and ``train_seconds`` itself, such as a clock with a budget."""


def check_limits(module: L.LightningModule) -> None:
    """Check that the Trainer of a module has a limit for training to run over; see `trainer_progress`.

    Raises:
        InputError: If there is none, and the recipe has a schedule.
    """
    if trainer_progress(module.trainer) is not None:
        return
    need = "set max_steps, or max_epochs with a loader that has a length (or with limit_train_batches)"
    if module.recipe.schedule != "constant" or module.recipe.warmup:
        raise InputError(
            f"model.recipe.schedule={module.recipe.schedule} with warmup={module.recipe.warmup} runs over all of "
            f"training, and the Trainer doesn't know how long that is: {need}."
        )
    log.warning("The Trainer doesn't know how long training is, so progress stays 0: %s.", need)


def trainer_progress(trainer: L.Trainer) -> float | None:
    """Return the share of the Trainer's nearest limit that is used, in [0, 1]; None if it has none.

    - ``max_steps``. Lightning counts the steps of every optimizer: a GAN with ``n_critic=1`` makes two per batch, so
      ``max_steps=1000`` is 500 batches.
    - ``max_epochs`` times the batches of an epoch, if their number is known: from a loader with a length or
      ``limit_train_batches``.
    """
    shares = []
    if trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    if (trainer.max_epochs or 0) > 0 and math.isfinite(trainer.num_training_batches):
        batches = trainer.fit_loop.total_batch_idx + 1  # over all epochs, and those before a resume
        shares.append(batches / max(trainer.max_epochs * trainer.num_training_batches, 1))
    return min(1.0, max(shares)) if shares else None


def check_no_schedulers(configured: Any) -> None:
    """Refuse torch's learning-rate schedulers: under manual optimization nothing steps them.

    Args:
        configured: What ``configure_optimizers`` returned, or a Trainer's list of schedulers.

    Raises:
        InputError: If there is one.
    """
    if _has_scheduler(configured):
        raise InputError(
            "configure_optimizers returns a learning-rate scheduler, which would never be stepped: the recipe sets the "
            "learning rate of every batch. Return optimizers only, and use model.recipe.schedule, warmup and final, or "
            "override rate_factor(index)."
        )


def _has_scheduler(node: Any) -> bool:
    if isinstance(node, Mapping):
        return "lr_scheduler" in node
    if isinstance(node, (list, tuple)):
        return any(map(_has_scheduler, node))
    return node is not None and not isinstance(node, torch.optim.Optimizer)
