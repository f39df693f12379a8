"""The output of an evaluation: files, progress and the table on the terminal."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from lit_aigc.evaluate.page.findings import Findings, plain, read_findings
from lit_aigc.files import check_writable
from lit_aigc.media.console import lines, number, table
from lit_aigc.metrics.bootstrap import LEVEL
from lit_aigc.metrics.measurement import Measurement
from lit_aigc.runs.bundle import find_bundle

_Batch = TypeVar("_Batch")

# Options that change no number, or that determine the name of the file.
_NO_OPTIONS = ("bundle", "fake", "out", "page", "batch_size", "cache", "device", "trust")


def settled(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with the paths that it leaves open: the bundle in a run folder, and the file of the results.

    Raises:
        InputError: If the results can't be written there.
    """
    found = dict(config)
    if config["bundle"]:
        found["bundle"] = str(find_bundle(config["bundle"]))
    found["out"] = str(results_file(found))
    check_writable(found["out"], "out", folder=False)
    return found


def options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that numbers depend on, as they are stored with the numbers."""
    return json.loads(json.dumps({key: value for key, value in config.items() if key not in _NO_OPTIONS}))


def results_file(config: Mapping[str, Any]) -> Path:
    """Return the file of the numbers: ``out``, or next to what is measured.

    Results of other options are kept: after ``evaluation.json`` come ``evaluation-2.json`` and so on. Repeating an
    evaluation replaces its older results.
    """
    if config["out"]:
        return Path(config["out"])
    if config["bundle"]:
        first = find_bundle(config["bundle"]).parent / "evaluation.json"
    else:
        fake = Path(config["fake"]).absolute()
        first = fake.with_name(f"{fake.name}.evaluation.json")
    others = (first.with_stem(f"{first.stem}-{i}") for i in itertools.count(2))
    return next(file for file in itertools.chain([first], others) if not file.exists() or _is_of(config, file))


def picture_file(config: Mapping[str, Any]) -> Path:
    """Return the file of the memorization audit's picture: ``memorisation.png``, with the number of the results."""
    results = results_file(config)
    number = re.search(r"-\d+$", results.stem)
    return results.with_name(f"memorisation{number[0] if number else ''}.png")


def page_file(config: Mapping[str, Any]) -> Path:
    """Return the file of the page."""
    return results_file(config).with_suffix(".html")


def _is_of(config: Mapping[str, Any], file: Path) -> bool:
    """Return whether a file holds the results of the same evaluation."""
    try:
        return json.loads(file.read_text()).get("options") == options(config)
    except (OSError, ValueError, AttributeError):
        return False


def shown(batches: Iterable[_Batch], what: str, count: int, size: int) -> Iterable[_Batch]:
    """Yield the batches of `size` out of `count` items, with a progress bar on a terminal."""
    console = Console(stderr=True)
    hidden = not console.is_terminal
    return track(batches, what, total=math.ceil(count / size), console=console, transient=True, disable=hidden)


def print_evaluation(
    results: Mapping[str, Any], paths: Mapping[str, str | Path], console: Console | None = None
) -> None:
    """Print what was measured, the numbers, the comparison with a baseline if there is one, and the paths."""
    console = console or Console()
    found = read_findings(results)
    tables = [_numbers(found)] if found.measurements else []
    tables += [_differences(found.differences)] if found.differences else []
    for part in (*lines(found.facts), *tables, *lines(paths)):
        console.print(part, soft_wrap=isinstance(part, Text))


def _numbers(found: Findings) -> Table:
    """Return a row per number, with its interval and what real images reach; empty columns are left out."""
    columns = {
        "": [_named(each) for each in found.measurements],
        "value": [plain(each, each.value) for each in found.measurements],
        f"{100 * LEVEL:g} % interval": [_interval(each) for each in found.measurements],
        "real": ["" if each.real is None else number(each.real) for each in found.measurements],
    }
    return _table({title: cells for title, cells in columns.items() if any(cells)})


def _differences(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a row per number: the baseline, this minus the baseline, and the interval below the difference."""
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
    """Return a table whose first column names the rows and is folded on a narrow terminal, so that nothing is cut."""
    made = table(columns, zip(*columns.values(), strict=True), left=[next(iter(columns))], padding=(0, 1, 0, 0))
    names = made.columns[0]
    names.style, names.overflow, names.no_wrap = "bold", "fold", False
    return made


def _named(measurement: Measurement) -> str:
    label = "" if measurement.label == measurement.part else f" {measurement.label}"
    return f"{measurement.key()}{label}{' (biased)' if measurement.biased else ''}"


def _interval(measurement: Measurement) -> str:
    """Return the interval; without one the standard error."""
    low, high, error = measurement.low, measurement.high, measurement.standard_error
    if low is not None and high is not None:
        return f"{plain(measurement, low)} … {plain(measurement, high)}"
    return "" if error is None else f"± {plain(measurement, error)}"
