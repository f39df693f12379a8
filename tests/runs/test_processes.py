"""Trainings as processes: what they are started with, how they are stopped, and why they ended."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

import pytest

from lit_aigc.runs import processes
from lit_aigc.runs.processes import TrainingProcesses, environment_of_another_run, reason, start_or_resume

NEW = ["experiment=x", "run_dir=here"]


def made(run_dir, status=None):
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text("seed: 0\n")
    if status:
        (run_dir / "summary.json").write_text(json.dumps({"status": status}))
    return run_dir


def test_a_new_run_is_started_and_a_begun_one_resumed(tmp_path):
    assert start_or_resume(tmp_path / "new", NEW) == NEW
    for status in (None, "running", "paused"):
        run_dir = made(tmp_path / str(status), status)
        assert start_or_resume(run_dir, NEW) == [f"resume={run_dir}"]
    assert start_or_resume(made(tmp_path / "done", "done"), NEW) is None
    assert (tmp_path / "done").exists()


def test_a_failed_run_is_removed_and_started_anew(tmp_path):
    run_dir = made(tmp_path / "failed", "failed")
    assert start_or_resume(run_dir, NEW) == NEW
    assert not run_dir.exists()


@pytest.mark.parametrize(
    ("exit_code", "lines", "expected"),
    [
        (-9, ["step 1"], "ended by SIGKILL"),
        (2, ["step 1\n", "lit_aigc.train: no data\n", " \n"], "no data"),
        (1, [], "exit code 1"),
    ],
)
def test_the_reason_of_an_end(exit_code, lines, expected):
    assert reason(exit_code, lines) == expected


def test_another_run_has_an_id_of_its_own(monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    monkeypatch.setenv("WANDB_MODE", "offline")
    environment = environment_of_another_run()
    assert "WANDB_RUN_ID" not in environment and environment["WANDB_MODE"] == "offline"


def test_a_process_writes_to_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(processes.sys, "executable", "/bin/echo")
    process = processes.start_training(["seed=1"], tmp_path / "a.log", {})
    assert process.wait() == 0
    assert (tmp_path / "a.log").read_text() == "-m lit_aigc.train seed=1\n"


def test_a_signal_is_passed_on_to_the_training(monkeypatch):
    code = "import time; print('lit_aigc.train: begun', file=__import__('sys').stderr, flush=True); time.sleep(60)"
    monkeypatch.setattr(processes, "_words", lambda verb, arguments: [sys.executable, "-c", code])

    def ask() -> None:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGUSR1)

    with TrainingProcesses() as train:
        asker = threading.Thread(target=ask)
        asker.start()
        exit_code, why = train([])
        asker.join()
        assert (exit_code, why, train.stopped) == (-signal.SIGTERM, "ended by SIGTERM", True)
        started = time.monotonic()
        assert train([])[0] == -signal.SIGTERM  # asked before it began
        assert time.monotonic() - started < 30
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
