"""Console output of commands: the facts of a run, results, and the paths of what was written."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

HIDDEN = ("protocol", "run_id")
RUN_FACTS = (
    "status", "error", "seed", "samples_seen", "batches", "generator_updates", "samples_per_second", "train_seconds",
    "wall_seconds", "startup_seconds",
)  # fmt: skip


def duration(seconds: float) -> str:
    """Format seconds: ``75`` as ``1:15``, ``3675`` as ``1:01:15``, and NaN or infinity as ``-:--``."""
    if not math.isfinite(seconds):
        return "-:--"
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def decimals(value: float, digits: int, most: int = 12) -> int:
    """Return how many decimals show this many digits of a value, `most` at most; none of 0 and of infinity."""
    if not value or not math.isfinite(value):
        return 0
    return min(max(0, digits - 1 - math.floor(math.log10(abs(value)))), most)


def number(value: Any) -> str:
    """Format a value for people: four significant digits, thousands separated; anything but a number unchanged."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (math.isfinite(value) and abs(value) >= 1e4):
        return f"{value:,.0f}"
    if abs(value) < 1e-3 or not math.isfinite(value):
        return f"{value:.4g}"
    return f"{value:.{decimals(value, 4)}f}"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], left: Collection[str] = (), **look: Any) -> Table:
    """Return a table whose cells are never wrapped, on the right except in the columns with a head in `left`."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, **look)
    for head in heads:
        made.add_column(head, justify="left" if head in left else "right", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def print_in_full(shown: Table) -> Console:
    """Print a table at its full width, however narrow the terminal; return the console, which is as wide."""
    console = Console()
    console.width = max(console.width, console.measure(shown, options=console.options.update(width=1000)).maximum)
    console.print(shown, highlight=False)
    return console


def results_table(summary: Mapping[str, Any], paths: Mapping[str, str | Path]) -> RenderableType:
    """Arrange results, then facts of the run, then paths, each on a line of its own so that it can be copied.

    Args:
        summary: The contents of ``summary.json``; ``protocol`` isn't shown.
        paths: Paths of what was written, by a word for each.
    """
    metrics = {key: value for key, value in summary.items() if key not in RUN_FACTS and key not in HIDDEN}
    facts = {key: summary[key] for key in RUN_FACTS if key in summary}
    made = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    made.add_column(style="bold")
    made.add_column(justify="right")
    for key, value in metrics.items():
        made.add_row(key, number(value))
    if metrics and facts:
        made.add_section()
    for key, value in facts.items():
        shown = str(value) if key == "seed" else number(value)
        if key.endswith("_seconds") and isinstance(value, int | float):
            shown = duration(value)
        made.add_row(Text(key, style="not bold"), shown)
    return Group(made, *lines(paths))


def print_results(summary: Mapping[str, Any], paths: Mapping[str, str | Path], console: Console | None = None) -> None:
    """Print `results_table` to stdout."""
    (console or Console()).print(results_table(summary, paths), soft_wrap=False, crop=False)


def print_facts(facts: Mapping[str, str], console: Console | None = None) -> None:
    """Print facts to stdout, each on a line of its own."""
    (console or Console()).print(*lines(facts, "not bold"), "", sep="\n", soft_wrap=True)


def lines(entries: Mapping[str, str | Path], style: str = "not bold cyan") -> list[Text]:
    """Return a line per entry, never wrapped, so that it can be copied."""
    width = max(map(len, entries), default=0) + 2
    return [
        Text(word.ljust(width), style="bold", no_wrap=True, overflow="ignore").append(str(entry), style=style)
        for word, entry in entries.items()
    ]
