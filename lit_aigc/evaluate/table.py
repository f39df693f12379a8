"""What an evaluation shows on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lit_aigc.evaluate.page.entries import LEVEL, Entry, Findings, decimals, is_number, read_findings
from lit_aigc.media.console import lines, number


def print_evaluation(
    results: Mapping[str, Any], paths: Mapping[str, str | Path], console: Console | None = None
) -> None:
    """Print what was measured, the numbers, the comparison with a baseline if there is one, and the paths."""
    console = console or Console()
    found = read_findings(results)
    tables = [_numbers(found)] if found.entries else []
    tables += [_differences(found.differences)] if found.differences else []
    for part in (*lines(found.facts), *tables, *lines(paths)):
        console.print(part, soft_wrap=isinstance(part, Text))


def _numbers(found: Findings) -> Table:
    """A row for each number, with its interval and what real images reach; columns without content are left out."""
    columns = {
        "": [_named(entry) for entry in found.entries],
        "value": [_figure(entry, entry.value) for entry in found.entries],
        f"{100 * LEVEL:g} % interval": [_interval(entry) for entry in found.entries],
        "real": ["" if entry.real is None else number(entry.real) for entry in found.entries],
    }
    return _table({title: cells for title, cells in columns.items() if any(cells)})


def _differences(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """This less the baseline: a row for each number, its interval below the difference."""
    ends = [f"{number(facts['low'])} … {number(facts['high'])}" for facts in found.values()]
    differences = [number(facts["difference"]) for facts in found.values()]
    return _table(
        {
            "against the baseline": list(found),
            "baseline": [number(facts["baseline"]) for facts in found.values()],
            f"difference\n{100 * LEVEL:g} % interval": list(map("\n".join, zip(differences, ends, strict=True))),
            " ": ["beyond noise" if facts["beyond_noise"] else "within noise" for facts in found.values()],
        }
    )


def _table(columns: Mapping[str, list[str]]) -> Table:
    """The first column names the rows: where the terminal is too narrow it is folded, and nothing is cut."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, title in enumerate(columns):
        if i == 0:
            table.add_column(title, style="bold", overflow="fold")
        else:
            table.add_column(title, justify="right", no_wrap=True)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _named(entry: Entry) -> str:
    label = "" if entry.label is None or entry.key.endswith(f"_{entry.label}") else f" {entry.label}"
    return f"{entry.key}{label}{' (biased)' if entry.biased else ''}"


def _figure(entry: Entry, value: Any) -> str:
    """A value, with two digits of its standard error where that is known."""
    if is_number(value) and math.isfinite(value) and entry.standard_error:
        return f"{value:,.{decimals(entry.standard_error, 2)}f}"
    return number(value)


def _interval(entry: Entry) -> str:
    """The interval; without one the standard error."""
    if entry.low is not None and entry.high is not None:
        return f"{_figure(entry, entry.low)} … {_figure(entry, entry.high)}"
    return "" if entry.standard_error is None else f"± {_figure(entry, entry.standard_error)}"
