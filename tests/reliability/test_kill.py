"""kill -9 at 20 random moments, half of them while a checkpoint is being written: the end is that of a calm run."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from lit_aigc.config.compose import load
from lit_aigc.loggers.csv import read_metrics
from lit_aigc.runs.checkpoint import latest_checkpoint
from lit_aigc.train.run import train
from tests.processes import start_training
from tests.reliability.runs import assert_same_run

KILLS = 20
LARGE = ["model.generator.hidden=[256]", "model.discriminator.hidden=[256]", "budget.batches=1000000", "log_every=5"]


def being_written(folder: Path) -> bool:
    return any(folder.glob(".last.ckpt.*.tmp"))


def batches_saved(run: Path) -> int:
    found = latest_checkpoint(run)
    return found[1]["lit_aigc"]["counters"]["batches"] if found else 0


@pytest.mark.long
@pytest.mark.slow
def test_twenty_kills_lose_nothing_that_was_saved(tiny, tmp_path):
    small = [argument for argument in tiny if not argument.startswith(("budget", "log_every"))]
    common = [*small, "budget.samples=null", *LARGE, "checkpoint_seconds=0"]
    run, chance, within_a_write, saved = tmp_path / "run", random.Random(0), 0, 0
    folder = run / "checkpoints"
    for kill in range(KILLS):
        process = start_training(*([f"resume={run}"] if folder.exists() else [*common, f"run_dir={run}"]))
        newest = (folder / "last.ckpt").stat().st_mtime_ns if (folder / "last.ckpt").exists() else 0
        while process.is_alive():  # until it trains
            try:
                if (folder / "last.ckpt").stat().st_mtime_ns != newest:
                    break
            except FileNotFoundError:
                pass
            process.join(0.005)
        process.join(chance.random() * 0.3)
        while kill % 2 and process.is_alive() and not being_written(folder):
            time.sleep(0)
        assert process.is_alive(), f"it ended by itself with {process.exitcode}"
        process.kill()
        process.join()
        within_a_write += being_written(folder)
        assert process.exitcode == -9
        assert batches_saved(run) > saved
        saved = batches_saved(run)
        assert json.loads((run / "summary.json").read_text())["status"] == "running"
        if (run / "metrics.csv").exists():
            read_metrics(run / "metrics.csv")
    assert within_a_write >= KILLS // 4
    assert train(load("train", [f"resume={run}", "pause_after.batches=1"])).exit_code == 75
    calm = [argument for argument in common if not argument.startswith("checkpoint_seconds")]
    assert train(load("train", [*calm, f"run_dir={tmp_path}/calm", f"pause_after.batches={saved + 1}"])).exit_code == 75
    assert_same_run(tmp_path / "calm", run)
