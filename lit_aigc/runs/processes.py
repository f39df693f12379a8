"""Trainings as processes of their own: start or resume one, watch it, and say why it ended."""

from __future__ import annotations

import collections
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lit_aigc.machine.signals import StopSignals
from lit_aigc.runs.folder import RunFolder

RANK_CONFIG = "LIT_AIGC_CONFIG"  # where processes that the Trainer starts find the first one's resolved config
_OF_ONE_RUN = (RANK_CONFIG, "WANDB_RUN_ID", "WANDB_SWEEP_ID")  # variables that another run must not inherit


def run_command(verb: str, arguments: Sequence[str]) -> int:
    """Run a verb as a process that shares this one's terminal, and return its exit code."""
    return subprocess.run(_words(verb, arguments), check=False).returncode


def start_or_resume(run_dir: Path, new: Sequence[str]) -> list[str] | None:
    """Return the arguments of ``lit_aigc.train`` that complete the run in a folder; None if it is done.

    The folder of a run that failed is removed first: nothing can resume from there.

    Args:
        run_dir: The run folder, which may be missing.
        new: The arguments that start the run.
    """
    folder = RunFolder(run_dir)
    status = folder.read_summary().get("status")
    if status == "done":
        return None
    if status == "failed":
        shutil.rmtree(run_dir)
    return [f"resume={run_dir}"] if folder.exists() else list(new)


def environment_of_another_run() -> dict[str, str]:
    """Return this process's environment without the variables that belong to the run that it may be part of."""
    return {name: value for name, value in os.environ.items() if name not in _OF_ONE_RUN}


def start_training(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a training in the background, in a session of its own: Ctrl-C in a terminal doesn't reach it.

    Args:
        arguments: As of ``python -m lit_aigc.train``.
        log: File that its output is appended to.
        environment: Its environment variables; see `environment_of_another_run`.
    """
    with log.open("a") as file:
        return subprocess.Popen(
            _words("train", arguments),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )


class TrainingProcesses(StopSignals):
    """Trains in the foreground, one process per call, and passes on the first stop signal, upon which training pauses.

    A context manager: within it Ctrl-C, SIGTERM and SIGUSR1 leave no traceback.
    """

    def __init__(self) -> None:
        super().__init__(self._pass_on, patient=True)
        self._process: subprocess.Popen[str] | None = None

    @property
    def stopped(self) -> bool:
        """Whether a signal has asked for an end."""
        return self.received is not None

    def __call__(self, arguments: Sequence[str]) -> tuple[int, str]:
        """Train, showing what the process prints; return its exit code and, for a failure, why it ended."""
        # What the process inherits: a terminal's Ctrl-C, which reaches it too, does nothing until it can pause.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._process = subprocess.Popen(
            _words("train", arguments), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        signal.signal(signal.SIGINT, before)
        if self.stopped:  # the signal came while the process was being started
            self._process.terminate()
        assert self._process.stderr is not None
        last: collections.deque[str] = collections.deque(maxlen=1)
        for line in self._process.stderr:
            sys.stderr.write(line)
            last.extend([line] if line.strip() else [])
        exit_code = self._process.wait()
        self._process = None
        return exit_code, reason(exit_code, last)

    def _pass_on(self) -> None:
        # A terminal sends Ctrl-C to the training as well; one SIGTERM more does it no harm.
        if self._process:
            self._process.terminate()


def reason(exit_code: int, lines: Iterable[str]) -> str:
    """Say why a training ended, by its exit code (negative: a signal's number) and the lines that it printed."""
    if exit_code < 0:
        return f"ended by {signal.Signals(-exit_code).name}"
    words = [line.strip() for line in lines if line.strip()]
    return words[-1].removeprefix("lit_aigc.train: ") if words else f"exit code {exit_code}"


def _words(verb: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", f"lit_aigc.{verb}", *arguments]
