"""Faults of the machine within a run: what was saved stays, the exit code and the last line tell the truth."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.modules.checkpoint import read_checkpoint
from lit_aigc.train.failures import advice
from lit_aigc.train.run import train
from tests.reliability.runs import FAULT, arguments, assert_same_run, checkpoint

EVERY_BATCH = "checkpoint_seconds=0"


@pytest.fixture
def small(tmp_path, monkeypatch) -> list[str]:
    """Arguments of a small run on images that are read from files, with a checkpoint at each batch."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return [*arguments("gan", tmp_path), EVERY_BATCH]


def fault(kind: str, tmp_path: Path, **options: str) -> str:
    node = {"_target_": FAULT, "kind": kind, "once": f"{tmp_path}/once", **options}
    return "callbacks.fault={" + ", ".join(f"{key}: '{value}'" for key, value in node.items()) + "}"


def summary(run_dir: Path) -> dict:
    return json.loads((run_dir / "summary.json").read_text())


def assert_goes_on(small: list[str], tmp_path: Path, *changes: str) -> None:
    """What was saved is whole, and leads to what a run without the fault leads to."""
    run = tmp_path / "run"
    assert summary(run)["status"] == "failed"
    assert checkpoint(run)["lit_aigc"]["counters"]["batches"] in (2, 3)  # a batch is fetched ahead
    assert not list((run / "checkpoints").glob(".*")) and not (run / "bundle").exists()
    assert train(load("train", [f"resume={run}", "trust=[tests]", *changes])).exit_code == 0
    train(load("train", [*small, f"run_dir={tmp_path}/whole"]))
    assert_same_run(tmp_path / "whole", run)
    assert summary(run)["status"] == "done" and "error" not in summary(run)


@pytest.mark.parametrize("kind", ["too_much_memory", "too_much_memory_in_python"])
def test_out_of_memory_says_which_setting_to_lower(command, small, tmp_path, kind):
    outcome = command("train", *small, fault(kind, tmp_path), f"run_dir={tmp_path}/run")
    assert outcome.code == 1 and "Traceback" not in outcome.err
    last = outcome.err.splitlines()[-1]
    for words in ("Out of memory", "data.batch_size", "model.recipe.accumulate", "trainer.precision", "resume="):
        assert words in last
    assert summary(tmp_path / "run")["error"]
    assert_goes_on(small, tmp_path)


def test_every_kind_of_lost_memory_is_known():
    sentence = advice(MemoryError())
    gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert sentence == advice(gpu) == advice(RuntimeError("CUDA error: out of memory"))
    with pytest.raises(RuntimeError) as real:
        torch.empty(2**60)
    assert advice(real.value) == sentence
    assert advice(RuntimeError("sizes must match")) is None
    assert advice(InputError("out of memory")) is None


def test_a_killed_data_worker_is_told_and_the_run_goes_on(command, small, tmp_path):
    workers = [argument for argument in small if not argument.startswith("data.workers")]
    outcome = command("train", *workers, "data.workers=1", fault("killed_worker", tmp_path), f"run_dir={tmp_path}/run")
    assert outcome.code == 1
    # The only traceback may be of a thread of multiprocessing that was just talking to the process that died.
    assert outcome.err.count("Traceback") <= outcome.err.count("resource_sharer.py")
    last = outcome.err.splitlines()[-1]
    assert "reads data was killed" in last and "data.workers=0" in last and "resume=" in last
    assert_goes_on(small, tmp_path, "data.workers=0")


def test_a_data_file_that_vanishes_is_named_and_the_run_goes_on_when_it_is_back(command, small, tmp_path):
    images = tmp_path / "images"
    outcome = command("train", *small, fault("vanished_files", tmp_path, path=str(images)), f"run_dir={tmp_path}/run")
    assert outcome.code == 2 and "Traceback" not in outcome.err
    assert ".png" in outcome.err and "Errno 2" in outcome.err
    shutil.move(f"{images}.away", images)
    assert_goes_on(small, tmp_path)


@pytest.mark.parametrize("kind", ["sigterm", "sigusr1"])
def test_a_signal_pauses_with_75_and_says_how_to_go_on(command, small, tmp_path, kind):
    outcome = command("train", *small, fault(kind, tmp_path), f"run_dir={tmp_path}/run")
    assert outcome.code == 75
    assert f"resume={tmp_path}/run" in "".join(outcome.out.split())
    assert summary(tmp_path / "run")["status"] == "paused"
    assert checkpoint(tmp_path / "run")["lit_aigc"]["counters"]["batches"] == 3


# -- disks


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of 700 KiB, which only root may mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if not made or made.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


def test_a_disk_that_is_full_keeps_the_checkpoints_before(command, small, tmp_path, disk):
    wide = [*(argument for argument in small if "channels=4" not in argument), "model.generator.channels=6"]
    wide += ["data.channels=1", "model.discriminator.channels=6"]
    outcome = command("train", *wide, f"run_dir={disk}/run")
    assert outcome.code == 2 and "Traceback" not in outcome.err
    assert "can't" in outcome.err and "No space left" in outcome.err and "resume=" in outcome.err
    kept = [path for path in (disk / "run/checkpoints").iterdir() if read_checkpoint(path)]
    assert kept and all(path.suffix == ".ckpt" for path in kept)
    remount(disk, "size=64m")
    assert train(load("train", [f"resume={disk}/run"])).exit_code == 0
    train(load("train", [*wide, f"run_dir={tmp_path}/whole"]))
    assert_same_run(tmp_path / "whole", disk / "run")


def test_a_read_only_disk_is_refused_before_training(command, small, disk):
    assert command("train", *small, f"run_dir={disk}/run", "pause_after.batches=1").code == 75
    before = {path: path.stat().st_mtime_ns for path in disk.rglob("*")}
    remount(disk, "ro")
    for where in (f"resume={disk}/run", f"run_dir={disk}/other"):
        outcome = command("train", *(small if where.startswith("run_dir") else []), where)
        assert outcome.code == 2 and "Traceback" not in outcome.err
        assert "can't be written to" in outcome.err and "Read-only" in outcome.err and "run_dir=" in outcome.err
    assert {path: path.stat().st_mtime_ns for path in disk.rglob("*")} == before


def test_a_run_folder_without_write_permission_is_refused(command, small, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere; the read-only disk is tried instead")
    (tmp_path / "locked").mkdir(mode=0o555)
    outcome = command("train", *small, f"run_dir={tmp_path}/locked/run")
    assert outcome.code == 2 and "can't be written to" in outcome.err


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_changed_byte_is_found_and_the_checkpoint_before_is_taken(small, tmp_path, place):
    run = tmp_path / "run"
    train(load("train", [*small, f"run_dir={run}", "pause_after.batches=4"]))
    last = run / "checkpoints/last.ckpt"
    content = bytearray(last.read_bytes())
    content[int(len(content) * place)] ^= 64
    last.write_bytes(content)
    with pytest.warns(UserWarning, match=r"last.ckpt is damaged.*Resuming from .*previous.ckpt"):
        assert train(load("train", [f"resume={run}"])).exit_code == 0
    train(load("train", [*small, f"run_dir={tmp_path}/whole"]))
    assert_same_run(tmp_path / "whole", run)
