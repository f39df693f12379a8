"""The verb: real trainings of a fraction of a second, broken off, gone on with, reported."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lit_aigc.config.compose import compose

ROOT = Path(__file__).parents[2]
EXPERIMENT = """# @package _global_
# a VAE so small that it trains in no time
defaults:
  - override /data: mnist5k
  - override /model: vae

model: {network: {encoder: {hidden: [8], latent_dim: 2}}}
data: {batch_size: 8}
trainer: {accelerator: cpu, devices: 1}
budget: {batches: 8}
validations: 2
log_every: 2
monitor: elbo
monitor_mode: max
callbacks:
  progress: null
  sample_grid: null
  reconstructions: null
  generative_metrics: null
  neighbours: null
  curves: null
"""
FILE = {
    "program": "lit_aigc/train/__main__.py",
    "command": ["${env}", "${interpreter}", "-m", "lit_aigc.train", "experiment=tiny", "${args_no_hyphens}"],
    "method": "random",
    "metric": {"name": "elbo", "goal": "maximize"},
    "parameters": {
        "model.optimizer.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
        "seed": {"values": [0, 1, 2]},
    },
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "tiny.yaml").write_text(EXPERIMENT)
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(FILE, sort_keys=False))
    return tmp_path


def test_bad_input_leaves_with_2_and_nothing_behind(here, command):
    outcome = command("sweep", "file=search.yaml", "count=2", "--config-dir=own", "overrides=[budget.batchs=2]")
    assert outcome.code == 2
    assert "did you mean 'batches'?" in outcome.err
    outcome = command("sweep", "count=2")
    assert outcome.code == 2 and "file= is missing" in outcome.err
    assert not (here / "runs").exists()


def test_a_missing_package_is_told_with_its_cure(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    outcome = command("sweep", "file=search.yaml", "count=2", "--config-dir=own")
    assert outcome.code == 2 and "pip install 'lit-aigc[sweep]'" in outcome.err


@pytest.mark.slow
def test_a_search_is_broken_off_and_gone_on_with(here):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "lit_aigc.sweep", "file=search.yaml", "count=3", "--config-dir=own"]
    folder = here / "runs" / "sweeps" / "search"

    started = subprocess.Popen([*words, "overrides=[budget.batches=100000]", "name=long"], env=environment)
    metrics = here / "runs" / "sweeps" / "long" / "trials" / "0000" / "metrics.csv"
    while started.poll() is None and not metrics.exists():
        time.sleep(0.1)
    started.send_signal(signal.SIGTERM)
    assert started.wait() == 75
    summary = json.loads((metrics.parent / "summary.json").read_text())
    assert (summary["status"], (metrics.parent / "checkpoints" / "last.ckpt").exists()) == ("paused", True)
    record = json.loads((here / "runs" / "sweeps" / "long" / "trials.json").read_text())
    assert [trial["status"] for trial in record["trials"]] == ["running"]

    done = subprocess.run([*words, "parallel=2"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert [row["status"] for row in rows] == ["done"] * 3
    for row in rows:
        summary = json.loads((here / row["run_dir"] / "summary.json").read_text())
        assert (float(row["elbo"]), float(row["samples_seen"])) == (summary["elbo"], 64)
        config = yaml.safe_load((here / row["run_dir"] / "config.yaml").read_text())
        assert (str(config["seed"]), str(config["model"]["optimizer"]["lr"])) == (
            row["seed"],
            row["model.optimizer.lr"],
        )
    assert (folder / "search.png").stat().st_size > 10_000

    best = max(rows, key=lambda row: float(row["elbo"]))
    config = compose("train", ["--config-dir=own", f"--config-dir={folder / 'conf'}", "experiment=best"])
    assert str(config["seed"]) == best["seed"] and config["budget"]["batches"] == 8
    again = subprocess.run([*words, "report_only=true"], env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and "experiment=best" in again.stdout
