"""What a comparison found: a table, in the terminal and in Markdown, with the protocol and the command that made it."""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_aigc.build import did_you_mean
from lit_aigc.compare.plan import Comparison
from lit_aigc.errors import InputError
from lit_aigc.files import write_atomically
from lit_aigc.media.console import number

# Metrics that are measured on an extractor's features; another key is shown as it is.
LABELS = {"fid": "FID", "kid": "KID", "is": "inception score", "accuracy": "accuracy"}
NOTHING = "—"  # in a cell of the table
_SAME_PROTOCOL = ("n_real", "n_fake", "extractor_hash", "reference", "floor")


@dataclasses.dataclass(frozen=True)
class Metric:
    """A key of ``summary.json`` such as ``fid_mnist_classifier``, and which way is better.

    Attributes:
        key: The key.
        mode: ``min`` or ``max``.
    """

    key: str
    mode: str

    @property
    def kind(self) -> str:
        """``fid`` of ``fid_mnist_classifier``."""
        return self.key.partition("_")[0]

    @property
    def extractor(self) -> str:
        """``mnist_classifier`` of ``fid_mnist_classifier``."""
        return self.key.partition("_")[2]

    @property
    def label(self) -> str:
        """The metric's name for people."""
        return LABELS.get(self.kind, self.key)

    def floor(self, record: Mapping[str, Any]) -> float | None:
        """What real images get, if that is on record."""
        word = "floor" if self.mode == "min" else "real"
        return record["metrics"].get(f"{self.kind}_{word}_{self.extractor}")

    def excess(self, value: float, floor: float | None) -> float | None:
        """How much worse than real images; where no floor is on record and less is better, it is taken as 0."""
        if self.mode == "min":
            return value - (floor or 0.0)
        return None if floor is None else floor - value


@dataclasses.dataclass(frozen=True)
class Row:
    """An experiment's line in the table.

    Attributes:
        experiment: Its name.
        done: Records of the runs that have a value of the metric, by seed.
        failed: Records of those that don't.
        values: The metric of each run that is done.
        floor: What real images get, or None.
        excess: The mean distance from there, or None.
    """

    experiment: str
    done: list[dict[str, Any]]
    failed: list[dict[str, Any]]
    values: list[float]
    floor: float | None
    excess: float | None

    @property
    def mean(self) -> float:
        """Mean of the metric; NaN without a run."""
        return statistics.fmean(self.values) if self.values else math.nan


class Report:
    """Table and picture of a comparison.

    Args:
        records: As `lit_aigc.compare.running.run_list` gives them.
        comparison: What was compared.
        metric: The key that is compared; None: the monitor of the experiments.
        baseline: The experiment that the others are a share of, or None.

    Attributes:
        metric: What is compared.
        rows: An experiment each, the best first.

    Raises:
        InputError: If the metric isn't there, or the records weren't measured alike.
    """

    def __init__(
        self, records: Sequence[dict[str, Any]], comparison: Comparison, metric: str | None, baseline: str | None
    ) -> None:
        self.records = list(records)
        self.comparison = comparison
        self.baseline = baseline
        self.metric = _metric(records, metric)
        _check_protocols(records, self.metric)
        rows = [self._row(name) for name in comparison.experiments if any(r["experiment"] == name for r in records)]
        sign = 1 if self.metric.mode == "min" else -1
        self.rows = sorted(rows, key=lambda row: sign * row.mean if row.values else math.inf)

    def _row(self, experiment: str) -> Row:
        own = sorted((r for r in self.records if r["experiment"] == experiment), key=lambda r: r["seed"])
        done = [r for r in own if r["status"] == "done" and r["metrics"].get(self.metric.key) is not None]
        values = [r["metrics"][self.metric.key] for r in done]
        floor = self.metric.floor(done[0]) if done else None
        excess = self.metric.excess(statistics.fmean(values), floor) if values else None
        return Row(experiment, done, [r for r in own if r not in done], values, floor, excess)

    def ratio(self, row: Row) -> float | None:
        """A row's mean excess as a share of the baseline's."""
        base = next((other.excess for other in self.rows if other.experiment == self.baseline), None)
        return row.excess / base if row.excess is not None and base else None

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Heads of the columns, and the cells of each row as text."""
        metric, low = self.metric, self.metric.mode == "min"
        columns = {
            "experiment": lambda row: row.experiment + (" (baseline)" if row.experiment == self.baseline else ""),
            f"{metric.label} {'↓' if low else '↑'}": lambda row: mean_and_spread(row.values),
            "floor" if low else "real images": lambda row: significant(row.floor),
            "above floor" if low else "below real": lambda row: significant(row.excess),
            "÷ baseline": lambda row: significant(self.ratio(row)),
            "accuracy": lambda row: _percent(None if metric.kind == "accuracy" else _accuracy(row, metric)),
            "images/s": lambda row: _count(_mean_of(row, "samples_per_second")),
            "samples seen": lambda row: _count(_mean_of(row, "samples_seen")),
            "seeds": lambda row: f"{len(row.done)}" + (f", {len(row.failed)} failed" if row.failed else ""),
            "commit": lambda row: ", ".join(dict.fromkeys(r["commit"] for r in row.done + row.failed)),
        }
        filled = {head: [cell(row) for row in self.rows] for head, cell in columns.items()}
        shown = {head: cells for head, cells in filled.items() if set(cells) != {NOTHING}}
        return list(shown), [list(cells) for cells in zip(*shown.values(), strict=True)]

    def protocol(self) -> str:
        """How the numbers came about, in a sentence or two."""
        done = [record for row in self.rows for record in row.done]
        told = done[0]["protocol"].get(self.metric.extractor, {}) if done else {}
        reference = told.get("reference") or {}
        overrides = f" with {', '.join(self.comparison.overrides)}" if self.comparison.overrides else ""
        parts = [f"Each run: {budget_in_words(self.comparison.budget)}{overrides}."]
        if told:
            weights = "the averaged weights" if told.get("weights") == "averaged" else "the model as it is"
            real = f" against {told['n_real']:,} real images" if told.get("n_real") else ""
            split = (
                f" ({reference['split']})" if real and isinstance(reference, dict) and reference.get("split") else ""
            )
            parts.append(
                f"{self.metric.label} on `{self.metric.extractor}` features of {told['n_fake']:,} samples of {weights}"
                f"{real}{split}."
            )
            if told.get("floor"):
                parts.append(f"Floor: {told['floor']}.")
        machines = dict.fromkeys(_machine_in_words(record["machine"]) for record in done)
        if any(len(row.values) > 1 for row in self.rows):
            mixed = any(len({_hardware(record) for record in row.done}) > 1 for row in self.rows)
            over = "seeds, which ran on different machines" if mixed else "seeds"
            parts.append(f"± is the standard deviation over {over}.")
        dates = sorted(record["date"][:10] for record in done)
        when = f", {dates[0]}" + (f" to {dates[-1]}" if dates[-1] != dates[0] else "") if dates else ""
        if machines:
            parts.append(f"{'; '.join(machines)}{when}.")
        return " ".join(parts)

    def failures(self) -> list[str]:
        """A line for each run that failed."""
        return [
            f"{row.experiment}, seed {record['seed']}, failed: {_one_line(record.get('error') or 'no value measured')}"
            for row in self.rows
            for record in row.failed
        ]

    def show(self) -> None:
        """Print the table."""
        from rich import box
        from rich.console import Console
        from rich.table import Table

        heads, cells = self.table()
        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for head in heads:
            shown.add_column(head, justify="left" if head in ("experiment", "commit") else "right", no_wrap=True)
        for row in cells:
            shown.add_row(*row)
        console = Console()
        console.width = max(console.width, console.measure(shown, options=console.options.update(width=1000)).maximum)
        console.print(shown, highlight=False)
        for line in [*self.failures(), self.protocol()]:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    def markdown(self, command: str, picture: str | None) -> str:
        """Picture, table, protocol and the command that made them.

        Args:
            command: As it would be typed.
            picture: Path of the picture from the file that this goes into, or None.
        """
        heads, cells = self.table()
        sides = [":--" if head in ("experiment", "commit") else "--:" for head in heads]
        lines = [f"| {' | '.join(row)} |" for row in (heads, sides, *cells)]
        kind = f"{self.metric.label} of {len(self.rows)} experiments: samples, and quality against training time"
        parts = [
            *([f"![{kind}]({picture})"] if picture else []),
            "\n".join(lines),
            *(["\n".join(f"- {line}" for line in found)] if (found := self.failures()) else []),
            f"{self.protocol()} Made by",
            f"```bash\n{command}\n```",
        ]
        return "\n\n".join(parts)

    def write(self, name: str, targets: Sequence[str], images: Path, command: str) -> None:
        """Write table and picture: into the targets between their markers, or, without targets, beside the records.

        Args:
            name: Of table and picture.
            targets: Markdown files that have the markers, see `check_targets`.
            images: Folder of the picture for targets.
            command: The command that made the table.
        """
        from lit_aigc.compare.picture import draw_comparison

        out = self.comparison.out
        path = images / f"compare_{name}.png" if targets else out / f"{name}.png"
        drawn = draw_comparison(self, path)
        for target in [Path(target) for target in targets] or [out / f"{name}.md"]:
            link = os.path.relpath(path, target.parent).replace(os.sep, "/") if drawn else None
            text = self.markdown(command, link)
            write_atomically(target, between_markers(target.read_text(), name, text) if targets else text + "\n")
            print(f"table in {target}")
        if drawn:
            print(f"picture in {path}")


def markers(name: str) -> tuple[str, str]:
    """The lines that a table goes between."""
    return f"<!-- compare:{name} begin -->", f"<!-- compare:{name} end -->"


def check_targets(targets: Sequence[str], name: str) -> None:
    """See that there is a place for the table, before anything trains.

    Raises:
        InputError: If a file is missing or has not each marker once, in order.
    """
    begin, end = markers(name)
    for target in targets:
        try:
            text = Path(target).read_text()
        except OSError as error:
            raise InputError(f"write: {target} can't be read ({error.strerror}): expected a Markdown file.") from error
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
            raise InputError(
                f"write: {target} needs these two lines, once, around the place of the table:\n{begin}\n{end}"
            )


def between_markers(text: str, name: str, content: str) -> str:
    """The text with what stands between the markers replaced."""
    begin, end = markers(name)
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"


def budget_in_words(budget: Mapping[str, float]) -> str:
    """``10 minutes of training, validation included``."""
    words = {"minutes": "{} minutes of training, validation included", "samples": "{} samples", "batches": "{} batches"}
    return " or ".join(words[key].format(f"{value:,.10g}") for key, value in budget.items())


def significant(value: float | None, spread: float | None = None) -> str:
    """Three significant digits, no exponent; a spread with as many decimals."""
    if value is None or not math.isfinite(value):
        return NOTHING
    decimals = min(max(0, 2 - math.floor(math.log10(abs(value)))), 6) if value else 0
    return f"{value:,.{decimals}f}" + ("" if spread is None else f" ± {spread:,.{decimals}f}")


def mean_and_spread(values: Sequence[float]) -> str:
    """``0.297 ± 0.012``: mean and standard deviation (of n - 1) of several values, or the one there is."""
    if not values:
        return NOTHING
    return significant(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def _metric(records: Sequence[Mapping[str, Any]], key: str | None) -> Metric:
    monitors = dict.fromkeys((r["monitor"], r["monitor_mode"]) for r in records if r.get("monitor"))
    if key is None:
        if len(monitors) > 1:
            names = ", ".join(monitor for monitor, _ in monitors)
            raise InputError(f"The records have different monitors, {names}: choose by metric=, or by experiments=.")
        return Metric(*next(iter(monitors), ("metric", "min")))
    known = sorted({name for record in records for name in record["metrics"]})
    if known and key not in known:
        raise InputError(f"metric={key} was not measured{did_you_mean(key, known)}")
    higher = key.partition("_")[0] == "is" or "accuracy" in key
    return Metric(key, dict(monitors).get(key) or ("max" if higher else "min"))


def _check_protocols(records: Sequence[Mapping[str, Any]], metric: Metric) -> None:
    told = [(r, r["protocol"][metric.extractor]) for r in records if metric.extractor in r["protocol"]]
    for record, protocol in told[1:]:
        first, expected = told[0]
        if different := [key for key in _SAME_PROTOCOL if protocol.get(key) != expected.get(key)]:
            values = "; ".join(f"{key} {expected.get(key)} and {protocol.get(key)}" for key in different)
            runs = " and ".join(f"{r['experiment']} (seed {r['seed']}, {r['commit']})" for r in (first, record))
            raise InputError(f"{runs} were not measured alike ({values}): their numbers can't stand in one table.")


def _mean_of(row: Row, key: str) -> float | None:
    found = [record["metrics"].get(key, record.get(key)) for record in row.done]
    found = [value for value in found if value is not None]
    return statistics.fmean(found) if found else None


def _accuracy(row: Row, metric: Metric) -> float | None:
    return _mean_of(row, f"accuracy_{metric.extractor}")


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f} %"


def _count(value: float | None) -> str:
    return NOTHING if value is None else number(round(value))


def _hardware(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record["machine"].get(key) for key in ("cpu", "cores", "gpu"))


def _machine_in_words(machine: Mapping[str, Any]) -> str:
    gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
    cores = "1 core" if machine["cores"] == 1 else f"{machine['cores']} cores"
    bf16 = ""
    if slowdown := machine.get("bf16_slowdown"):  # not in older records
        bf16 = ", fast in bfloat16" if slowdown < 1 else ", slow in bfloat16"
    return f"{machine['cpu']}, {cores}{bf16}{gpu}, torch {machine['torch']}"


def _one_line(text: str) -> str:
    text = " ".join(text.split()).replace("|", "/").replace("<!--", "")
    return text if len(text) <= 200 else text[:199] + "…"
