"""The picture of a comparison: samples side by side, and quality against training time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_aigc.compare.records import SAMPLES
from lit_aigc.compare.words import budget_in_words, mean_and_spread
from lit_aigc.files import write_atomically
from lit_aigc.media.plots import COLORS, DARK, GRAY, REPORT_STYLE, as_png, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lit_aigc.compare.report import Report, Row

LINES = (("o", "-"), ("s", "-."), ("^", (0, (1, 1))))  # the next is for repeated colors
DPI = 100
MARGIN, GAP, SPACE = 48, 3, 16  # pixels: around all, between images, between rows of images
WIDEST = 1300  # pixels of a row of images
SMALLEST_SIDE = 48  # smaller images are enlarged by a whole factor
PLOT_HEIGHT = 520
TITLE, SUBTITLE, NAME, SMALL = 30, 19, 21, 17  # pixels


def draw_comparison(report: Report, path: Path) -> bool:
    """Draw rows of samples, the best experiment first and real images on top, and below them quality over time.

    Args:
        report: The result of the comparison.
        path: PNG file to write.

    Returns:
        Whether there was anything to draw.
    """
    strips = _strips(report)
    curves = [(row, curve) for row in report.rows if (curve := quality_over_time(row, report.metric.key))]
    if not strips and not curves:
        return False
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.transforms import Affine2D

    experiments = [row.experiment for row in report.rows]
    names = dict(zip(experiments, short_names(experiments), strict=True))
    styles = {name: (COLORS[i % 7], *LINES[i // 7 % 3]) for i, name in enumerate(experiments)}
    probe = Figure(dpi=DPI)
    labels = [(names.get(name, name), detail) for name, detail, _ in strips]
    left = MARGIN + 34 + max((_width(probe, *label) for label in labels), default=0)
    pictures = [_spread(strip) for _, _, strip in strips]
    width = max([left + picture.shape[1] + MARGIN for picture in pictures] + [1200])
    row_height = max([picture.shape[0] for picture in pictures] + [NAME + SMALL + 8]) + SPACE
    top = MARGIN + TITLE + SUBTITLE + 40
    plot_top = top + row_height * len(strips) + (44 if strips else 10)
    height = plot_top + (PLOT_HEIGHT + 90 if curves else 0)

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    pixels = Affine2D().scale(1, -1).translate(0, height)  # from the upper left corner

    def write(x: float, y: float, text: str, size: float, color: str, weight: str = "normal") -> None:
        figure.text(x, y, text, fontsize=_points(size), color=color, weight=weight, transform=pixels)

    write(MARGIN, MARGIN + TITLE, _title(report), TITLE, DARK, "bold")
    write(MARGIN, MARGIN + TITLE + SUBTITLE + 14, _subtitle(report, bool(strips)), SUBTITLE, GRAY)
    for i, ((name, detail, _), picture) in enumerate(zip(strips, pictures, strict=True)):
        y = top + i * row_height
        side = picture.shape[0]
        if name in styles:
            figure.add_artist(Rectangle((MARGIN, y), 8, side, color=styles[name][0], linewidth=0, transform=pixels))
        write(MARGIN + 20, y + side / 2 - (3 if detail else -NAME // 3), names.get(name, name), NAME, DARK)
        write(MARGIN + 20, y + side / 2 + SMALL + 4, detail, SMALL, GRAY)
        figure.figimage(picture, left, height - y - side, origin="upper")
    if curves:
        end_labels = max(_width(probe, label, "") for label in [*names.values(), "real test images"])
        ticks = 96  # next to the axis, with its name
        room = width - 2 * MARGIN - ticks - 30 - end_labels
        bottom = height - plot_top - PLOT_HEIGHT
        box = ((MARGIN + ticks) / width, bottom / height, room / width, PLOT_HEIGHT / height)
        _plot(figure.add_axes(box), report, curves, names, styles)
    write_atomically(path, as_png(figure))
    return True


def quality_over_time(row: Row, key: str) -> list[tuple[float, float, float, float]]:
    """Return seconds, mean, lowest and highest value over the seeds at each validation that all seeds have."""
    curves = [record["curve"] for record in row.done]
    points = [list(zip(c.get("train_seconds", []), c.get(key, []), strict=False)) for c in curves]
    found = []
    for validation in zip(*points, strict=False):
        seconds, values = zip(*validation, strict=True)
        if None not in values:
            found.append((statistics.fmean(seconds), statistics.fmean(values), min(values), max(values)))
    return found


def short_names(names: Sequence[str]) -> list[str]:
    """Return names without the words that all end in: ``dcgan``, ``wgan`` for ``dcgan_mnist``, ``wgan_mnist``."""
    words = [name.split("_") for name in names]
    shared = 0
    while len(names) > 1 and all(len(w) > shared + 1 and w[-1 - shared] == words[0][-1 - shared] for w in words):
        shared += 1
    return ["_".join(w[: len(w) - shared]) for w in words]


def spread_apart(places: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """Move places as little as needed to be `distance` apart, in order, within `low` and `high` if they fit."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    least = low
    for i in order:
        moved[i] = least = max(moved[i], least)
        least += distance
    most = max(high, low + distance * (len(places) - 1))
    for i in reversed(order):
        moved[i] = most = min(moved[i], most)
        most -= distance
    return moved


def _points(pixels: float) -> float:
    return pixels * 72 / DPI


def _width(figure: Figure, name: str, detail: str) -> int:
    """Return the width of a label in pixels."""
    texts = [figure.text(0, 0, text, fontsize=_points(size)) for text, size in ((name, NAME), (detail, SMALL))]
    return math.ceil(max(text.get_window_extent().width for text in texts))


def _strips(report: Report) -> list[tuple[str, str, Any]]:
    """Return name, detail, and a row of images ``(H, SAMPLES * W, 3)`` uint8: real ones, then of the first seeds."""
    import numpy as np
    from PIL import Image

    def read(name: str | None) -> Any:
        path = report.comparison.out / name if name else None
        return np.asarray(Image.open(path).convert("RGB")) if path and path.exists() else None

    first = [row.done[0] for row in report.rows if row.done]
    real = next((image for record in first if (image := read(record.get("real"))) is not None), None)
    found = [("real", "", real)] if real is not None else []
    for row in report.rows:
        image = read(row.done[0].get("samples")) if row.done else None
        if image is not None:
            found.append((row.experiment, f"{report.metric.label} {mean_and_spread(row.values)}", image))
    return found if len(found) > (real is not None) else []


def _spread(strip: Any) -> Any:
    """Enlarge a row of `SAMPLES` images by a whole factor, with gaps; as many of them as there is room for."""
    import numpy as np

    height, width = strip.shape[0], strip.shape[1] // SAMPLES
    factor = max(1, -(-SMALLEST_SIDE // height))
    count = max(1, min(SAMPLES, WIDEST // (width * factor)))
    images = strip.reshape(height, SAMPLES, width, 3)[:, :count].repeat(factor, axis=0).repeat(factor, axis=2)
    gaps = np.full((height * factor, count, GAP, 3), 255, np.uint8)
    return np.concatenate([images, gaps], axis=2).reshape(height * factor, -1, 3)[:, :-GAP]


def _title(report: Report) -> str:
    data = next((f" on {r['data']}" for r in report.records if r.get("data")), "")
    return f"{report.metric.label} of {len(report.rows)} experiments{data}"


def _subtitle(report: Report, samples: bool) -> str:
    counts = {len(row.done) for row in report.rows if row.done}
    seeds = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{max(counts, default=0)}"
    text = f"each: {budget_in_words(report.comparison.budget)}; {seeds} seed{'' if seeds == '1' else 's'}"
    return f"{text}; samples of the first seed, not selected" if samples else text


def _plot(
    axes: Axes,
    report: Report,
    curves: Sequence[tuple[Row, list[tuple[float, float, float, float]]]],
    names: dict[str, str],
    styles: dict[str, tuple[Any, ...]],
) -> None:
    metric = report.metric
    longest = max(seconds for _, curve in curves for seconds, *_ in curve)
    unit, scale = ("minutes", 60.0) if longest >= 180 else ("seconds", 1.0)
    floor = next((row.floor for row in report.rows if row.floor is not None), None)
    shown = [value for _, curve in curves for _, *found in curve for value in found]
    shown += [floor] if floor is not None else []
    logarithmic = metric.mode == "min" and min(shown) > 0 and max(shown) > 2 * min(shown)
    ends = []
    for row, curve in curves:
        color, marker, line = styles[row.experiment]
        seconds, mean, low, high = zip(*curve, strict=True)
        times = [s / scale for s in seconds]
        axes.plot(times, mean, color=color, marker=marker, linestyle=line, linewidth=2.2, markersize=6, zorder=3)
        axes.fill_between(times, low, high, color=color, alpha=0.18, linewidth=0, zorder=2)
        ends.append((names[row.experiment], times[-1], mean[-1], color))
    if floor is not None:
        axes.axhline(floor, color=GRAY, linestyle=(0, (6, 4)), linewidth=1.6, zorder=1)
        ends.append(("real test images", longest / scale * 1.02, floor, GRAY))
    axes.set_xlim(0, longest / scale * 1.02)
    if logarithmic:
        _logarithmic(axes, min(shown), max(shown))
    better = "lower" if metric.mode == "min" else "higher"
    features = f" on {metric.extractor} features" if metric.extractor else ""
    spread = ", shaded: lowest to highest seed" if any(len(row.done) > 1 for row, _ in curves) else ""
    style = {"fontsize": _points(SMALL + 1), "color": DARK, "labelpad": 10}
    axes.set_ylabel(f"{metric.label}{features}\n({better} is better)", **style)
    axes.set_xlabel(f"training time in {unit}, validation included{spread}", **style)
    style_axes(axes, _points(SMALL), **REPORT_STYLE)
    _label_ends(axes, ends)


def _logarithmic(axes: Axes, low: float, high: float) -> None:
    """Make the axis logarithmic with round numbers: 0.5, 1, 2, 5, 10."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    room = (high / low) ** 0.05
    axes.set_ylim(low / room, high * room)


def _label_ends(axes: Axes, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """Write each line's name to the right of its end; names that would overlap move apart."""
    to_pixels, box = axes.transData, axes.get_window_extent()
    heights = [float(to_pixels.transform((x, y))[1]) for _, x, y, _ in ends]
    places = spread_apart(heights, NAME + 5, box.y0 + NAME / 2, box.y1 - NAME / 2)
    for (name, x, y, color), place in zip(ends, places, strict=True):
        axes.annotate(
            name,
            xy=(x, y),
            xytext=(1 + 22 / box.width, (place - box.y0) / box.height),
            textcoords="axes fraction",
            fontsize=_points(NAME - 1),
            color=DARK,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 2.0, "alpha": 0.7, "shrinkA": 4, "shrinkB": 6},
        )
