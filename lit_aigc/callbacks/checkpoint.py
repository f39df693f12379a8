"""Checkpoints at batch boundaries: the last, the one before it, and the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_warn

from lit_aigc.callbacks.clock import Clock
from lit_aigc.checkpoint import BEST, LAST
from lit_aigc.errors import InputError


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

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Write if it is due."""
        if self.clock.checkpoint_due:
            self._save(trainer, pl_module, LAST)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write, with what the validation found."""
        value = trainer.callback_metrics.get(self.monitor) if self.monitor else None
        if self.monitor and value is None and not self._warned:
            self._warned = True
            known = sorted(name for name in trainer.callback_metrics if not name.startswith("train/"))
            rank_zero_warn(
                f"monitor={self.monitor} is not among what was measured ({', '.join(known) or 'nothing'}): no "
                "best.ckpt is written."
            )
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

    def _save(self, trainer: L.Trainer, pl_module: L.LightningModule, name: str) -> None:
        pl_module.raise_if_broken()
        with self.clock.writing_checkpoint():
            trainer.save_checkpoint(self.directory / name)
