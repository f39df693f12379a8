"""The style that plots share, and their bytes as PNG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, "Color universal design", 2008, without yellow, which is invisible on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
DARK, GRAY, LIGHT = "#262626", "#6E6E6E", "#E6E6E6"
REPORT_STYLE = {"text": GRAY, "grid": LIGHT, "frame": "#B0B0B0", "ticks": 0.0}  # of pictures in reports


def style_axes(
    axes: Axes, size: float = 9, text: str = "0.35", grid: str = "0.92", frame: str = "0.7", ticks: float = 3.5
) -> None:
    """Give axes a light grid, and a frame on the left and at the bottom only.

    Args:
        axes: The axes.
        size: Font size of the numbers at the ticks, in points.
        text: Color of these numbers.
        grid: Color of the grid.
        frame: Color of the frame.
        ticks: Length of the ticks, in points.
    """
    axes.tick_params(labelsize=size, colors=text, which="both", length=ticks)
    axes.grid(True, color=grid)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(frame)


def as_png(figure: Figure) -> bytes:
    """Return a picture as the content of a PNG file that does not name the software."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
