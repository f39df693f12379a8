"""The trials of a search: several trainings at a time, watched, pruned, resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import Popen
from typing import Any

from lit_aigc.compare.records import finite
from lit_aigc.machine.cores import core_count, driver_gpus
from lit_aigc.machine.exit_codes import DONE, PAUSED
from lit_aigc.machine.lock import is_held
from lit_aigc.machine.signals import StopSignals
from lit_aigc.runs.folder import RunFolder
from lit_aigc.runs.processes import environment_of_another_run, reason, start_or_resume, start_training
from lit_aigc.sweep.plan import Plan
from lit_aigc.sweep.search import Search
from lit_aigc.sweep.trials import Trial, best_trial, short

POLL_SECONDS = 0.5
_FAILURES_TO_STOP = 3  # with nothing else: what is wrong then is the same for all


Start = Callable[[Sequence[str], Path, Mapping[str, str]], Popen[bytes]]
"""Starts a training, as `lit_aigc.runs.processes.start_training` does."""
Slot = tuple[Trial, Popen[bytes] | None]
"""A trial that runs, and its process; None: a process that another search has started."""


class Trials:
    """Runs the trials of a search until there are as many as planned, the target is reached, or a stop is asked for.

    Args:
        plan: What is searched; its folder is claimed.
        search: Knows what is on record.
        start: Starts a training.
        stop: Says whether to end.
        wait: Lets time pass.
        say: Reports progress.
        idle: Cores that other programs leave to the trainings; all if None.
    """

    def __init__(
        self,
        plan: Plan,
        search: Search,
        start: Start = start_training,
        stop: StopSignals | None = None,
        wait: Callable[[], None] = lambda: time.sleep(POLL_SECONDS),
        say: Callable[[str], None] = lambda text: print(text, flush=True),
        idle: int | None = None,
    ) -> None:
        self._plan, self._sweep, self._folder, self._search = plan, plan.sweep, plan.folder, search
        self._count = plan.count(search)
        self._start, self._stop, self._wait, self._say = start, stop or StopSignals(), wait, say
        self._slots: list[Slot | None] = [None] * plan.parallel
        self._unfinished = [trial for trial in self._folder.trials if trial.status == "running"]
        self._asked_to_end = False
        self._cores = core_count()
        self._idle = self._cores if idle is None else idle

    def run(self) -> bool:
        """Run; return whether every trial asked for is there, and none is left to resume."""
        try:
            while self._step():
                self._wait()
        except BaseException:
            self._end_all()
            raise
        return not any(trial.status == "running" for trial in self._folder.trials) and self._stop.received is None

    def _step(self) -> bool:
        """Check on each trial, and start others; return whether any runs."""
        for place, slot in enumerate(self._slots):
            if slot:
                self._slots[place] = self._check(place, *slot)
        if self._stop.received:
            self._end_all()
        self._fill()
        return any(self._slots)

    def _fill(self) -> None:
        """Start trials in the free places: first those that were interrupted, then new ones."""
        for place, slot in enumerate(self._slots):
            if slot or self._stop.received:
                continue
            trial = self._unfinished.pop(0) if self._unfinished else self._new()
            if trial:
                self._slots[place] = self._begin(place, trial)

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

    def _begin(self, place: int, trial: Trial) -> Slot | None:
        """Start or resume a trial; return None if it turns out to be done."""
        run_dir = self._folder.run_dir(trial)
        if is_held(run_dir):  # by a training that outlived the search that started it
            return trial, None
        arguments = start_or_resume(run_dir, [*self._plan.trial_arguments(trial.values), f"run_dir={run_dir}"])
        if arguments is None:
            self._finish(trial, DONE)
            return None
        self._report(trial, "resumes" if RunFolder(run_dir).exists() else "starts")
        self._folder.log(trial).parent.mkdir(parents=True, exist_ok=True)
        return trial, self._start(arguments, self._folder.log(trial), self._environment(place))

    def _check(self, place: int, trial: Trial, process: Popen[bytes] | None) -> Slot | None:
        """Take in what a trial has done; return its slot while it runs, None when it has ended."""
        code = process.poll() if process else None
        self._read_curve(trial, process)
        if process is None:
            return (trial, None) if is_held(self._folder.run_dir(trial)) else self._begin(place, trial)
        if code is None:
            return trial, process
        ended_by_us = self._asked_to_end and code != DONE
        if trial.status == "running" and (ended_by_us or code == PAUSED):
            self._folder.save()
            self._report(trial, "paused")
        else:
            self._finish(trial, code)
        return None

    def _read_curve(self, trial: Trial, process: Popen[bytes] | None) -> None:
        """Take in new values of the metric, and prune the trial if they are among the worse ones."""
        from lit_aigc.loggers.csv import read_metrics

        path = self._folder.run_dir(trial) / "metrics.csv"
        if not path.exists():
            return
        seen, values = len(trial.curve), read_metrics(path).get(self._sweep.metric, ([], []))[1]
        for step in range(seen + 1, len(values) + 1):
            trial.curve.append(values[step - 1])
            is_bad = self._search.report(trial.number, step, values[step - 1])
            if is_bad and trial.status == "running" and process and not self._is_over(trial):
                trial.status, trial.value = "pruned", finite(values[step - 1])
                self._folder.save()  # before the signal: a pruned trial isn't resumed
                process.terminate()
        if len(trial.curve) > seen:
            self._folder.save()

    def _is_over(self, trial: Trial) -> bool:
        return len(trial.curve) >= self._plan.validations or self._summary(trial).get("status") == "done"

    def _finish(self, trial: Trial, code: int) -> None:
        """Record how a trial ended."""
        self._read_curve(trial, None)
        summary = self._summary(trial)
        trial.samples_seen, trial.train_seconds = summary.get("samples_seen"), summary.get("train_seconds")
        if trial.status == "pruned":
            trial.value = finite(trial.curve[-1])
        else:
            measured = summary.get(self._sweep.metric, (trial.curve or [None])[-1])
            trial.value = finite(measured) if code == DONE else None
            trial.status = "failed" if trial.value is None else "done"
            trial.error = None if trial.value is not None else self._reason(trial, code, summary)
        self._search.finish(trial)
        self._folder.save()
        value = "no number" if trial.value is None else f"{trial.value:.6g}"
        self._report(trial, trial.error or f"{self._sweep.metric} {value}, {trial.status}")

    def _reason(self, trial: Trial, code: int, summary: Mapping[str, Any]) -> str:
        if code == DONE:
            measured = ", ".join(key for key, value in summary.items() if isinstance(value, float)) or "nothing"
            return f"{self._sweep.metric} was not measured, or is no finite number; measured: {measured}"
        if code > 0 and summary.get("status") == "failed" and summary.get("error"):
            return str(summary["error"])
        log = self._folder.log(trial)
        return reason(code, log.read_text(errors="replace").splitlines() if log.exists() else [])

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

    def _report(self, trial: Trial, what: str) -> None:
        settings = ", ".join(f"{name}={short(value)}" for name, value in trial.values.items())
        self._say(f"[{trial.number + 1}/{max(self._count, len(self._folder.trials))}] {settings}: {what}")

    def _environment(self, place: int) -> dict[str, str]:
        """Return a training's environment: its share of cores and GPUs, where several run at a time."""
        environment, parallel = environment_of_another_run(), len(self._slots)
        return environment | shares(place, parallel, environment, self._idle, self._cores, gpu_names(environment))


def shares(
    place: int, parallel: int, environment: Mapping[str, str], idle: int, cores: int, gpus: Sequence[str]
) -> dict[str, str]:
    """Return the variables to set for the training at one of `parallel` places; the user's own of threads stay.

    `idle` of the `cores` are shared: a thread that waits for a busy core keeps the others waiting.
    """
    found = {}
    if "OMP_NUM_THREADS" not in environment and (parallel > 1 or idle < cores):
        found["OMP_NUM_THREADS"] = str(max(1, idle // parallel))
    if parallel > 1 and len(gpus) > 1:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[place::parallel] or [gpus[place % len(gpus)]])
    return found


def too_busy(parallel: int, idle: int, cores: int) -> str:
    """Return a warning if a machine has fewer idle cores than trainings at a time; empty if there are enough."""
    if parallel <= idle:
        return ""
    return (
        f"{idle} of {cores} cores are idle, and parallel={parallel}: the trainings slow each other down. "
        "End other programs, or lower parallel."
    )


def gpu_names(environment: Mapping[str, str]) -> list[str]:
    """Return the NVIDIA GPUs that may be used, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [name for name in environment["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return [str(i) for i in range(driver_gpus() or 0)]


def too_many_failures(trials: Sequence[Trial]) -> bool:
    """Return whether several trials failed and none succeeded, so that more would fail too."""
    failed = sum(trial.status == "failed" for trial in trials)
    return failed >= _FAILURES_TO_STOP and not any(trial.status in ("done", "pruned") for trial in trials)
