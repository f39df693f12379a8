"""The one clock of a run: progress, stop, pause, validation and checkpoint times, agreed by all processes."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import lightning as L

from lit_aigc.callbacks.agreement import Agreement, check_all_start_at
from lit_aigc.errors import InputError
from lit_aigc.machine.signals import STOP
from lit_aigc.modules.trainer_time import Timekeeper

_NEVER = 2**62
_ROUNDING = 1e-9
_CHECKPOINT_SHARE = 0.03  # of the time between two checkpoints


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long to train: whichever limit comes first; None is no limit.

    Attributes:
        minutes: On the clock from the first to the last batch, validation in between included.
        samples: Samples seen by all processes together.
        batches: Training batches.
    """

    minutes: float | None = None
    samples: int | None = None
    batches: int | None = None

    def __post_init__(self) -> None:
        wrong = _not_positive("budget", self)
        if wrong or not any(dataclasses.astuple(self)):
            raise InputError("\n".join(wrong) or "No budget: set budget.minutes, budget.samples or budget.batches.")

    def progress(self, seconds: float, samples: int, batches: int) -> float:
        """Share of the budget that is used, in [0, 1]."""
        shares = [
            used / limit
            for used, limit in ((seconds / 60, self.minutes), (samples, self.samples), (batches, self.batches))
            if limit is not None
        ]
        return min(1.0, max(shares))


@dataclasses.dataclass(frozen=True)
class PauseAfter:
    """When to pause, counted from this start of the program, whichever comes first; None is never.

    Attributes:
        minutes: Minutes of training.
        batches: Training batches.
    """

    minutes: float | None = None
    batches: int | None = None

    def __post_init__(self) -> None:
        if wrong := _not_positive("pause_after", self):
            raise InputError("\n".join(wrong))

    def reached(self, seconds: float, batches: int) -> bool:
        """Whether the pause is due."""
        return (self.minutes is not None and seconds >= 60 * self.minutes) or (
            self.batches is not None and batches >= self.batches
        )


class StopSignals:
    """SIGTERM, SIGUSR1 and the first Ctrl-C ask for a pause; the run goes on to the next batch boundary.

    Attributes:
        received: Name of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Handle the signals from now on, in place of whoever handled them before (Lightning's handlers broadcast)."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in STOP:
            before = signal.signal(number, self._handle)
            self._before.setdefault(number, before)

    def uninstall(self) -> None:
        """Give the signals back to who had them before the first `install`."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == "SIGINT":
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name


class Clock(Timekeeper):
    """Decides at each batch boundary, the same on all processes, what happens next.

    Limits in batches and samples are exact. What depends on the time or on a signal is decided when the processes agree
    (`lit_aigc.callbacks.agreement`): at every batch of a single process, else about twice a second.

    Args:
        budget: When training ends.
        pause_after: When it pauses.
        validations: Number of validations over the budget, equally spaced, the last at its end.
        checkpoint_seconds: Seconds from the end of one checkpoint to the next; 0 is after every batch. The wait is
            longer after a checkpoint that took long to write: these take three percent of the time at most.
        signals: Where a signal shows up.
        started: When this start of the run began, on `time.monotonic`; now by default.

    Attributes:
        paused: Whether the run stopped before its budget was used.
        checkpoint_due: Whether a checkpoint is due at this batch boundary (validations write their own).
    """

    def __init__(
        self,
        budget: Budget,
        pause_after: PauseAfter,
        validations: int = 4,
        checkpoint_seconds: float = 60.0,
        signals: StopSignals | None = None,
        started: float | None = None,
    ) -> None:
        if validations < 0 or checkpoint_seconds < 0:
            raise InputError(
                f"validations={validations} checkpoint_seconds={checkpoint_seconds}: expected numbers from 0 on."
            )
        self.budget = budget
        self.pause_after = pause_after
        self.validations = validations
        self.checkpoint_seconds = checkpoint_seconds
        self.signals = signals or StopSignals()
        self.paused = False
        self.checkpoint_due = False
        self._started = time.monotonic() if started is None else started
        self._wall_before = 0.0
        self._checkpoint_cost = 0.0

    @property
    def wall_seconds(self) -> float:
        """Seconds of all starts of the run, imports and data included: of those before, up to the last checkpoint."""
        return self._wall_before + time.monotonic() - self._started

    def state_dict(self) -> dict[str, Any]:
        """The time so far."""
        return {"wall_seconds": self.wall_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from there."""
        self._wall_before = state_dict["wall_seconds"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start counting where the checkpoint left off.

        Raises:
            InputError: If the processes read different checkpoints, or not all of them one.
        """
        check_all_start_at(pl_module.batches, trainer)
        self.pause_after = trainer.strategy.broadcast(self.pause_after)  # it is not in the config that others read
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
        """Decide, and let the Trainer's loop do it."""
        batches, signaled, save = pl_module.batches, False, False
        seconds = self._agreement.seconds(batches)
        progress, pause, validate = self._due(pl_module, seconds)
        # All processes have come to the same so far. Whether it is time is for the first one's clock to say.
        if self._agreement.is_due(batches) or progress >= 1.0 or pause or validate or self.checkpoint_seconds == 0:
            now = time.monotonic()
            wait = max(self.checkpoint_seconds, self._checkpoint_cost / _CHECKPOINT_SHARE)
            save = now - self._last_checkpoint >= wait or self.checkpoint_seconds == 0
            seconds, signaled, save = self._agreement.agree(
                batches, self._seconds_before + now - self._start, self.signals.received is not None, save
            )
            progress, pause, validate = self._due(pl_module, seconds)

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
        """Count it, and log when it is: the time that quality was reached at, which differs where all else is equal."""
        # Several validations may have become due in one batch; they are one.
        pl_module.validations = max(
            pl_module.validations + 1, math.floor(pl_module.progress * self.validations + _ROUNDING)
        )
        pl_module.log_values({"train_seconds": round(pl_module.train_seconds, 3)}, monitor=False)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the time that validation took on the clock, before the checkpoint is written."""
        pl_module.train_seconds = self._seconds_before + time.monotonic() - self._start
        self._agreement.agree_next()

    @contextlib.contextmanager
    def writing_checkpoint(self) -> Iterator[None]:
        """Inside, a checkpoint is written: the time to the next starts after it, and grows with what it took."""
        started = time.monotonic()
        yield
        self._last_checkpoint = time.monotonic()
        self._checkpoint_cost = self._last_checkpoint - started

    def _due(self, module: L.LightningModule, seconds: float) -> tuple[float, bool, bool]:
        """The progress at a time on the clock, whether a pause is due, and whether a validation is."""
        progress = self.budget.progress(seconds, module.samples_seen, module.batches)
        pause = self.pause_after.reached(seconds - self._seconds_before, module.batches - self._batches_before)
        validate = self.validations > 0 and (
            progress >= 1.0 or math.floor(progress * self.validations + _ROUNDING) > module.validations
        )
        return progress, pause, validate


def _not_positive(name: str, limits: Budget | PauseAfter) -> list[str]:
    return [
        f"{name}.{key}={value}: expected a positive number or null"
        for key, value in dataclasses.asdict(limits).items()
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0)
    ]
