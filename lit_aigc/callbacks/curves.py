"""Losses and metrics of a run over samples seen, as one picture at its end."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_aigc.files import write_atomically
from lit_aigc.loggers.base import log_picture
from lit_aigc.loggers.csv import read_metrics
from lit_aigc.metrics.measurement import Curve, panels

COLOURS = ("#3366cc", "#dc3912", "#109618", "#990099", "#ff9900", "#0099c6", "#666666")


class Curves(Callback):
    """Draws ``curves.png`` from ``metrics.csv`` when training ends, also by an error, and sends it to the loggers."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, write and log."""
        if trainer.is_global_zero and (picture := self._draw(trainer)):
            import numpy as np
            from PIL import Image

            array = np.asarray(Image.open(picture).convert("RGB"))
            log_picture(trainer.loggers, "curves", array, int(pl_module.samples_seen))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Draw what there is: curves tell most when training went wrong."""
        if trainer.is_global_zero:
            self._draw(trainer)

    def _draw(self, trainer: Trainer) -> Path | None:
        folder = Path(trainer.default_root_dir)
        if not (folder / "metrics.csv").exists():
            return None
        return draw_curves(read_metrics(folder / "metrics.csv"), folder / "curves.png")


def draw_curves(curves: Mapping[str, Curve], path: str | Path) -> Path | None:
    """Draw one panel a family over samples seen and write a PNG.

    Returns:
        The path, or None when there is no curve to draw.
    """
    groups = panels(curves)
    if not groups:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    columns = min(len(groups), 3)
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.2 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    end = max(1, *(max(steps) for group in groups.values() for steps, _ in group.values()))
    for index, (title, group) in enumerate(groups.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        for (name, (steps, values)), colour in zip(group.items(), itertools.cycle(COLOURS), strict=False):
            marker: dict[str, Any] = {"marker": "o", "markersize": 4} if len(steps) <= 30 else {}
            axes.plot(steps, values, label=name, color=colour, linewidth=1.4, **marker)
        axes.set_title(title if len(group) > 1 else next(iter(group)), fontsize=11, loc="left")
        axes.set_xlabel("samples seen", fontsize=9, color="0.35")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.tick_params(labelsize=9, colors="0.35")
        axes.grid(True, color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("0.7")
        axes.set_xlim(0, end * 1.03)
        if len(group) > 1:
            axes.legend(fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return write_atomically(path, buffer.getvalue())
