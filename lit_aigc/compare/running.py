"""The list of runs: one training process after another, what is there already skipped, what was begun gone on with."""

from __future__ import annotations

import collections
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from lit_aigc.compare.plan import Comparison
from lit_aigc.compare.records import code_version, describe_run, read_record
from lit_aigc.config.compose import DONE, PAUSED
from lit_aigc.files import write_atomically
from lit_aigc.machine.signals import STOP
from lit_aigc.runs.folder import RunFolder

RUNS = Path("runs") / "compare"


class Train(Protocol):
    """Trains: called with the arguments of ``python -m lit_aigc.train``, gives its exit code and its last words.

    Attributes:
        stopped: Whether a signal has asked for an end.
    """

    stopped: bool

    def __call__(self, arguments: Sequence[str]) -> tuple[int, str]:
        """Train to the end, or to a pause."""


class TrainingProcesses:
    """A `Train` that starts a process for each training, and passes on a signal, upon which the training pauses.

    A context manager: within it Ctrl-C, SIGTERM and SIGUSR1 stop the list and leave no traceback.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._process: subprocess.Popen[str] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> TrainingProcesses:
        self._before = {number: signal.signal(number, self._stop) for number in STOP}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self, arguments: Sequence[str]) -> tuple[int, str]:
        """Train; what the process prints is shown, and its last line on stderr returned beside the exit code."""
        command = [sys.executable, "-m", "lit_aigc.train", *arguments]
        last: collections.deque[str] = collections.deque(maxlen=1)
        # What the process inherits: a terminal's Ctrl-C, which reaches it too, does nothing until it can pause.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        signal.signal(signal.SIGINT, before)
        if self.stopped:  # the signal came while the process was being started
            self._process.terminate()
        assert self._process.stderr is not None
        for line in self._process.stderr:
            sys.stderr.write(line)
            last.extend([line.strip()] if line.strip() else [])
        exit_code = self._process.wait()
        self._process = None
        killed = f"ended by {signal.Signals(-exit_code).name}" if exit_code < 0 else ""
        return exit_code, killed or "".join(last).removeprefix("lit_aigc.train: ")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        # A terminal sends Ctrl-C to the training as well; one SIGTERM more does it no harm.
        if not self.stopped and self._process:
            self._process.terminate()
        self.stopped = True


def _say(text: str) -> None:
    print(text, flush=True)  # before what the training prints


def run_list(
    comparison: Comparison, train: Train, retry: bool = False, say: Callable[[str], None] = _say
) -> tuple[list[dict[str, Any]], bool]:
    """Train what has no record yet, one run after another, first the first seed of all experiments.

    A run that fails is recorded and the list goes on; one that was paused goes on at the next call.

    Args:
        comparison: What is compared.
        train: Trains.
        retry: Whether to train again what failed.
        say: Tells how far the list is.

    Returns:
        The records, one for each experiment and seed, and whether the list was stopped before its end.
    """
    pairs = [(experiment, seed) for seed in comparison.seeds or () for experiment in comparison.experiments]
    records = []
    for place, (experiment, seed) in enumerate(pairs, 1):
        code = code_version(comparison.folders)  # it may change while the list runs
        identity = comparison.identity(experiment, seed, code)
        path = comparison.out / f"{identity}.json"
        record = read_record(path) if path.exists() else None
        there = record is not None and not _to_do(record, retry)
        say(f"[{place}/{len(pairs)}] {experiment}, seed {seed}: {f'is there, {path}' if there else 'training'}")
        if not there:
            record = None if train.stopped else _run(comparison, experiment, seed, code, train)
            if record is None:
                return records, True
            write_atomically(path, json.dumps(record, indent=1) + "\n")
            if record["status"] == "failed":
                say(f"{experiment}, seed {seed}, failed: {record['error']}")
        records.append(record)
    return records, False


def _to_do(record: Mapping[str, Any], retry: bool) -> bool:
    """Whether a run is to be done again.

    A training that broke down is a result; one that could not start, or was killed from outside, isn't.
    """
    return record["status"] == "failed" and (retry or record["samples_seen"] is None)


def _run(comparison: Comparison, experiment: str, seed: int, code: str, train: Train) -> dict[str, Any] | None:
    """Train, or go on with what was begun, and return the record; None if the run was paused."""
    identity = comparison.identity(experiment, seed, code)
    folder = RunFolder(RUNS / identity)
    if folder.exists() and folder.read_summary().get("status") == "failed":
        shutil.rmtree(folder.path)  # nothing leads on from there
    exit_code, last_words = DONE, ""
    if not folder.exists() or folder.read_summary().get("status") != "done":
        new = comparison.train_arguments(experiment, seed, folder.path)
        arguments = [f"resume={folder.path}"] if folder.exists() else new
        exit_code, last_words = train([*comparison.folder_options(), *arguments])
    if exit_code == PAUSED or (train.stopped and exit_code != DONE):
        return None
    summary = folder.read_summary()
    if exit_code != DONE and summary.get("status") != "failed":  # it never started, or was killed
        summary = {}
    return {
        "experiment": experiment,
        "seed": seed,
        "commit": code,
        "budget": comparison.budget,
        "overrides": list(comparison.overrides),
        "status": "done" if exit_code == DONE else "failed",
        **({} if exit_code == DONE else {"error": summary.get("error") or last_words or f"exit code {exit_code}"}),
        "exit_code": exit_code,
        **describe_run(folder.path, summary, comparison.out, identity),
    }
