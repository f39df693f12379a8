"""One precision for all processes of a run."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision, Precision

from lit_aigc.machine.precision import FULL, MIXED


class OnePrecision(Callback):
    """Have all processes train in the precision that the first one chose, since each measures its own speed."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Agree as soon as the processes are connected, before weights and optimizers are set up."""
        if trainer.world_size == 1:
            return
        own = trainer.strategy.precision_plugin.precision
        chosen = trainer.strategy.broadcast(own)
        if {own, chosen} == {FULL, MIXED}:
            device = trainer.strategy.root_device.type
            plugin = MixedPrecision(MIXED, device) if chosen == MIXED else Precision()
            trainer.strategy.precision_plugin = plugin
