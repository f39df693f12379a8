"""Charts of an evaluation as inline SVG: what stands in them is in words too, for those who don't see them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lit_aigc.evaluate.page.entries import Entry, figure, is_number, typeset
from lit_aigc.evaluate.page.markup import Markup, tag

Curve = tuple[Sequence[int], Sequence[float]]
WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 16, 10, 38
COLOURS = 7  # in page.css
LOGARITHMIC = 30  # from this ratio of the largest value to the smallest on
MOST_POINTS = 400
MARKED = 30  # with at most so many points, each has a mark


def range_chart(entry: Entry) -> Markup | None:
    """A number on its scale, with its interval as a bar and the figure of real images as a tick.

    Returns:
        The picture; None where there is nothing to see the number against.
    """
    if not is_number(entry.value):
        return None
    places = [entry.value, entry.low, entry.high, entry.real]
    known = [place for place in places if place is not None and math.isfinite(place)]
    share = bool(entry.kind and entry.kind.share)
    if not math.isfinite(entry.value) or (len(known) < 2 and not share):
        return None
    low, high = min(0.0, *known), max(1.0 if share else 0.0, *known)
    low = 0.0 if -low < 0.02 * high else _rounded(low)  # a kernel distance may lie a little below 0
    high = high if share else _rounded(high)

    def percent(value: float) -> str:
        return f"{100 * (value - low) / ((high - low) or 1):.2f}%"

    parts = [tag("line", class_="scale", x1="0", x2="100%", y1="12", y2="12")]
    if entry.low is not None and entry.high is not None and len(known) >= 3:
        parts.append(tag("line", class_="interval", x1=percent(entry.low), x2=percent(entry.high), y1="12", y2="12"))
    if entry.real is not None:
        parts.append(tag("line", class_="real", x1=percent(entry.real), x2=percent(entry.real), y1="3", y2="21"))
    parts.append(tag("circle", class_="value", cx=percent(entry.value), cy="12", r="4.5"))
    ends = tag("p", tag("span", compact(low)), tag("span", compact(high)), class_="ends")
    return tag("div", tag("svg", parts, height="24"), ends, class_="range", aria_hidden="true")


def bar_chart(mean: Entry, classes: Sequence[Entry]) -> Markup:
    """A table with a bar for each class, and the mean as a line through all bars."""
    values = [each.value for each in classes if math.isfinite(each.value)]
    high = max([*values, mean.value if math.isfinite(mean.value) else 0.0, 1e-12]) * 1.02
    digits = max(0, 3 - math.floor(math.log10(high)) - 1)
    rows = []
    for each in classes:
        drawn = each.value if math.isfinite(each.value) else 0.0
        line = f"{100 * mean.value / high:.2f}%" if math.isfinite(mean.value) else None
        bar = tag(
            "svg",
            tag("rect", class_="bar", width=f"{100 * max(drawn, 0) / high:.2f}%", height="14", y="5"),
            line and tag("line", class_="mean", x1=line, x2=line, y1="0", y2="100%"),
            height="24",
            aria_hidden="true",
        )
        value = typeset(f"{each.value:,.{digits}f}") if math.isfinite(each.value) else figure(each.value)
        rows.append(tag("tr", tag("th", each.label, scope="row"), tag("td", bar), tag("td", value, class_="number")))
    head = tag("tr", tag("th", "Class", scope="col"), tag("th", "Bar", scope="col"), tag("th", mean.name, scope="col"))
    return tag("table", tag("thead", head, class_="unseen"), tag("tbody", rows), class_="bars")


def line_chart(curves: Mapping[str, Curve], levels: Mapping[str, float], end: float) -> Markup:
    """Curves over samples seen; the values on a logarithmic axis where they span much.

    Args:
        curves: By name, drawn in the order of the colours.
        levels: Values of real images by name: dashed lines, where they lie within the axis or near it.
        end: Largest number of samples on the axis.
    """
    values = [value for _, found in curves.values() for value in found if math.isfinite(value)] or [0.0]
    logarithmic = min(values) > 0 and max(values) / min(values) >= LOGARITHMIC
    low, high, ticks = _logarithmic_axis(values) if logarithmic else _linear_axis(values, list(levels.values()))
    scale = math.log10 if logarithmic else float

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / max(end, 1)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (scale(value) - scale(low)) / (scale(high) - scale(low))

    parts = []
    for tick in ticks:
        at = f"{y(tick):.1f}"
        parts.append(tag("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at))
        parts.append(tag("text", compact(tick), x=LEFT - 7, y=f"{y(tick) + 4:.1f}", text_anchor="end"))
    bottom = HEIGHT - BOTTOM
    for tick in _steps(0.0, max(end, 1), 4, whole=True):
        at = f"{x(tick):.1f}"
        parts.append(tag("line", class_="axis", x1=at, x2=at, y1=bottom, y2=bottom + 4))
        parts.append(tag("text", compact(tick), x=at, y=bottom + 17, text_anchor="middle"))
    parts.append(tag("line", class_="axis", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom))
    parts.append(tag("text", "samples seen", x=WIDTH - RIGHT, y=HEIGHT - 3, text_anchor="end", class_="title"))
    if logarithmic:
        parts.append(tag("text", "logarithmic", x=LEFT, y=HEIGHT - 3, class_="title"))
    for value in levels.values():
        if math.isfinite(value) and low <= value <= high:
            at = f"{y(value):.1f}"
            parts.append(tag("line", class_="level", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at))
    for place, (steps, found) in enumerate(curves.values()):
        points = _thinned([(x(step), y(v)) if math.isfinite(v) else None for step, v in zip(steps, found, strict=True)])
        colour = f"c{place % COLOURS}"
        parts.append(tag("path", class_=f"curve {colour}", d=_path(points)))
        if len(points) <= MARKED:
            marks = [point for point in points if point]
            parts += [tag("circle", class_=f"mark {colour}", cx=f"{a:.1f}", cy=f"{b:.1f}", r="2.6") for a, b in marks]
    words = "; ".join(
        [*(_in_words(name, curve) for name, curve in curves.items()), *(f"{k} {figure(v)}" for k, v in levels.items())]
    )
    label = f"Curves over samples seen{', logarithmic' if logarithmic else ''}: {words}"
    return tag("svg", parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=label)


def _rounded(value: float) -> float:
    """The next round number away from 0."""
    if not value:
        return 0.0
    power = 10.0 ** math.floor(math.log10(abs(value)))
    factor = next(factor for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15) if factor * power >= abs(value))
    return math.copysign(factor * power, value)


def compact(value: float) -> str:
    """``12000`` as ``12k``, ``2500000`` as ``2.5M``, 0.25 as it is."""
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
    """Ends and ticks of an axis; with 0 and the figures of real images, if that doesn't press the curves together."""
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
    """Ends and ticks: powers of ten, with twos and fives between them where these are few."""
    low, high = min(values) / 1.15, max(values) * 1.15
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, (last - first) // 5)
    factors = (1, 2, 5) if high / low < 100 else (1, 3) if high / low < 1000 else (1,)
    ticks = [factor * 10.0**power for power in range(first, last + 1, every) for factor in factors]
    return low, high, [tick for tick in ticks if low <= tick <= high]


def _steps(low: float, high: float, about: int, *, whole: bool = False) -> list[float]:
    """Round numbers from low to high, about so many."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= 0.999 * rough)
    step = max(1.0, round(step)) if whole else step
    return [
        round(index * step, 12) for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _thinned(points: list[tuple[float, float] | None]) -> list[tuple[float, float] | None]:
    """At most `MOST_POINTS` points: of each stretch the lowest and the highest, so that no peak is lost."""
    if len(points) <= MOST_POINTS:
        return points
    stretch = math.ceil(2 * len(points) / MOST_POINTS)
    kept: list[tuple[float, float] | None] = []
    for start in range(0, len(points), stretch):
        part = [point for point in points[start : start + stretch] if point]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])} if part else {None}
        kept += sorted(ends) if part else [None]
    return kept


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    """A line through the points, broken where one is missing."""
    words, pen = [], "M"
    for point in points:
        if point:
            words.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
        pen = "L" if point else "M"
    return "".join(words)


def is_level(name: str) -> bool:
    """Whether a curve is a figure of real images, which stays as it is."""
    return not {"floor", "real"}.isdisjoint(name.split("_")[1:])


def last(curve: Curve) -> float:
    """Its last value."""
    return next((value for value in reversed(curve[1]) if is_number(value)), math.nan)
