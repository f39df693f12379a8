"""The record of a search: one file, rewritten after each change, from which the search resumes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_aigc.errors import InputError
from lit_aigc.files import write_atomically
from lit_aigc.runs.folder import HeldFolder
from lit_aigc.sweep.sweep_file import Sweep


@dataclasses.dataclass
class Trial:
    """A trial.

    Attributes:
        number: Number of the trial, from 0 on.
        drawn: What the search drew for each parameter.
        values: The settings that the draws mean.
        status: ``running`` (also when interrupted), ``done``, ``pruned`` or ``failed``.
        value: The metric at the end; the last value of a pruned trial.
        curve: The metric at each validation that measured it.
        error: Why it failed.
        samples_seen: How many samples it was trained on.
        train_seconds: How long it trained.
    """

    number: int
    drawn: dict[str, Any]
    values: dict[str, Any]
    status: str = "running"
    value: float | None = None
    curve: list[float] = dataclasses.field(default_factory=list)
    error: str | None = None
    samples_seen: int | None = None
    train_seconds: float | None = None


class SweepFolder(HeldFolder):
    """The folder of a search: ``trials.json``, a run folder per trial, and the report.

    Args:
        path: The folder; made by `claim`.
        asked: The definition of this search, as plain types; a record of another search is refused.

    Attributes:
        record: The file of the record.
        trials: The trials on record, by number.
    """

    kind, option = "The folder of the sweep", "name"

    def __init__(self, path: Path, asked: dict[str, Any]) -> None:
        super().__init__(path)
        self.record = path / "trials.json"
        self.trials: list[Trial] = []
        self._asked = json.loads(json.dumps(asked))

    def run_dir(self, trial: Trial) -> Path:
        """Return the run folder of a trial."""
        return self.path / "trials" / f"{trial.number:04d}"

    def log(self, trial: Trial) -> Path:
        """Return the file of a trial's output."""
        return self.path / "trials" / f"{trial.number:04d}.log"

    def claim(self) -> None:
        """Hold the folder until the process ends, and read the record.

        Raises:
            InputError: If another process holds it, if it can't be written to, or if it records another search.
        """
        super().claim()
        if self.record.exists():
            self.trials = self._read()

    def save(self) -> None:
        """Write the record."""
        content = {**self._asked, "trials": [dataclasses.asdict(trial) for trial in self.trials]}
        write_atomically(self.record, json.dumps(content, indent=1) + "\n")

    def _read(self) -> list[Trial]:
        try:
            content = json.loads(self.record.read_text())
            trials = [Trial(**trial) for trial in content.pop("trials")]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.record} is damaged ({error}): delete {self.path}, or give another name=."
            ) from error
        if different := [key for key in self._asked if self._asked[key] != content.get(key)]:
            raise InputError(
                f"{self.path} holds the trials of another search ({', '.join(different)} differs): give another "
                "name=, or delete that folder."
            )
        return trials


def best_trial(trials: Sequence[Trial], sweep: Sweep) -> Trial | None:
    """Return the best of the trials that are done, the earlier of equals; None if none is."""
    best = min if sweep.goal == "minimize" else max
    return best((trial for trial in trials if trial.status == "done"), key=lambda trial: trial.value, default=None)


def shortened(names: list[str]) -> list[str]:
    """Shorten names to their last part, ``lr`` of ``model.optimizer.lr``; in full where several end alike."""
    last = [name.rpartition(".")[2] for name in names]
    return [end if last.count(end) == 1 else name for name, end in zip(names, last, strict=True)]


def short(value: Any) -> str:
    """Write a setting for people: four significant digits of a float."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
