"""A check for bugs: a model that learns anything learns one batch by heart."""

from __future__ import annotations

import itertools

import lightning as L
from lightning.pytorch.callbacks import Callback


class OverfitOneBatch(Callback):
    """Trains on the first batch over and over; ``debug=overfit`` adds it."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Have the training data repeat its first batch, in a resumed run too."""
        datamodule = trainer.datamodule
        whole = datamodule.train_dataloader
        datamodule.start_batch = 0
        datamodule.train_dataloader = lambda: itertools.repeat(next(iter(whole())))
