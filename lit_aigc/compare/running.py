"""The list of runs: one training process after another; finished ones are skipped, unfinished ones resumed."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lit_aigc.compare.plan import Comparison
from lit_aigc.compare.records import code_version, describe_run, read_record
from lit_aigc.config.overrides import folder_options
from lit_aigc.files import write_atomically
from lit_aigc.machine.exit_codes import DONE, PAUSED
from lit_aigc.runs.folder import RunFolder
from lit_aigc.runs.processes import TrainingProcesses, start_or_resume

RUNS = Path("runs") / "compare"
_say = functools.partial(print, flush=True)  # before what the training prints


def run_list(
    comparison: Comparison, train: TrainingProcesses, retry: bool = False, say: Callable[[str], None] = _say
) -> tuple[list[dict[str, Any]], bool]:
    """Train whatever has no record yet, one run after another, starting with the first seed of all experiments.

    A run that fails is recorded and the list continues; one that was paused resumes at the next call.

    Args:
        comparison: What is compared.
        train: Runs the trainings.
        retry: Whether to train again what failed.
        say: Reports progress.

    Returns:
        The records, one per experiment and seed, and whether the list was stopped before its end.
    """
    pairs = [(experiment, seed) for seed in comparison.seeds or () for experiment in comparison.experiments]
    records = []
    for place, (experiment, seed) in enumerate(pairs, 1):
        code = code_version(comparison.folders)  # it may change while the list runs
        identity = comparison.identity(experiment, seed, code)
        path = comparison.out / f"{identity}.json"
        record = read_record(path) if path.exists() else None
        # A training that broke down is a result; one that could not start, or was killed from outside, isn't.
        repeat = record and record["status"] == "failed" and (retry or record["samples_seen"] is None)
        there = record is not None and not repeat
        state = f"is there, {path}" if there else "training"
        say(f"[{place}/{len(pairs)}] {experiment}, seed {seed}: {state}")
        if not there:
            record = None if train.stopped else _run(comparison, experiment, seed, code, train)
            if record is None:
                return records, True
            write_atomically(path, json.dumps(record, indent=1) + "\n")
            if record["status"] == "failed":
                say(f"{experiment}, seed {seed}, failed: {record['error']}")
        records.append(record)
    return records, False


def _run(
    comparison: Comparison, experiment: str, seed: int, code: str, train: TrainingProcesses
) -> dict[str, Any] | None:
    """Train, or resume what was begun, and return the record; None if the run was paused."""
    identity = comparison.identity(experiment, seed, code)
    run_dir = RUNS / identity
    arguments = start_or_resume(run_dir, comparison.train_arguments(experiment, seed, run_dir))
    exit_code, why = DONE, ""
    if arguments is not None:
        exit_code, why = train([*folder_options(comparison.folders), *arguments])
    if exit_code == PAUSED or (train.stopped and exit_code != DONE):
        return None
    summary = RunFolder(run_dir).read_summary()
    if exit_code != DONE and summary.get("status") != "failed":  # it never started, or was killed
        summary = {}
    return {
        "experiment": experiment,
        "seed": seed,
        "commit": code,
        "budget": comparison.budget,
        "overrides": list(comparison.overrides),
        "status": "done" if exit_code == DONE else "failed",
        **({} if exit_code == DONE else {"error": summary.get("error") or why or f"exit code {exit_code}"}),
        "exit_code": exit_code,
        **describe_run(run_dir, summary, comparison.out, identity),
    }
