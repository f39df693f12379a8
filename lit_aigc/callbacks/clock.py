"""The one clock of a run: progress, stop, pause, validation and checkpoint times, agreed by all processes."""

from __future__ import annotations

import dataclasses
import math
import signal
import threading
import time
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from lit_aigc.errors import InputError
from lit_aigc.signals import STOP

_NEVER = 2**62
_ROUNDING = 1e-9


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


class Clock(Callback):
    """Decides at each batch boundary, on the first process for all, what happens next.

    Args:
        budget: When training ends.
        pause_after: When it pauses.
        validations: Number of validations over the budget, equally spaced, the last at its end.
        checkpoint_seconds: Seconds between checkpoints.
        signals: Where a signal shows up.

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

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start counting where the checkpoint left off.

        Raises:
            InputError: If the processes read different checkpoints, or not all of them one.
        """
        _check_all_start_at(pl_module.batches, trainer)
        self.signals.install()
        self._start = self._last_checkpoint = time.monotonic()
        self._seconds_before = pl_module.train_seconds
        self._batches_before = pl_module.batches
        trainer.val_check_batch = _NEVER
        pl_module.progress = self.budget.progress(pl_module.train_seconds, pl_module.samples_seen, pl_module.batches)
        trainer.should_stop = pl_module.progress >= 1.0  # a run that was done already

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Decide, and let the Trainer's loop do it."""
        now = time.monotonic()
        seconds = self._seconds_before + now - self._start
        progress = self.budget.progress(seconds, pl_module.samples_seen, pl_module.batches)
        pause = self.signals.received is not None or self.pause_after.reached(
            now - self._start, pl_module.batches - self._batches_before
        )
        save = now - self._last_checkpoint >= self.checkpoint_seconds
        progress, seconds, pause, save = _agree(trainer, progress, seconds, pause, save)

        pl_module.progress, pl_module.train_seconds = progress, seconds
        done = progress >= 1.0
        if done:
            pl_module.log_unfinished_window()
        validate = self.validations > 0 and (
            done or math.floor(progress * self.validations + _ROUNDING) > pl_module.validations
        )
        self.paused = pause and not done
        self.checkpoint_due = (save or pause or done) and not validate
        if save:
            self._last_checkpoint = now
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
        self._last_checkpoint = time.monotonic()
        pl_module.log_values({"train_seconds": round(pl_module.train_seconds, 3)}, monitor=False)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the time that validation took on the clock, before the checkpoint is written."""
        pl_module.train_seconds = self._seconds_before + time.monotonic() - self._start


def _not_positive(name: str, limits: Budget | PauseAfter) -> list[str]:
    return [
        f"{name}.{key}={value}: expected a positive number or null"
        for key, value in dataclasses.asdict(limits).items()
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0)
    ]


def _check_all_start_at(batches: int, trainer: L.Trainer) -> None:
    if trainer.world_size == 1:
        return
    bounds = torch.tensor([batches, -batches], dtype=torch.float64, device=trainer.strategy.root_device)
    last, first = (abs(int(bound)) for bound in trainer.strategy.reduce(bounds, reduce_op="max"))
    if first != last:
        raise InputError(
            f"One process would go on from batch {first} and another from batch {last}: all nodes need the same run "
            "folder, on a disk that they share; give it by run_dir=."
        )


def _agree(
    trainer: L.Trainer, progress: float, seconds: float, pause: bool, save: bool
) -> tuple[float, float, bool, bool]:
    """The first process's progress, seconds and checkpoint time, and a pause if any process has had a signal."""
    if trainer.world_size == 1:
        return progress, seconds, pause, save
    first = trainer.is_global_zero
    votes = [progress if first else -1.0, seconds if first else -1.0, float(pause), float(save and first)]
    votes = torch.tensor(votes, dtype=torch.float64, device=trainer.strategy.root_device)
    progress, seconds, pause, save = trainer.strategy.reduce(votes, reduce_op="max").tolist()
    return progress, seconds, bool(pause), bool(save)
