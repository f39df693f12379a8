"""Checkpoints at batch boundaries: the last, the one before it, and the best."""

from __future__ import annotations

import dataclasses
import logging
import operator
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from lit_aigc.build import did_you_mean
from lit_aigc.callbacks.clock import Clock
from lit_aigc.errors import InputError, check
from lit_aigc.runs.checkpoint import BEST, LAST

log = logging.getLogger(__name__)
_PACKAGES = ("lit_aigc", "lightning")


@dataclasses.dataclass(eq=False)
class CheckpointWriter(Checkpoint):
    """Writes ``last.ckpt`` when it is due and after each validation, and ``best.ckpt`` when the monitor improves.

    Args:
        directory: The folder to write to.
        clock: Decides when a checkpoint is due, and measures how long it took.
        monitor: Metric that decides which is best; None for no ``best.ckpt``.
        mode: ``min`` or ``max``: the better direction of the monitor.

    Attributes:
        best: Best value of the monitor so far, or None.

    Raises:
        InputError: If the mode is neither.
    """

    directory: Path
    clock: Clock
    monitor: str | None = None
    mode: str = "min"
    best: float | None = dataclasses.field(default=None, init=False)
    _warned: bool = dataclasses.field(default=False, init=False)

    def __post_init__(self) -> None:
        expected = f"min or max, the better direction of {self.monitor}"
        check(("monitor_mode", self.mode, self.mode in ("min", "max"), expected))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that the monitor will be measured.

        Raises:
            InputError: If it won't be, in a new run. Where no callback measures anything, or the run is resumed, a
                warning says that there will be no ``best.ckpt``.
        """
        logged = [_keys_of(part) for part in (pl_module, *trainer.callbacks)]
        known = {key for keys in logged for key in keys or ()}
        if not self.monitor or not self.clock.validations or None in logged or self.monitor in known:
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
        """Write, with the results of the validation."""
        value = trainer.callback_metrics.get(self.monitor) if self.monitor else None
        if self.monitor and value is None:
            self._warn_of_no_best(trainer, [name for name in trainer.callback_metrics if not name.startswith("train/")])
        better = operator.lt if self.mode == "min" else operator.gt
        improved = value is not None and (self.best is None or better(float(value), self.best))
        if improved:
            self.best = float(value)
        self._save(trainer, pl_module, LAST)
        if improved:
            self._save(trainer, pl_module, BEST)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the value of `state_dict`."""
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
    """Return what a part logs for monitors; None if that can't be known: a user's own class may log anything."""
    if type(part).__module__.partition(".")[0] not in _PACKAGES:
        return None
    return getattr(part, "validation_keys", ())
