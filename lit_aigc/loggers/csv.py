"""The numbers of a run as a CSV file: written by a logger during training, read for curves and comparisons.

Writing needs no database and survives a kill at any moment; reading returns the same floats, bit for bit.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from lit_aigc.files import write_atomically
from lit_aigc.loggers.base import RunLogger, number

STEP = "samples_seen"


def read_metrics(path: str | Path) -> dict[str, tuple[list[int], list[float]]]:
    """Read a ``metrics.csv``: the steps that have a value, and the values, per metric in the file's order.

    Raises:
        OSError: If the file is missing or can't be read.
    """
    columns, rows = _read(Path(path))
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for column in columns[1:]:
        present = [(int(row[STEP]), float(row[column])) for row in rows if row[column]]
        curves[column] = ([step for step, _ in present], [value for _, value in present])
    return curves


class CsvLogger(RunLogger):
    """Writes the numbers of a run to ``metrics.csv``: one row per step, flushed as it is written.

    The first column is samples_seen, the others follow in the order in which they appeared; a new one extends the
    header, and a metric without a value at a step is empty there. Floats are written so that reading them returns the
    same bits.

    The file has a bound: when it reaches `most_rows`, every second row of those that hold training figures alone is
    dropped; everything that a validation wrote stays.

    Args:
        run_dir: The run folder. A ``metrics.csv`` in it is continued.
        most_rows: About as many rows as the file may have, 10 MB or so.
    """

    name = "csv"

    def __init__(self, run_dir: str, most_rows: int = 50_000) -> None:
        super().__init__()
        self.most_rows = most_rows
        self._rows = 0
        self.save_dir, self.path = run_dir, Path(run_dir) / "metrics.csv"
        self._columns: list[str] = []
        self._last: dict[str, str] = {}  # the row at the end of the file
        self._last_offset = 0  # where it begins
        self._opened = False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write a row, or add to the last row when the step is still the same.

        Args:
            metrics: Numbers or one-element tensors; Lightning's ``epoch`` is dropped, as a stream of batches has none.
            step: The value of samples_seen.
        """
        self._open()
        values = {key: _exact(value) for key, value in metrics.items() if key not in ("epoch", STEP)}
        if not values:
            return
        row = {STEP: str(int(step or 0)), **values}
        same_step = self._last.get(STEP) == row[STEP]
        if same_step:
            row = {**self._last, **row}
        added = [key for key in row if key not in self._columns]
        if added:
            rows = _read(self.path)[1]
            self._write_all([*self._columns, *added], [*(rows[:-1] if same_step else rows), row])
            return
        if not same_step and self._rows >= self.most_rows:
            self._write_all(self._columns, _every_second(_read(self.path)[1]))
        with self.path.open("r+b") as file:
            self._last_offset = self._last_offset if same_step else file.seek(0, os.SEEK_END)
            file.seek(self._last_offset)
            file.write(self._format([row]))
            file.truncate()
        self._last = row
        self._rows += not same_step

    @rank_zero_only
    def truncate(self, samples_seen: int) -> None:
        """Cut back to a checkpoint: drop the rows of later steps, and the columns that only they had."""
        if not self.path.exists():
            return
        self._opened = True
        columns, rows = _read(self.path)
        rows = [row for row in rows if int(row[STEP]) <= samples_seen]
        used = [column for column in columns if column == STEP or any(row[column] for row in rows)]
        self._write_all(used, rows)

    def _open(self) -> None:
        if self._opened:
            return
        self._opened = True
        # Rewriting drops the torn last line that a killed run may have left.
        self._write_all(*(_read(self.path) if self.path.exists() else ([STEP], [])))

    def _format(self, rows: Sequence[Mapping[str, str]]) -> bytes:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, restval="", lineterminator="\n", extrasaction="ignore").writerows(rows)
        return text.getvalue().encode()

    def _write_all(self, columns: list[str], rows: Sequence[dict[str, str]]) -> None:
        self._columns = columns
        self._rows = len(rows)
        self._last = rows[-1] if rows else {}
        header = self._format([dict(zip(columns, columns, strict=True))])
        before_last = header + self._format(rows[:-1])
        self._last_offset = len(before_last)
        write_atomically(self.path, before_last + self._format(rows[-1:]))


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns, and the rows that were written completely."""
    whole_lines = path.read_bytes().rpartition(b"\n")[0].decode()
    reader = csv.DictReader(io.StringIO(whole_lines, newline=""), restval="")
    columns = list(reader.fieldnames or [STEP])
    return columns, [row for row in reader if (row.get(STEP) or "").isdecimal() and None not in row]


def _every_second(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return half of the rows that have nothing but training figures, and all others."""
    other = [any(value and key != STEP and not key.startswith("train/") for key, value in row.items()) for row in rows]
    return [row for place, (row, stays) in enumerate(zip(rows, other, strict=True)) if stays or place % 2]


def _exact(value: Any) -> str:
    """Return text from which the same value can be read."""
    value = number(value)
    return repr(value) if isinstance(value, float) else str(value)
