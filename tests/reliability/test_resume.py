"""An interrupted run ends where it would have ended, bit for bit: every family, within a batch, on processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lit_aigc.config.compose import load
from lit_aigc.train.run import train
from tests.reliability.runs import FAULT, MODELS, READS_TEXT, arguments, assert_same_run, checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("family", MODELS)
def test_a_signal_within_an_accumulated_batch_and_other_workers_change_nothing(family, tmp_path):
    """The first pass over the data ends within the seventh batch, the signal comes between two parts of the third."""
    common = [*arguments(family, tmp_path), "model.recipe.accumulate=2"]
    assert train(load("train", [*common, f"run_dir={tmp_path}/whole"])).exit_code == 0
    config = load("train", [*common, f"run_dir={tmp_path}/parts"])
    kind = "sigterm" if family in READS_TEXT else "sigusr1"
    config["callbacks"] = {"fault": {"_target_": FAULT, "kind": kind, "once": f"{tmp_path}/once"}}
    first = train(config)
    assert (first.exit_code, first.module.batches) == (75, 3)
    workers = [] if family in READS_TEXT else ["data.workers=2"]  # texts are read from memory-mapped files
    for pause in (["pause_after.batches=2"], []):
        second = train(load("train", [f"resume={tmp_path}/parts", "trust=[tests]", *workers, *pause]))
    assert (second.exit_code, second.module.batches) == (0, 8)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", ["gan", *(pytest.param(name, marks=pytest.mark.long) for name in ("vqvae", "vae_gan", "gpt", "lstm"))]
)
def test_two_processes_go_on_bit_for_bit(family, tmp_path):
    common = [*arguments(family, tmp_path), "trainer.devices=2", "model.recipe.accumulate=2", "budget.batches=6"]

    def run(*more: str) -> int:
        words = [sys.executable, "-m", "lit_aigc.train", *more]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.run(words, env=environment, cwd=tmp_path, timeout=600, check=False).returncode

    assert run(*common, f"run_dir={tmp_path}/whole") == 0
    assert run(*common, f"run_dir={tmp_path}/parts", "pause_after.batches=4") == 75
    assert checkpoint(tmp_path / "parts")["lit_aigc"]["counters"]["batches"] == 4
    assert run(f"resume={tmp_path}/parts") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
