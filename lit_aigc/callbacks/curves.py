"""Losses and metrics of a run over samples seen, as one picture at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_aigc.loggers.base import log_picture
from lit_aigc.loggers.csv import read_metrics
from lit_aigc.media.curves import draw_curves

Curve = tuple[list[int], list[float]]


class Curves(Callback):
    """Draws ``curves.png`` from ``metrics.csv`` when training ends, even by an error, and sends it to the loggers."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, write and log."""
        if trainer.is_global_zero and (picture := self._draw(trainer)):
            import numpy as np
            from PIL import Image

            array = np.asarray(Image.open(picture).convert("RGB"))
            log_picture(trainer.loggers, "curves", array, int(pl_module.samples_seen))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Draw what there is: curves are most useful when training went wrong."""
        if trainer.is_global_zero:
            self._draw(trainer)

    def _draw(self, trainer: Trainer) -> Path | None:
        folder = Path(trainer.default_root_dir)
        if not (folder / "metrics.csv").exists():
            return None
        return draw_curves(panels(read_metrics(folder / "metrics.csv")), folder / "curves.png")


def panels(curves: Mapping[str, Curve]) -> dict[str, dict[str, Curve]]:
    """Sort curves into panels: training losses, other training values by name, metrics by family (``fid_…``, ``is_…``).

    Args:
        curves: As `lit_aigc.loggers.csv.read_metrics` gives them.

    Returns:
        Title of the panel to its curves by short name; losses first; what has no value, and the clock, is left out.
    """
    sorted_curves: dict[str, dict[str, Curve]] = {"training losses": {}}
    for name, (steps, values) in curves.items():
        if not steps or name == "train_seconds":
            continue
        short = name.removeprefix("train/")
        if short != name and "loss" in short:
            title = "training losses"
        elif short != name:
            title = "training: " + short.rpartition("_")[2]
        else:
            title = name.partition("_")[0].partition("/")[0]
        sorted_curves.setdefault(title, {})[short] = (steps, values)
    return {title: group for title, group in sorted_curves.items() if group}
