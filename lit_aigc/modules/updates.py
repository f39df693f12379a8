"""Optimizer steps by a recipe: parts of a batch, clipping, half precision, averaged weights."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn

from lit_aigc.build import did_you_mean
from lit_aigc.errors import check
from lit_aigc.optimization.ema import EMA
from lit_aigc.optimization.schedules import SCHEDULES, schedule

_LEAST_SCALE = 1.0  # it starts at 65,536 and is halved at each overflow: below this, gradients overflow unscaled
AGAINST_DIVERGENCE = (
    "The last good checkpoint is kept. Lower the learning rate, set model.recipe.clip_norm=1, or use "
    "trainer.precision=32-true."
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a module is optimized, whatever its objective.

    Attributes:
        schedule: Learning-rate schedule over the budget: ``constant``, ``linear`` or ``cosine``.
        warmup: Share of the budget over which the learning rate rises from 0.
        final: Factor on the learning rate at the end of the schedule.
        clip_norm: Largest gradient norm of one network, or None.
        accumulate: Number of parts that each process's batch is split into, to save memory: without BatchNorm the
            result is that of the whole batch.
        ema_decay: Decay of the averaged weights, 0 for none.
        ema_start: Updates before the average starts.
        ema_every: Updates between two moves of the average.
        compile: Compile the networks with `torch.compile`, transformers block by block; worth its minute on long runs
            and GPUs. Recurrent networks refuse it.
        channels_last: Store convolution weights and images with channels last, the faster layout on CPUs and GPUs.

    Raises:
        InputError: If an option is out of range.
    """

    schedule: str = "constant"
    warmup: float = 0.0
    final: float = 0.0
    clip_norm: float | None = None
    accumulate: int = 1
    ema_decay: float = 0.999
    ema_start: int = 0
    ema_every: int = 1
    compile: bool = False
    channels_last: bool = True

    def __post_init__(self) -> None:
        known, clip = self.schedule in SCHEDULES, self.clip_norm
        check(
            ("recipe.warmup", self.warmup, 0 <= self.warmup < 1, "a share in [0, 1)"),
            ("recipe.clip_norm", clip, clip is None or clip > 0, "a positive number or null"),
            ("recipe.accumulate", self.accumulate, self.accumulate >= 1, "at least 1"),
            ("recipe.ema_decay", self.ema_decay, 0 <= self.ema_decay < 1, "a number in [0, 1)"),
            ("recipe.ema_every", self.ema_every, self.ema_every >= 1, "at least 1"),
            more=[] if known else [f"unknown schedule {self.schedule!r}{did_you_mean(self.schedule, SCHEDULES)}"],
        )

    def rate_factor(self, progress: float) -> float:
        """Return the factor on the learning rate after a share of the budget in [0, 1]."""
        return schedule(self.schedule, progress, self.warmup, self.final)


class TrainingDiverged(RuntimeError):
    """Training can't continue: the message says what was seen. The last good checkpoint stays."""


class Updates(L.LightningModule):
    """The part of a `GenerativeModule` that changes weights.

    Args:
        recipe: How to optimize.

    Attributes:
        ema: The averaged weights, if any.
        batches: Training batches done.
        generator_updates: Updates of the network that generates.
        skipped_updates: Updates that half precision skipped because a gradient overflowed; the scale is halved then.
    """

    log_every: int

    def __init__(self, recipe: Recipe | None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.recipe = recipe or Recipe()
        self.ema: EMA | None = None
        self.batches = 0
        self.generator_updates = 0
        self.skipped_updates = 0
        self._last_was_skipped = False

    @property
    def log_is_due(self) -> bool:
        """True in the last batch of a log window: the time for figures that cost something."""
        return (self.batches + 1) % self.log_every == 0

    def update(
        self,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        batch: Any,
        loss: Callable[[Any], tuple[Tensor, dict[str, Tensor]]],
        name: str = "",
        generates: bool = True,
    ) -> dict[str, Tensor]:
        """Make one step on a batch.

        Args:
            optimizer: One of ``self.optimizers()``, or several of them; all their parameters' gradients are reset.
            batch: The batch, split in ``recipe.accumulate`` parts.
            loss: From a part to its mean loss and scalars to log.
            name: Of the network, for the log.
            generates: Whether this completes an update of the network that generates: it is counted and moves the
                averaged weights, unless half precision skips it.

        Returns:
            The scalars, averaged over the parts; once per log window also ``grad_norm``, before clipping.
        """
        optimizers = list(optimizer) if isinstance(optimizer, Sequence) else [optimizer]
        for optimizer in optimizers:
            optimizer.zero_grad()
        values = self._accumulate(batch, loss)

        # What is clipped and logged is the gradient, not half precision's multiple of it.
        scaler = self.scaler
        if scaler:
            for optimizer in optimizers:
                scaler.unscale_(optimizer.optimizer)
        # The norm costs a pass over all gradients: only where it is used.
        if self.log_is_due or self.recipe.clip_norm is not None:
            norm = self._clip(optimizers)
            if self.log_is_due:
                values[f"{name}_grad_norm" if name else "grad_norm"] = norm

        for optimizer in optimizers:
            if scaler:
                # As Lightning's own step, which would unscale again: the Trainer counts it in ``global_step``.
                optimizer._on_before_step()
                scaler.step(optimizer.optimizer)
                optimizer._on_after_step()
            else:
                optimizer.step()
        if scaler:
            self._update_scale(scaler)
        if generates and not self._last_was_skipped:
            self.generator_updates += 1
            if self.ema:
                self.ema.update()
        return values

    def _accumulate(self, batch: Any, loss: Callable[[Any], tuple[Tensor, dict[str, Tensor]]]) -> dict[str, Tensor]:
        """Add up the gradients of the parts of a batch, each weighted by its share of the samples."""
        parts = split_batch(batch, self.recipe.accumulate)
        values: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            share = length(part) / length(batch)
            # Processes exchange their gradients once, in the last part.
            waits = index < len(parts) - 1 and isinstance(self.trainer.strategy, ParallelStrategy)
            with self.trainer.strategy.block_backward_sync() if waits else contextlib.nullcontext():
                value, scalars = loss(part)
                self.manual_backward(value * share if share < 1 else value)
            for key, scalar in scalars.items():
                values[key] = values.get(key, 0.0) + scalar.detach() * share
        return values

    def _clip(self, optimizers: Sequence[torch.optim.Optimizer]) -> Tensor:
        """Clip the gradients of these optimizers together, and return their norm before that."""
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        parameters = [p for group in groups for p in group["params"] if p.grad is not None]
        norm = whole(nn.utils.get_total_norm([p.grad for p in parameters]))
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.recipe.clip_norm, norm)
        return norm

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The scaler of the loss in half precision, or None. Its decisions are equal on all processes."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    @property
    def loss_scale(self) -> Tensor | float:
        """The factor of half precision on a loss, for gradients that are part of one; 1 elsewhere."""
        return self.scaler.scale(torch.ones((), device=self.device)) if self.scaler else 1.0

    def _update_scale(self, scaler: torch.amp.GradScaler) -> None:
        before = scaler.get_scale()
        scaler.update()
        scale = scaler.get_scale()
        self._last_was_skipped = scale < before
        self.skipped_updates += self._last_was_skipped
        if scale < _LEAST_SCALE:
            raise TrainingDiverged(
                f"Training diverged: gradients are not finite at any scale (half precision has skipped "
                f"{self.skipped_updates} updates, the last in batch {self.batches + 1}). {AGAINST_DIVERGENCE}"
            )


def length(batch: Any) -> int:
    """Return the number of samples in a batch."""
    return len(batch[0])


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that may be split among processes as one."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def split_batch(batch: Any, parts: int) -> list[Any]:
    """Split a batch in parts whose lengths differ by one at most; each knows where it starts in the stream."""
    if parts == 1:
        return [batch]
    edges = [math.ceil(length(batch) * part / parts) for part in range(parts + 1)]
    return [batch.part(slice(first, last)) for first, last in itertools.pairwise(edges) if first < last]
