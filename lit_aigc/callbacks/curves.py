"""Losses and metrics of a run over samples seen, as one picture at its end."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_aigc.loggers.base import log_picture
from lit_aigc.loggers.csv import read_metrics
from lit_aigc.media.curves import draw_curves
from lit_aigc.metrics.measurement import panels


class Curves(Callback):
    """Draws ``curves.png`` from ``metrics.csv`` when training ends, even by an error, and sends it to the loggers."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, write and log."""
        if picture := self._draw(trainer):
            import numpy as np
            from PIL import Image

            array = np.asarray(Image.open(picture).convert("RGB"))
            log_picture(trainer.loggers, "curves", array, int(pl_module.samples_seen))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Draw what there is: curves are most useful when training went wrong."""
        self._draw(trainer)

    def _draw(self, trainer: Trainer) -> Path | None:
        folder = Path(trainer.default_root_dir)
        if not trainer.is_global_zero or not (folder / "metrics.csv").exists():
            return None
        return draw_curves(panels(read_metrics(folder / "metrics.csv")), folder / "curves.png")
