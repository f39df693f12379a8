"""Curves over samples seen as a picture."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_aigc.files import write_atomically
from lit_aigc.media.plots import as_png, style_axes

Curve = tuple[Sequence[int], Sequence[float]]
COLORS = ("#3366cc", "#dc3912", "#109618", "#990099", "#ff9900", "#0099c6", "#666666")


def draw_curves(groups: Mapping[str, Mapping[str, Curve]], path: str | Path) -> Path | None:
    """Draw one panel per group over samples seen and write a PNG.

    Args:
        groups: The curves of each panel by name, by the title of the panel.
        path: The file.

    Returns:
        The path, or None when there is no curve to draw.
    """
    if not groups:
        return None
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    columns = min(len(groups), 3)
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.2 * rows), dpi=120, layout="constrained")
    end = max(1, *(max(steps) for group in groups.values() for steps, _ in group.values()))
    for index, (title, group) in enumerate(groups.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        for (name, (steps, values)), color in zip(group.items(), itertools.cycle(COLORS), strict=False):
            marker: dict[str, Any] = {"marker": "o", "markersize": 4} if len(steps) <= 30 else {}
            axes.plot(steps, values, label=name, color=color, linewidth=1.4, **marker)
        axes.set_title(title if len(group) > 1 else next(iter(group)), fontsize=11, loc="left")
        axes.set_xlabel("samples seen", fontsize=9, color="0.35")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        style_axes(axes)
        axes.set_xlim(0, end * 1.03)
        if len(group) > 1:
            axes.legend(fontsize=8, frameon=False)
    return write_atomically(path, as_png(figure))
