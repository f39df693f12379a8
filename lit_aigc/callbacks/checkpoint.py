"""Checkpoints at batch boundaries: the last, the one before it, and the best."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from lit_aigc.build import did_you_mean
from lit_aigc.callbacks.clock import Clock
from lit_aigc.errors import InputError
from lit_aigc.runs.checkpoint import BEST, LAST

log = logging.getLogger(__name__)
_PACKAGES = ("lit_aigc", "lightning")


class CheckpointWriter(Checkpoint):
    """Writes ``last.ckpt`` when it is due and after each validation, and ``best.ckpt`` when the monitor improves.

    Args:
        directory: Where to.
        clock: Says when a checkpoint is due, and learns how long it took.
        monitor: Metric that decides which is best; None for no ``best.ckpt``.
        mode: ``min`` or ``max``: which way of the monitor is better.

    Attributes:
        best: Best value of the monitor so far, or None.

    Raises:
        InputError: If the mode is neither.
    """

    def __init__(self, directory: str | Path, clock: Clock, monitor: str | None = None, mode: str = "min") -> None:
        if mode not in ("min", "max"):
            raise InputError(f"monitor_mode={mode}: expected min or max, the way of {monitor} that is better.")
        self.directory = Path(directory)
        self.clock = clock
        self.monitor = monitor
        self.mode = mode
        self.best: float | None = None
        self._warned = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that the monitor will be measured.

        Raises:
            InputError: If it won't be, in a new run. Where no callback measures anything, or the run is an older one,
                a line says that there will be no ``best.ckpt``.
        """
        found = [_keys_of(part) for part in (pl_module, *trainer.callbacks)]
        known = {key for keys in found for key in keys or ()}
        if not self.monitor or not self.clock.validations or None in found or self.monitor in known:
            return
        hint = did_you_mean(self.monitor, known) if known else ""
        measures = any(getattr(callback, "validation_keys", ()) for callback in trainer.callbacks)
        if pl_module.batches == 0 and (measures or "did you mean" in hint):
            raise InputError(f"monitor={self.monitor} (null for no best.ckpt) is not measured{hint}")
        self._warn_of_no_best(trainer, known)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Write if it is due."""
        if self.clock.checkpoint_due:
            self._save(trainer, pl_module, LAST)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write, with what the validation found."""
        value = trainer.callback_metrics.get(self.monitor) if self.monitor else None
        if self.monitor and value is None:
            self._warn_of_no_best(trainer, [name for name in trainer.callback_metrics if not name.startswith("train/")])
        improved = value is not None and (
            self.best is None or (float(value) < self.best if self.mode == "min" else float(value) > self.best)
        )
        if improved:
            self.best = float(value)
        self._save(trainer, pl_module, LAST)
        if improved:
            self._save(trainer, pl_module, BEST)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.best = state_dict["best"]

    def _warn_of_no_best(self, trainer: L.Trainer, measured: Iterable[str]) -> None:
        if trainer.is_global_zero and not self._warned:
            what = ", ".join(sorted(measured)) or "nothing"
            log.warning("monitor=%s is not measured (%s is): no best.ckpt is written.", self.monitor, what)
        self._warned = True

    def _save(self, trainer: L.Trainer, pl_module: L.LightningModule, name: str) -> None:
        pl_module.raise_if_broken()
        with self.clock.writing_checkpoint():
            trainer.save_checkpoint(self.directory / name)


def _keys_of(part: L.LightningModule | L.Callback) -> Collection[str] | None:
    """What a part logs for monitors; None if that can't be known: a class of the user's own may log anything."""
    if type(part).__module__.partition(".")[0] not in _PACKAGES:
        return None
    return getattr(part, "validation_keys", ())
