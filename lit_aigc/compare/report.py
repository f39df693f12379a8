"""The result of a comparison: a table, for the terminal and in Markdown, with its protocol and command."""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_aigc.build import did_you_mean
from lit_aigc.compare.picture import draw_comparison
from lit_aigc.compare.plan import Comparison
from lit_aigc.compare.words import NOTHING, budget_in_words, mean_and_spread, significant
from lit_aigc.errors import InputError
from lit_aigc.files import write_atomically
from lit_aigc.media.console import number, print_in_full, table
from lit_aigc.metrics.measurement import Measurement, read_key
from lit_aigc.metrics.table import sample_figures

_LEFT = ("experiment", "commit")  # columns of text
_SAME_PROTOCOL = ("n_real", "n_fake", "extractor_hash", "reference", "floor")


@dataclasses.dataclass(frozen=True)
class Metric:
    """A key of ``summary.json`` such as ``fid_mnist_classifier``, and which direction is better.

    Attributes:
        key: The key.
        mode: ``min`` or ``max``.
    """

    key: str
    mode: str

    @property
    def measured(self) -> Measurement:
        """The figure and the extractor that the key names."""
        return read_key(self.key)

    @property
    def extractor(self) -> str:
        """The extractor whose features it is computed on; empty if there is none."""
        return self.measured.extractor if self.measured.metric in sample_figures() else ""

    @property
    def label(self) -> str:
        """The metric's name for people."""
        return self.measured.figure.label if self.extractor else self.key

    def floor(self, record: Mapping[str, Any]) -> float | None:
        """Return what real images reach, if that is on record."""
        return record["metrics"].get(self.measured.real_key())

    def excess(self, value: float, floor: float | None) -> float | None:
        """Return how much worse it is than real images; an unknown floor counts as 0 where lower is better."""
        if self.mode == "min":
            return value - (floor or 0.0)
        return None if floor is None else floor - value


@dataclasses.dataclass(frozen=True)
class Row:
    """An experiment's line in the table.

    Attributes:
        experiment: Its name.
        done: Records of the runs that have a value of the metric, by seed.
        failed: Records of the other runs.
        values: The metric of each run that is done.
        floor: What real images reach, or None.
        excess: The mean distance from the floor, or None.
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
        records: As `lit_aigc.compare.running.run_list` returns them.
        comparison: What was compared.
        metric: The key to compare; None: the monitor of the experiments.
        baseline: The experiment that the others are relative to, or None.

    Attributes:
        metric: What is compared.
        rows: One per experiment, the best first.

    Raises:
        InputError: If the metric is missing, or the records weren't measured alike.
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
        """Return a row's mean excess as a share of the baseline's."""
        base = next((other.excess for other in self.rows if other.experiment == self.baseline), None)
        return row.excess / base if row.excess is not None and base else None

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the heads of the columns, and the cells of each row as text."""
        metric, low = self.metric, self.metric.mode == "min"
        accuracy = Measurement("accuracy", metric.extractor).key() if metric.extractor else ""
        accuracy = "" if accuracy == metric.key else accuracy
        columns = {
            "experiment": lambda row: row.experiment + (" (baseline)" if row.experiment == self.baseline else ""),
            f"{metric.label} {'↓' if low else '↑'}": lambda row: mean_and_spread(row.values),
            "floor" if low else "real images": lambda row: significant(row.floor),
            "above floor" if low else "below real": lambda row: significant(row.excess),
            "÷ baseline": lambda row: significant(self.ratio(row)),
            "accuracy": lambda row: _mean_of(row, accuracy, lambda share: f"{100 * share:.1f} %"),
            "images/s": lambda row: _mean_of(row, "samples_per_second"),
            "samples seen": lambda row: _mean_of(row, "samples_seen"),
            "seeds": lambda row: f"{len(row.done)}" + (f", {len(row.failed)} failed" if row.failed else ""),
            "commit": lambda row: ", ".join(dict.fromkeys(r["commit"] for r in row.done + row.failed)),
        }
        filled = {head: [cell(row) for row in self.rows] for head, cell in columns.items()}
        shown = {head: cells for head, cells in filled.items() if set(cells) != {NOTHING}}
        return list(shown), [list(cells) for cells in zip(*shown.values(), strict=True)]

    def protocol(self) -> str:
        """Return how the numbers were obtained, in a few sentences."""
        done = [record for row in self.rows for record in row.done]
        facts = done[0]["protocol"].get(self.metric.extractor, {}) if done else {}
        overrides = f" with {', '.join(self.comparison.overrides)}" if self.comparison.overrides else ""
        parts = [f"Each run: {budget_in_words(self.comparison.budget)}{overrides}."]
        if facts:
            weights = "the averaged weights" if facts.get("weights") == "averaged" else "the model as it is"
            real = f" against {facts['n_real']:,} real images" if facts.get("n_real") else ""
            reference = facts.get("reference")
            split = f" ({reference['split']})" if real and isinstance(reference, dict) and "split" in reference else ""
            parts.append(
                f"{self.metric.label} on `{self.metric.extractor}` features of {facts['n_fake']:,} samples of {weights}"
                f"{real}{split}."
            )
            if facts.get("floor"):
                parts.append(f"Floor: {facts['floor']}.")
        machines = dict.fromkeys(_machine_in_words(record["machine"]) for record in done)
        if any(len(row.values) > 1 for row in self.rows):
            hardware = [{tuple(map(r["machine"].get, ("cpu", "cores", "gpu"))) for r in row.done} for row in self.rows]
            mixed = any(len(kinds) > 1 for kinds in hardware)
            over = "seeds, which ran on different machines" if mixed else "seeds"
            parts.append(f"± is the standard deviation over {over}.")
        dates = sorted(record["date"][:10] for record in done)
        when = f", {dates[0]}" + (f" to {dates[-1]}" if dates[-1] != dates[0] else "") if dates else ""
        if machines:
            parts.append(f"{'; '.join(machines)}{when}.")
        return " ".join(parts)

    def failures(self) -> list[str]:
        """Return a line for each run that failed."""
        return [
            f"{row.experiment}, seed {record['seed']}, failed: {_one_line(record.get('error') or 'no value measured')}"
            for row in self.rows
            for record in row.failed
        ]

    def show(self) -> None:
        """Print the table."""
        console = print_in_full(table(*self.table(), left=_LEFT))
        for line in [*self.failures(), self.protocol()]:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    def markdown(self, command: str, picture: str | None) -> str:
        """Return picture, table, protocol and the command that made them.

        Args:
            command: The command as typed.
            picture: Path of the picture relative to the file of this text, or None.
        """
        heads, cells = self.table()
        sides = [":--" if head in _LEFT else "--:" for head in heads]
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
        """Write table and picture: into the targets between their markers, or, without targets, next to the records.

        Args:
            name: Name of table and picture.
            targets: Markdown files with the markers, see `check_targets`.
            images: Folder of the picture for targets.
            command: The command that made the table.
        """
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
    """Return the lines that a table goes between."""
    return f"<!-- compare:{name} begin -->", f"<!-- compare:{name} end -->"


def check_targets(targets: Sequence[str], name: str) -> None:
    """Check that there is a place for the table, before anything trains.

    Raises:
        InputError: If a file is missing or does not have each marker once, in order.
    """
    begin, end = markers(name)
    for target in targets:
        try:
            text = Path(target).read_text()
        except OSError as error:
            raise InputError(f"write: {target} can't be read ({error.strerror}): expected a Markdown file.") from error
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
            raise InputError(f"write: {target} needs these two lines, once, where the table goes:\n{begin}\n{end}")


def between_markers(text: str, name: str, content: str) -> str:
    """Return the text with everything between the markers replaced."""
    begin, end = markers(name)
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"


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
    figure = read_key(key).figure
    higher = figure.better == "higher" if figure else "accuracy" in key
    return Metric(key, dict(monitors).get(key) or ("max" if higher else "min"))


def _check_protocols(records: Sequence[Mapping[str, Any]], metric: Metric) -> None:
    measured = [record for record in records if metric.extractor in record["protocol"]]
    for record in measured[1:]:
        expected, found = (each["protocol"][metric.extractor] for each in (measured[0], record))
        if different := [key for key in _SAME_PROTOCOL if found.get(key) != expected.get(key)]:
            values = "; ".join(f"{key} {expected.get(key)} and {found.get(key)}" for key in different)
            runs = (f"{each['experiment']} (seed {each['seed']}, {each['commit']})" for each in (measured[0], record))
            raise InputError(
                f"{' and '.join(runs)} were not measured alike ({values}): their numbers can't share a table."
            )


def _mean_of(row: Row, key: str, text: Callable[[float], str] = lambda value: number(round(value))) -> str:
    found = [record["metrics"].get(key, record.get(key)) for record in row.done]
    found = [value for value in found if value is not None]
    return text(statistics.fmean(found)) if found else NOTHING


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
