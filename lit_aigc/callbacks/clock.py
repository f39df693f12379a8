"""The clock of a run: progress, stop, pause, validation and checkpoint times, agreed on by all processes."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import lightning as L

from lit_aigc.callbacks.agreement import Agreement, check_all_start_at
from lit_aigc.callbacks.base import check_at_least
from lit_aigc.errors import InputError, check
from lit_aigc.machine.signals import StopSignals
from lit_aigc.modules.trainer_time import Timekeeper

_NEVER = 2**62
_ROUNDING = 1e-9
_CHECKPOINT_SHARE = 0.03  # of the time between two checkpoints


class Limits:
    """Limits of training, of which the first that is reached counts; None is no limit.

    Attributes:
        key: Of these limits in the config.
    """

    key: ClassVar[str]

    def __post_init__(self) -> None:
        limits = vars(self).items()
        check(*((f"{self.key}.{name}", x, _is_limit(x), "a positive number or null") for name, x in limits))

    def progress(self, seconds: float, samples: int, batches: int) -> float:
        """Return the share of the nearest limit that is used, in [0, 1]; 0 without any."""
        used = {"minutes": seconds / 60, "samples": samples, "batches": batches}
        shares = (used[name] / limit for name, limit in vars(self).items() if limit is not None)
        return min(1.0, max(shares, default=0.0))


@dataclasses.dataclass(frozen=True)
class Budget(Limits):
    """How long to train: until the first limit is reached.

    Attributes:
        minutes: On the clock from the first to the last batch, validation in between included.
        samples: Samples seen by all processes together.
        batches: Training batches.
    """

    key = "budget"
    minutes: float | None = None
    samples: int | None = None
    batches: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any(vars(self).values()):
            raise InputError("No budget: set budget.minutes, budget.samples or budget.batches.")


@dataclasses.dataclass(frozen=True)
class PauseAfter(Limits):
    """When to pause, counted from this start of the program, whichever comes first.

    Attributes:
        minutes: Minutes of training.
        batches: Training batches.
    """

    key = "pause_after"
    minutes: float | None = None
    batches: int | None = None


@dataclasses.dataclass(eq=False)
class Clock(Timekeeper):
    """Decides at each batch boundary, the same on all processes, what happens next.

    Limits in batches and samples are exact. What depends on the time or on a signal is decided when the processes agree
    (`lit_aigc.callbacks.agreement`): at every batch of a single process, otherwise about twice a second.

    Args:
        budget: When training ends.
        pause_after: When it pauses.
        validations: Number of validations over the budget, equally spaced, the last at its end.
        checkpoint_seconds: Seconds from the end of one checkpoint to the next; 0 is after every batch. The wait is
            longer after a checkpoint that took long to write: they take at most three percent of the time.
        signals: Receives the stop signals.
        started: When this start of the run began, on `time.monotonic`; now by default.

    Attributes:
        paused: Whether the run stopped before its budget was used up.
        checkpoint_due: Whether a checkpoint is due at this batch boundary (validations write their own).
    """

    budget: Budget
    pause_after: PauseAfter
    validations: int = 4
    checkpoint_seconds: float = 60.0
    signals: StopSignals = dataclasses.field(default_factory=StopSignals)
    started: float = dataclasses.field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        check_at_least(self, {"validations": 0, "checkpoint_seconds": 0})
        self.paused = False
        self.checkpoint_due = False
        self._wall_before = 0.0
        self._checkpoint_cost = 0.0

    @property
    def wall_seconds(self) -> float:
        """Seconds of all starts of the run, imports and data included, each up to its last checkpoint."""
        return self._wall_before + time.monotonic() - self.started

    def state_dict(self) -> dict[str, Any]:
        """Return the time so far."""
        return {"wall_seconds": self.wall_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue to count from there."""
        self._wall_before = state_dict["wall_seconds"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start counting where the checkpoint left off.

        Raises:
            InputError: If the processes read different checkpoints, or only some of them read one.
        """
        check_all_start_at(pl_module.batches, trainer)
        self.pause_after = trainer.strategy.broadcast(self.pause_after)  # not in the config that other processes read
        self.signals.install()
        self._start = self._last_checkpoint = time.monotonic()
        self._seconds_before = pl_module.train_seconds
        self._batches_before = pl_module.batches
        self._wall_before = max(self._wall_before, self._seconds_before)  # older checkpoints hold no such time
        self._agreement = Agreement(trainer, self._seconds_before, self._batches_before)
        trainer.val_check_batch = _NEVER
        pl_module.progress = self.budget.progress(pl_module.train_seconds, pl_module.samples_seen, pl_module.batches)
        trainer.should_stop = pl_module.progress >= 1.0  # a run that was done already

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Decide, and let the Trainer's loop act on it."""
        batches, signaled, save = pl_module.batches, False, False
        seconds = self._agreement.seconds(batches)
        progress, pause, validate = self._due(pl_module, seconds)
        # So far all processes have come to the same result. Questions of time are up to the first one's clock.
        if self._agreement.is_due(batches) or progress >= 1.0 or pause or validate or self.checkpoint_seconds == 0:
            now = time.monotonic()
            wait = max(self.checkpoint_seconds, self._checkpoint_cost / _CHECKPOINT_SHARE)
            save = now - self._last_checkpoint >= wait or self.checkpoint_seconds == 0
            seconds, signaled, save = self._agreement.agree(
                batches, self._seconds_before + now - self._start, self.signals.received is not None, save
            )
            progress, pause, validate = self._due(pl_module, seconds)

        # Done takes precedence over a pause. A validation writes its own checkpoint.
        pl_module.progress, pl_module.train_seconds = progress, seconds
        done, pause = progress >= 1.0, pause or signaled
        if done:
            pl_module.log_unfinished_window()
        self.paused = pause and not done
        self.checkpoint_due = (save or pause or done) and not validate
        trainer.val_check_batch = 1 if validate else _NEVER
        if done or pause:
            trainer.should_stop = True  # the Trainer validates at a stop, if it may:
            trainer.limit_val_batches = trainer.limit_val_batches if validate else 0

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count it, and log the time: when each quality level was reached differs where all else is equal."""
        # Several validations may become due in one batch: they are done as one.
        pl_module.validations = max(
            pl_module.validations + 1, math.floor(pl_module.progress * self.validations + _ROUNDING)
        )
        pl_module.log_values({"train_seconds": round(pl_module.train_seconds, 3)}, monitor=False)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the time that validation took to the clock, before the checkpoint is written."""
        pl_module.train_seconds = self._seconds_before + time.monotonic() - self._start
        self._agreement.agree_next()

    @contextlib.contextmanager
    def writing_checkpoint(self) -> Iterator[None]:
        """Inside, a checkpoint is written: the wait for the next starts after it, and grows with the time it took."""
        started = time.monotonic()
        yield
        self._last_checkpoint = time.monotonic()
        self._checkpoint_cost = self._last_checkpoint - started

    def _due(self, module: L.LightningModule, seconds: float) -> tuple[float, bool, bool]:
        """Return the progress at a time on the clock, whether a pause is due, and whether a validation is."""
        progress = self.budget.progress(seconds, module.samples_seen, module.batches)
        now = seconds - self._seconds_before, 0, module.batches - self._batches_before
        pause = self.pause_after.progress(*now) >= 1.0
        validate = self.validations > 0 and (
            progress >= 1.0 or math.floor(progress * self.validations + _ROUNDING) > module.validations
        )
        return progress, pause, validate


def _is_limit(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0)
