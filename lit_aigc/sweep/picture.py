"""Draw a search: the metric over the trials with the best so far, and over each parameter."""

from __future__ import annotations

import collections
import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_aigc.files import write_atomically
from lit_aigc.media.plots import COLORS, DARK, GRAY, REPORT_STYLE, as_png, style_axes
from lit_aigc.sweep.parameters import Parameter
from lit_aigc.sweep.trials import Trial, short, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lit_aigc.sweep.report import Report

DONE, PRUNED, FAILED, BEST = COLORS[0], GRAY, COLORS[1], COLORS[2]
COLUMNS, MOST = 4, 12  # slices per row, and in all
LONGEST = 150  # characters of the line about the best trial
WIDTH, TOP_HEIGHT, SLICE_HEIGHT = 12.0, 3.6, 2.7  # inches


def draw_search(report: Report, path: Path) -> Path:
    """Draw a search.

    Args:
        report: The results; at least one trial has a value.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    parameters = report.sweep.parameters[:MOST]
    columns = min(COLUMNS, len(parameters))
    rows = math.ceil(len(parameters) / columns)
    height = TOP_HEIGHT + SLICE_HEIGHT * rows + 0.7
    figure = Figure(figsize=(WIDTH, height), dpi=110, facecolor="white", layout="constrained")
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[TOP_HEIGHT, *[SLICE_HEIGHT] * rows])
    figure.suptitle(_title(report), x=0.01, ha="left", fontsize=14, color=DARK, weight="bold")
    limits, logarithmic = shown_range([t.value for t in report.trials if t.value is not None], report.sweep.goal)

    over_trials = figure.add_subplot(grid[0, :])
    _style(over_trials, limits, logarithmic)
    _trials(over_trials, report, limits)
    for i, parameter in enumerate(parameters):
        axes = figure.add_subplot(grid[1 + i // columns, i % columns])
        _style(axes, limits, logarithmic)
        colors = _slice(axes, report, parameter, limits)
        if i % columns == 0:
            axes.set_ylabel(report.sweep.metric, color=DARK)
    bar = figure.colorbar(colors, ax=figure.axes[1:], location="right", shrink=0.9, pad=0.01, aspect=30)
    bar.set_label("trial", color=DARK)
    bar.outline.set_visible(False)
    bar.locator = _whole_numbers()
    bar.update_ticks()
    return write_atomically(path, as_png(figure))


def shown_range(values: Sequence[float], goal: str) -> tuple[tuple[float, float], bool]:
    """Return the limits of the metric's axis, and whether it is logarithmic.

    The axis reaches from the best value to three interquartile ranges beyond the third quartile, so that one outlier
    doesn't squeeze the others. It is logarithmic if the values are positive and span a factor of ten.
    """
    sign = 1 if goal == "minimize" else -1
    ordered = sorted(sign * value for value in values)
    worst = ordered[-1]
    if len(ordered) > 3:
        first, _, third = statistics.quantiles(ordered, n=4, method="inclusive")
        worst = min(worst, third + 3 * (third - first))
    low, high = sorted((sign * ordered[0], sign * worst))
    logarithmic = low > 0 and high > 10 * low
    if logarithmic:
        room = (high / low) ** 0.08
        return (low / room, high * room), True
    room = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return (low - room, high + room), False


def best_so_far(trials: Sequence[Trial], goal: str) -> tuple[list[int], list[float]]:
    """Return the numbers of the trials that are done, and the best value up to each."""
    done = sorted((trial for trial in trials if trial.status == "done"), key=lambda trial: trial.number)
    best = itertools.accumulate((trial.value for trial in done), min if goal == "minimize" else max)
    return [trial.number for trial in done], list(best)


def _title(report: Report) -> str:
    counts = {status: sum(t.status == status for t in report.trials) for status in ("done", "pruned", "failed")}
    parts = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    better = "lower" if report.sweep.goal == "minimize" else "higher"
    name, hidden = report.folder.path.name, len(report.sweep.parameters) - MOST
    more = f"; {hidden} more parameters not shown" if hidden > 0 else ""
    return f"{name}: {report.sweep.metric} ({better} is better) of {len(report.trials)} trials, {parts}{more}"


def _style(axes: Axes, limits: tuple[float, float], logarithmic: bool) -> None:
    if logarithmic:
        axes.set_yscale("log")
    axes.set_ylim(*limits)
    style_axes(axes, **REPORT_STYLE)


def _trials(axes: Axes, report: Report, limits: tuple[float, float]) -> None:
    """Draw the metric over the trials."""
    looks = {
        "done": {"color": DONE, "marker": "o", "s": 42},
        "pruned": {"facecolors": "white", "edgecolors": PRUNED, "marker": "o", "s": 34},
    }
    for status, look in looks.items():
        shown = [t for t in report.trials if t.status == status and t.value is not None]
        if shown:
            heights = [_within(t.value, limits) for t in shown]
            axes.scatter([t.number for t in shown], heights, label=status, zorder=3, clip_on=False, **look)
    if failed := [t.number for t in report.trials if t.status == "failed"]:
        end = 0.0 if report.sweep.goal == "maximize" else 1.0
        to_edge = axes.get_xaxis_transform()
        axes.scatter(failed, [end] * len(failed), color=FAILED, marker="x", s=42, transform=to_edge, label="failed",
                     clip_on=False, zorder=3)  # fmt: skip
    numbers, best = best_so_far(report.trials, report.sweep.goal)
    if numbers:
        last = max(trial.number for trial in report.trials)
        axes.step(
            [*numbers, last], [*best, best[-1]], where="post", color=BEST, linewidth=2, label="best so far", zorder=2
        )
        names = shortened(list(report.best.values))
        settings = ", ".join(f"{name}={short(v)}" for name, v in zip(names, report.best.values.values(), strict=True))
        text = f"best: {report.best.value:.5g}, trial {report.best.number} ({settings})"
        text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
        axes.set_title(text, fontsize=10, color=BEST, loc="left", pad=24)
    axes.set_xlabel("trial", color=DARK)
    axes.set_ylabel(report.sweep.metric, color=DARK)
    axes.xaxis.set_major_locator(_whole_numbers())
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1.01), "borderaxespad": 0}
    axes.legend(frameon=False, ncols=4, fontsize=9, labelcolor=DARK, **place)


def _slice(axes: Axes, report: Report, parameter: Parameter, limits: tuple[float, float]) -> Any:
    """Draw the metric over one parameter, later trials darker; return what `Figure.colorbar` takes."""
    shown = [t for t in sorted(report.trials, key=lambda t: t.number) if t.value is not None]
    choices = parameter.grid is not None and not _numeric(parameter)
    if choices:
        names = [short(parameter.value(place)) for place in parameter.grid]
        places = side_by_side([t.drawn[parameter.name] for t in shown])
        axes.set_xticks(range(len(names)), [name if len(name) < 16 else name[:14] + "…" for name in names])
        axes.set_xlim(-0.5, len(names) - 0.5)
        if sum(map(len, names)) > 24:
            axes.tick_params(axis="x", rotation=25)
    else:
        places = [float(t.values[parameter.name]) for t in shown]
        if parameter.logarithmic or (min(places) > 0 and max(places) >= 50 * min(places)):
            axes.set_xscale("log")
    axes.set_xlabel(parameter.name, color=DARK, fontsize=10)
    heights, numbers = [_within(t.value, limits) for t in shown], [t.number for t in shown]
    edges = [DONE if t.status == "done" else PRUNED for t in shown]
    sizes = [40 if t.status == "done" else 22 for t in shown]
    look = {"vmin": 0, "vmax": max(1, len(report.trials) - 1), "linewidths": 0.8, "zorder": 3, "clip_on": False}
    dots = axes.scatter(places, heights, c=numbers, cmap="Blues", s=sizes, edgecolors=edges, **look)
    if report.best:
        place = next(x for x, t in zip(places, shown, strict=True) if t is report.best)
        axes.scatter([place], [report.best.value], s=130, facecolors="none", edgecolors=BEST, linewidths=2, zorder=4)
    return dots


def side_by_side(choices: Sequence[int]) -> list[float]:
    """Return where to draw trials by their choice: evenly around the tick, so that none hides another."""
    totals, before = collections.Counter(choices), collections.Counter()
    places = []
    for choice in choices:
        step = min(0.1, 0.6 / totals[choice])
        places.append(choice + step * (before[choice] - (totals[choice] - 1) / 2))
        before[choice] += 1
    return places


def _numeric(parameter: Parameter) -> bool:
    """Return whether the values are numbers along an axis rather than names; a few numbers count as names."""
    from optuna.distributions import CategoricalDistribution

    if not isinstance(parameter.distribution, CategoricalDistribution):
        return True
    values = [parameter.value(place) for place in parameter.grid or ()]
    return len(values) > 6 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _within(value: float, limits: tuple[float, float]) -> float:
    """Return a value, or the edge that it lies beyond."""
    return min(max(value, limits[0]), limits[1])


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True)
