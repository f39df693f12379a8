"""The trials of a search: so many trainings at a time, watched, given up, gone on with."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from lit_aigc.config.compose import DONE, PAUSED, RANK_CONFIG
from lit_aigc.machine.cores import core_count
from lit_aigc.machine.signals import STOP
from lit_aigc.runs.folder import RunFolder
from lit_aigc.sweep.search import Search
from lit_aigc.sweep.sweep_file import Sweep
from lit_aigc.sweep.trials import SweepFolder, Trial, in_use

POLL_SECONDS = 0.5
_FAILURES_TO_STOP = 3  # with nothing else: what is wrong then is the same for all
_NOT_INHERITED = (RANK_CONFIG, "WANDB_RUN_ID", "WANDB_SWEEP_ID")  # a trial is a run of its own


class Process(Protocol):
    """A training that runs, as `subprocess.Popen` is one."""

    def poll(self) -> int | None:
        """The exit code, None while it runs."""

    def terminate(self) -> None:
        """Ask for a checkpoint and an end."""


Start = Callable[[Sequence[str], Path, Mapping[str, str]], Process]
"""Starts ``python -m lit_aigc.train`` with arguments, a file for what it prints, and an environment."""


def start_training(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> Process:
    """A `Start`. The process has a session of its own: a terminal's Ctrl-C reaches it by way of us only."""
    command = [sys.executable, "-m", "lit_aigc.train", *arguments]
    with log.open("a") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )


class StopRequest:
    """Whether Ctrl-C, SIGTERM or SIGUSR1 has come; a context manager."""

    def __init__(self) -> None:
        self.received = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._note) for number in STOP}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True


class Trials:
    """Runs the trials of a search until there are `count`, the target is reached, or a stop is asked for.

    Args:
        sweep: What is searched; its metric is set.
        folder: Where it is recorded, claimed.
        search: Knows what is on record.
        arguments: Overrides and config folders for all trials, before and after those of the sweep.
        count: Trials in all, those on record included.
        parallel: Trials at a time.
        validations: Of a whole training; what has had so many is not given up any more.
        start: Starts a training.
        stop: Tells whether to end.
        wait: Lets time pass.
        say: Tells how far the search is.
        idle: Cores that other programs leave to the trainings; all if None.
    """

    def __init__(
        self,
        sweep: Sweep,
        folder: SweepFolder,
        search: Search,
        arguments: Callable[[Mapping[str, Any]], list[str]],
        count: int,
        parallel: int,
        validations: int,
        start: Start = start_training,
        stop: StopRequest | None = None,
        wait: Callable[[], None] = lambda: time.sleep(POLL_SECONDS),
        say: Callable[[str], None] = lambda text: print(text, flush=True),
        idle: int | None = None,
    ) -> None:
        self._sweep, self._folder, self._search = sweep, folder, search
        self._arguments, self._count, self._validations = arguments, count, validations
        self._start, self._stop, self._wait, self._say = start, stop or StopRequest(), wait, say
        self._slots: list[tuple[Trial, Process | None] | None] = [None] * parallel
        self._left = [trial for trial in folder.trials if trial.status == "running"]  # broken off
        self._asked_to_end = False
        self._cores = core_count()
        self._idle = self._cores if idle is None else idle

    def run(self) -> bool:
        """Run; whether all that was asked for is there, and nothing is left to go on with."""
        try:
            while self._step():
                self._wait()
        except BaseException:
            self._end_all()
            raise
        return not any(trial.status == "running" for trial in self._folder.trials) and not self._stop.received

    def _step(self) -> bool:
        """See what has become of each trial, and start others; whether any runs."""
        for place, slot in enumerate(self._slots):
            if slot:
                self._slots[place] = self._look_at(place, *slot)
        if self._stop.received:
            self._end_all()
        self._fill()
        return any(self._slots)

    def _fill(self) -> None:
        """Start trials in the free places: first those that were broken off, then new ones."""
        for place, slot in enumerate(self._slots):
            if slot or self._stop.received:
                continue
            trial = self._left.pop(0) if self._left else self._new()
            if trial:
                self._slots[place] = self._go_on(place, trial)

    def _new(self) -> Trial | None:
        trials = self._folder.trials
        if len(trials) >= self._count or self._is_enough() or too_many_failures(trials):
            return None
        drawn = self._search.propose(len(trials))
        trials.append(Trial(len(trials), drawn, self._sweep.values(drawn)))
        self._folder.save()
        return trials[-1]

    def _is_enough(self) -> bool:
        target, best = self._sweep.target, best_trial(self._folder.trials, self._sweep)
        return target is not None and best is not None and not self._sweep.is_better(target, best.value)

    def _go_on(self, place: int, trial: Trial) -> tuple[Trial, Process | None] | None:
        """Start a trial, or go on with it; None if it turns out to be done."""
        run_dir = self._folder.run_dir(trial)
        if in_use(run_dir):  # by a training that outlived the search that started it
            return trial, None
        run = RunFolder(run_dir)
        status = run.read_summary().get("status")
        if status == "done":
            self._finish(trial, DONE)
            return None
        if status == "failed":  # nothing leads on from there
            shutil.rmtree(run_dir)
        arguments = [f"resume={run_dir}"] if run.exists() else [*self._arguments(trial.values), f"run_dir={run_dir}"]
        self._tell(trial, "goes on" if run.exists() else "starts")
        self._folder.log(trial).parent.mkdir(parents=True, exist_ok=True)
        return trial, self._start(arguments, self._folder.log(trial), self._environment(place))

    def _look_at(self, place: int, trial: Trial, process: Process | None) -> tuple[Trial, Process | None] | None:
        """What has become of a trial: its place while it runs, None when it has ended."""
        code = process.poll() if process else None
        self._read_curve(trial, process)
        if process is None:
            return (trial, None) if in_use(self._folder.run_dir(trial)) else self._go_on(place, trial)
        if code is None:
            return trial, process
        ended_by_us = self._asked_to_end and code != DONE
        if trial.status == "running" and (ended_by_us or code == PAUSED):
            self._folder.save()
            self._tell(trial, "paused")
        else:
            self._finish(trial, code)
        return None

    def _read_curve(self, trial: Trial, process: Process | None) -> None:
        """Take in new values of the metric, and give the trial up if they are among the worse ones."""
        from lit_aigc.loggers.csv import read_metrics

        path = self._folder.run_dir(trial) / "metrics.csv"
        if not path.exists():
            return
        seen, values = len(trial.curve), read_metrics(path).get(self._sweep.metric, ([], []))[1]
        for step in range(seen + 1, len(values) + 1):
            trial.curve.append(values[step - 1])
            give_up = self._search.report(trial.number, step, values[step - 1])
            if give_up and trial.status == "running" and process and not self._is_over(trial):
                trial.status, trial.value = "pruned", _finite(values[step - 1])
                self._folder.save()  # before the signal: what is given up isn't gone on with
                process.terminate()
        if len(trial.curve) > seen:
            self._folder.save()

    def _is_over(self, trial: Trial) -> bool:
        return len(trial.curve) >= self._validations or self._summary(trial).get("status") == "done"

    def _finish(self, trial: Trial, code: int) -> None:
        """Record how a trial ended."""
        self._read_curve(trial, None)
        summary = self._summary(trial)
        trial.samples_seen, trial.train_seconds = summary.get("samples_seen"), summary.get("train_seconds")
        if trial.status == "pruned":
            trial.value = _finite(trial.curve[-1])
        else:
            measured = summary.get(self._sweep.metric, (trial.curve or [None])[-1])
            trial.value = _finite(measured) if code == DONE else None
            trial.status = "failed" if trial.value is None else "done"
            trial.error = None if trial.value is not None else self._reason(trial, code, summary)
        self._search.finish(trial)
        self._folder.save()
        value = "no number" if trial.value is None else f"{trial.value:.6g}"
        self._tell(trial, trial.error or f"{self._sweep.metric} {value}, {trial.status}")

    def _reason(self, trial: Trial, code: int, summary: Mapping[str, Any]) -> str:
        if code == DONE:
            measured = ", ".join(key for key, value in summary.items() if isinstance(value, float)) or "nothing"
            return f"{self._sweep.metric} was not measured, or is no finite number; measured: {measured}"
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        if summary.get("status") == "failed" and summary.get("error"):
            return str(summary["error"])
        log = self._folder.log(trial)
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()] if log.exists() else []
        words = next((line for line in reversed(lines) if line), f"exit code {code}")
        return words.removeprefix("lit_aigc.train: ")

    def _summary(self, trial: Trial) -> dict[str, Any]:
        return RunFolder(self._folder.run_dir(trial)).read_summary()

    def _end_all(self) -> None:
        if not self._asked_to_end:
            self._say("Ending: each training writes a checkpoint first.")
            for trial, process in filter(None, self._slots):
                if process and trial.status == "running":
                    process.terminate()
        self._asked_to_end = True
        self._slots = [slot if slot and slot[1] else None for slot in self._slots]

    def _tell(self, trial: Trial, what: str) -> None:
        settings = ", ".join(f"{name}={short(value)}" for name, value in trial.values.items())
        self._say(f"[{trial.number + 1}/{max(self._count, len(self._folder.trials))}] {settings}: {what}")

    def _environment(self, place: int) -> dict[str, str]:
        """A training's environment: its share of cores and GPUs, where several run at a time."""
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        gpus = gpu_names(environment)
        return environment | shares(place, len(self._slots), environment, self._idle, self._cores, gpus)


def _finite(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def shares(
    place: int, parallel: int, environment: Mapping[str, str], idle: int, cores: int, gpus: Sequence[str]
) -> dict[str, str]:
    """What to set for the training at one of `parallel` places; what the user has set of threads stays.

    `idle` of the `cores` are shared: a thread that waits for a busy core keeps the others waiting.
    """
    found = {}
    if "OMP_NUM_THREADS" not in environment and (parallel > 1 or idle < cores):
        found["OMP_NUM_THREADS"] = str(max(1, idle // parallel))
    if parallel > 1 and len(gpus) > 1:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[place::parallel] or [gpus[place % len(gpus)]])
    return found


def too_busy(parallel: int, idle: int, cores: int) -> str:
    """A line for a machine with fewer idle cores than trainings at a time; empty if there are enough."""
    if parallel <= idle:
        return ""
    return (
        f"{idle} of {cores} cores are idle, and parallel={parallel}: the trainings slow each other down. "
        "End other programs, or lower parallel."
    )


def gpu_names(environment: Mapping[str, str]) -> list[str]:
    """The NVIDIA GPUs that may be used, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [name for name in environment["CUDA_VISIBLE_DEVICES"].split(",") if name]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(i) for i in range(len(list(folder.iterdir())))] if folder.is_dir() else []


def best_trial(trials: Sequence[Trial], sweep: Sweep) -> Trial | None:
    """The best of those that are done; the earlier of equals."""
    best: Trial | None = None
    for trial in trials:
        if trial.status == "done" and (best is None or sweep.is_better(trial.value, best.value)):
            best = trial
    return best


def too_many_failures(trials: Sequence[Trial]) -> bool:
    """Whether several trials failed and none succeeded, so that more would fail too."""
    failed = sum(trial.status == "failed" for trial in trials)
    return failed >= _FAILURES_TO_STOP and not any(trial.status in ("done", "pruned") for trial in trials)


def short(value: Any) -> str:
    """A setting for people: four significant digits of a float."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
