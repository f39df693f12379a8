"""The precision of training: what the machine does fast, kept over resumes, and what full precision means."""

import json
import os
import subprocess
import sys
import types

import pytest
import torch
import yaml
from torch import nn

from lit_aigc.callbacks.agreement import OnePrecision
from lit_aigc.config.compose import load
from lit_aigc.machine import precision
from lit_aigc.machine.precision import FULL, MIXED, choose_precision, full_precision, tensor_float32
from lit_aigc.train.run import train

LINEAR = nn.Linear(2, 2)
PROBE = precision.bf16_slowdown  # before `even_machine` replaces it


@pytest.fixture
def bf16_takes(monkeypatch):
    """``bf16_takes(12.0)``: the machine is so many times slower in bfloat16."""
    return lambda factor: monkeypatch.setattr(precision, "bf16_slowdown", lambda: factor)


def lines(caplog):
    return [record.message for record in caplog.records if record.name == precision.__name__]


@pytest.mark.parametrize(
    ("factor", "asked", "kept", "chosen", "words"),
    [
        (0.7, "auto", None, MIXED, ""),
        (12.0, "auto", None, FULL, ""),
        (12.0, "32-true", None, FULL, ""),
        (12.0, "bf16-mixed", None, MIXED, "bf16-mixed takes 12.0 times as long on this machine as 32-true"),
        (0.5, "32-true", None, FULL, "trainer.precision=32-true takes 2.0 times as long on this machine as bf16-mixed"),
        (0.7, "auto", FULL, FULL, ""),  # 1.4 times as slow: worth the same bits
        (0.7, "auto", MIXED, MIXED, ""),
        (12.0, "auto", MIXED, FULL, "trained in bf16-mixed so far and resumes in 32-true"),
        (0.7, "auto", "16-mixed", MIXED, "trained in 16-mixed so far and resumes in bf16-mixed"),
        (1.0, "32", FULL, FULL, ""),
        (0.9, "bf16-mixed", FULL, MIXED, "trained in 32-true so far and resumes in bf16-mixed"),
    ],
)  # fmt: skip
def test_a_choice_is_honored_and_auto_is_what_is_fast(bf16_takes, caplog, factor, asked, kept, chosen, words):
    bf16_takes(factor)
    assert choose_precision(asked, "cpu", LINEAR, kept) == chosen
    assert len(lines(caplog)) == bool(words) and words in "".join(lines(caplog))


def test_gpus_decide_by_what_they_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for capability, expected in (((9, 0), MIXED), ((8, 0), MIXED), ((7, 5), FULL)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda capability=capability: capability)
        assert choose_precision("auto", "cuda", LINEAR) == expected
    assert choose_precision("auto", "mps", LINEAR) == FULL
    assert choose_precision("auto", "mps", LINEAR, kept=MIXED) == FULL
    assert choose_precision("auto", "cuda", LINEAR, kept=MIXED) == FULL  # of a newer GPU
    assert choose_precision("auto", "cuda", LINEAR, kept="16-mixed") == "16-mixed"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_precision("auto", "cuda", LINEAR) == FULL  # the Trainer says that there is none


def test_a_network_that_cannot_run_in_bfloat16_is_trained_in_float32(bf16_takes, monkeypatch, caplog):
    bf16_takes(0.7)
    monkeypatch.setattr(precision, "_runs_in_bf16", lambda kind: kind is not nn.LSTM)
    assert choose_precision("bf16-mixed", "cpu", nn.Sequential(nn.GRU(2, 2), nn.LSTM(2, 2))) == FULL
    assert lines(caplog) == ["This CPU can't run LSTM in bfloat16, so training uses 32-true."]
    assert choose_precision("auto", "cpu", nn.GRU(2, 2)) == MIXED


def test_the_probe_measures_once_and_leaves_the_random_state(monkeypatch):
    monkeypatch.setattr(precision, "bf16_slowdown", PROBE)
    PROBE.cache_clear()
    state = torch.get_rng_state()
    with torch.no_grad():
        assert precision.bf16_slowdown() > 0
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setattr(precision, "_slowdown", None)
    assert precision.bf16_slowdown() > 0


def test_the_config_keeps_auto_and_a_resumed_run_its_precision(bf16_takes, tiny, tmp_path, caplog):
    auto = [argument for argument in tiny if not argument.startswith("trainer.precision")]
    folder = tmp_path / "run"

    def summary():
        return json.loads((folder / "summary.json").read_text())

    bf16_takes(0.7)
    train(load("train", [*auto, f"run_dir={folder}", "pause_after.batches=2"]))
    assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["precision"] == "auto"
    assert summary()["resolved_precision"] == MIXED
    bf16_takes(1.3)
    train(load("train", [f"resume={folder}", "pause_after.batches=1"]))
    assert summary()["resolved_precision"] == MIXED
    bf16_takes(12.0)
    train(load("train", [f"resume={folder}"]))
    assert summary()["resolved_precision"] == FULL and "not bit-identical" in caplog.text
    assert json.loads((folder / "bundle/manifest.json").read_text())["resolved_precision"] == FULL
    asked = load("train", [f"resume={folder}", "trainer.precision=bf16-mixed"])
    assert asked["trainer"]["precision"] == MIXED


@pytest.mark.parametrize(("first", "own"), [(FULL, MIXED), (MIXED, FULL), (FULL, FULL)])
def test_the_first_process_decides_for_all(first, own):
    plugin = types.SimpleNamespace(precision=own)
    strategy = types.SimpleNamespace(
        precision_plugin=plugin, broadcast=lambda _: first, root_device=torch.device("cpu")
    )
    OnePrecision().setup(types.SimpleNamespace(world_size=2, strategy=strategy), None, "fit")
    assert strategy.precision_plugin.precision == first
    assert (strategy.precision_plugin is plugin) == (first == own)


def test_full_precision_means_no_autocast_and_no_tf32(monkeypatch):
    def state():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = state()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with tensor_float32(True):
        assert state() == ("high", True)
        with torch.autocast("cpu", torch.bfloat16), full_precision(torch.device("cpu")):
            assert state() == ("highest", False)
            assert not torch.is_autocast_enabled("cpu")
        assert state() == ("high", True)
    assert state() == before


def test_an_older_cpu_trains_in_float32(tmp_path):
    """The default experiment, on libraries that are held to AVX2."""
    older = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}
    small = ["budget.samples=null", "budget.batches=1", "validations=0", "monitor=null", f"run_dir={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "lit_aigc.train", *small, "callbacks=null"]
    subprocess.run(command, env=older, check=True, capture_output=True)
    assert json.loads((tmp_path / "run/summary.json").read_text())["resolved_precision"] == FULL
