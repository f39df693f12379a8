"""The charts of an evaluation as plain numbers and texts for the page's SVG; what they show is also there in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from lit_aigc.evaluate.page.findings import figure, typeset
from lit_aigc.media.console import decimals
from lit_aigc.metrics.measurement import Curve, Measurement, is_number

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 16, 10, 38
COLORS = 7  # in page.css
LOGARITHMIC = 30  # from this ratio of the largest value to the smallest
MOST_POINTS = 400
MARKED = 30  # up to this many points, each has a mark


def scale(measurement: Measurement) -> dict[str, Any] | None:
    """Return a number on its scale, or None if there is nothing to compare the number with.

    Returns:
        ``value``, the place of the number as a percentage of the width; ``interval``, those of both ends of its
        interval, or None; ``real``, that of the figure of real images, or None; and ``ends`` of the scale, as text.
    """
    value, low, high, real = (getattr(measurement, name) for name in ("value", "low", "high", "real"))
    if not is_number(value) or not math.isfinite(value):
        return None
    known = [each for each in (value, low, high, real) if each is not None and math.isfinite(each)]
    share = bool(measurement.figure and measurement.figure.share)
    if len(known) < 2 and not share:
        return None
    first, last = min(0.0, *known), max(1.0 if share else 0.0, *known)
    first = 0.0 if -first < 0.02 * last else _rounded(first)  # a kernel distance may lie slightly below 0
    last = last if share else _rounded(last)

    def place(number: float) -> str:
        return f"{100 * (number - first) / ((last - first) or 1):.2f}%"

    return {
        "value": place(value),
        "interval": (place(low), place(high)) if None not in (low, high) and len(known) >= 3 else None,
        "real": None if real is None else place(real),
        "ends": (compact(first), compact(last)),
    }


def bars(mean: Measurement, classes: Sequence[Measurement]) -> dict[str, Any]:
    """Return a bar for each class, and the mean as a line through all bars.

    Returns:
        ``mean``, the place of the line as a percentage of the width, or None; and ``rows``: label, length of the bar as
        a percentage, and value of each class.
    """
    finite = [each.value for each in (*classes, mean) if math.isfinite(each.value)]
    high = max([*finite, 1e-12]) * 1.02
    digits = decimals(high, 3)

    def row(each: Measurement) -> tuple[str, str, str]:
        if not math.isfinite(each.value):
            return each.label, "0.00%", figure(each.value)
        return each.label, f"{100 * max(each.value, 0) / high:.2f}%", typeset(f"{each.value:,.{digits}f}")

    line = f"{100 * mean.value / high:.2f}%" if math.isfinite(mean.value) else None
    return {"mean": line, "rows": [row(each) for each in classes]}


def lines(curves: Mapping[str, Curve], levels: Mapping[str, float], end: float) -> dict[str, Any]:
    """Draw curves over samples seen; values that span a wide range are on a logarithmic axis.

    Args:
        curves: By name, drawn in the order of the colors.
        levels: Values of real images by name: dashed lines, if they lie within the axis or near it.
        end: Largest number of samples on the axis.

    Returns:
        In pixels of a picture of `WIDTH` by `HEIGHT`: ``rows`` and ``columns``, place and text of the ticks of the
        values and of the samples; ``levels``, heights of the dashed lines; ``curves``, path and marks of each. And
        ``logarithmic``, whether the axis of the values is, and ``words``, what the chart shows.
    """
    values = [value for _, found in curves.values() for value in found if math.isfinite(value)] or [0.0]
    logarithmic = min(values) > 0 and max(values) / min(values) >= LOGARITHMIC
    low, high, ticks = _logarithmic_axis(values) if logarithmic else _linear_axis(values, list(levels.values()))
    transform = math.log10 if logarithmic else float

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / max(end, 1)

    def y(value: float) -> float:
        share = (transform(value) - transform(low)) / (transform(high) - transform(low))
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share

    drawn = []
    for steps, found in curves.values():
        points = _thinned([(x(step), y(v)) if math.isfinite(v) else None for step, v in zip(steps, found, strict=True)])
        marks = [(f"{a:.1f}", f"{b:.1f}") for a, b in filter(None, points)] if len(points) <= MARKED else []
        drawn.append((_path(points), marks))
    words = [_in_words(name, curve) for name, curve in curves.items()]
    words += [f"{name} {figure(value)}" for name, value in levels.items()]
    return {
        "rows": [(f"{y(tick):.1f}", compact(tick)) for tick in ticks],
        "columns": [(f"{x(tick):.1f}", compact(tick)) for tick in _steps(0.0, max(end, 1), 4, whole=True)],
        "levels": [f"{y(value):.1f}" for value in levels.values() if low <= value <= high],
        "curves": drawn,
        "logarithmic": logarithmic,
        "words": f"Curves over samples seen{', logarithmic' if logarithmic else ''}: {'; '.join(words)}",
    }


def _rounded(value: float) -> float:
    """Return the next round number away from 0."""
    if not value:
        return 0.0
    power = 10.0 ** math.floor(math.log10(abs(value)))
    factor = next(factor for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15) if factor * power >= abs(value))
    return math.copysign(factor * power, value)


def compact(value: float) -> str:
    """Return ``12k`` for 12000, ``2.5M`` for 2500000, and 0.25 as it is."""
    for least, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= least:
            return typeset(f"{value / least:.4g}{unit}")
    return typeset(f"{value:.4g}")


def _in_words(name: str, curve: Curve) -> str:
    steps, values = curve
    if not values:
        return name
    ends = f"{figure(values[0])} at {steps[0]:,}"
    return f"{name} {ends}" + (f", {figure(values[-1])} at {steps[-1]:,}" if len(values) > 1 else "")


def _linear_axis(values: Sequence[float], levels: Sequence[float]) -> tuple[float, float, list[float]]:
    """Return the ends and ticks of an axis, including 0 and the figures of real images if they are near the curves."""
    low, high = min(values), max(values)
    for also in (0.0, *levels):
        if math.isfinite(also) and max(high, also) - min(low, also) <= 1.6 * (high - low):
            low, high = min(low, also), max(high, also)
    if high - low <= 1e-9 * max(abs(high), abs(low), 1e-300):
        margin = abs(high) * 0.1 or 1.0
        low, high = low - margin, high + margin
    margin = 0.04 * (high - low)
    low, high = low if low == 0 else low - margin, high if high == 0 else high + margin
    return low, high, _steps(low, high, 4)


def _logarithmic_axis(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Return the ends and ticks: powers of ten, with twos and fives between them if there are few."""
    low, high = min(values) / 1.15, max(values) * 1.15
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, (last - first) // 5)
    factors = (1, 2, 5) if high / low < 100 else (1, 3) if high / low < 1000 else (1,)
    ticks = [factor * 10.0**power for power in range(first, last + 1, every) for factor in factors]
    return low, high, [tick for tick in ticks if low <= tick <= high]


def _steps(low: float, high: float, about: int, *, whole: bool = False) -> list[float]:
    """Return about this many round numbers from low to high."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= 0.999 * rough)
    step = max(1.0, round(step)) if whole else step
    return [
        round(index * step, 12) for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _thinned(points: list[tuple[float, float] | None]) -> list[tuple[float, float] | None]:
    """Return at most `MOST_POINTS` points: the lowest and the highest of each stretch, so that no peak is lost."""
    if len(points) <= MOST_POINTS:
        return points
    stretch = math.ceil(2 * len(points) / MOST_POINTS)
    kept: list[tuple[float, float] | None] = []
    for start in range(0, len(points), stretch):
        part = [point for point in points[start : start + stretch] if point]
        kept += sorted({min(part, key=itemgetter(1)), max(part, key=itemgetter(1))}) if part else [None]
    return kept


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    """Return a line through the points, broken where one is missing."""
    pens = ["M", *("L" if point else "M" for point in points)]
    return "".join(f"{pen}{point[0]:.1f} {point[1]:.1f}" for pen, point in zip(pens, points, strict=False) if point)


def last(curve: Curve) -> float:
    """Return its last value that is a number, or NaN."""
    return next((value for value in reversed(curve[1]) if is_number(value)), math.nan)
