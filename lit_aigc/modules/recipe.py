"""The options of training that all families share."""

from __future__ import annotations

import dataclasses

from lit_aigc.build import did_you_mean
from lit_aigc.errors import check
from lit_aigc.optimization.schedules import SCHEDULES, schedule


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
        known = self.schedule in SCHEDULES
        check(
            ("recipe.warmup", self.warmup, 0 <= self.warmup < 1, "a share in [0, 1)"),
            (
                "recipe.clip_norm",
                self.clip_norm,
                self.clip_norm is None or self.clip_norm > 0,
                "a positive number or null",
            ),
            ("recipe.accumulate", self.accumulate, self.accumulate >= 1, "at least 1"),
            ("recipe.ema_decay", self.ema_decay, 0 <= self.ema_decay < 1, "a number in [0, 1)"),
            ("recipe.ema_every", self.ema_every, self.ema_every >= 1, "at least 1"),
            more=[] if known else [f"unknown schedule {self.schedule!r}{did_you_mean(self.schedule, SCHEDULES)}"],
        )

    def rate_factor(self, progress: float) -> float:
        """Return the factor on the learning rate after a share of the budget in [0, 1]."""
        return schedule(self.schedule, progress, self.warmup, self.final)
