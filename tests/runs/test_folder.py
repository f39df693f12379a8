"""Run folders: ids, locks, who may go on in one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.runs.folder import RunFolder, process_seconds, run_id
from lit_aigc.train.run import train

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_JOB_ID": "12"}, "slurm-12"),
        ({"SLURM_JOB_ID": "13", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}, "slurm-12_3"),
        ({"WANDB_RUN_ID": "abc"}, "abc"),
        ({"SLURM_JOB_ID": "12", "WANDB_RUN_ID": "abc"}, "slurm-12"),
        ({"SLURM_JOB_ID": "12", "WANDB_RUN_ID": "abc", "WANDB_SWEEP_ID": "s1"}, "abc"),  # one job, many trials
        ({"TORCHELASTIC_RUN_ID": "night"}, "torchelastic-night"),
    ],
)
def test_the_id_is_that_of_the_job(monkeypatch, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run_id() == (expected, True)


def test_without_a_job_the_id_is_the_time():
    first, lasting = run_id()
    assert re.fullmatch(r"\d{8}-\d{6}-\d{3}", first)
    assert not lasting


def test_torchrun_without_an_id_is_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(InputError, match="--rdzv-id"):
        run_id()


def test_a_claimed_folder_is_refused_until_it_is_released(tmp_path):
    one, other = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    one.claim()
    with pytest.raises(InputError, match="in use"):
        other.claim()
    one.release()
    other.claim()
    other.release()


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = (
        "import os, signal, sys; from lit_aigc.runs.folder import RunFolder; folder = RunFolder(sys.argv[1]);"
        "folder.claim(); print('claimed', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as holder:
        assert holder.stdout.readline() == "claimed\n"
        with pytest.raises(InputError, match="in use by another process"):
            RunFolder(tmp_path / "run").claim()
        holder.kill()
        holder.wait()
    folder = RunFolder(tmp_path / "run")
    folder.claim()
    folder.release()


def test_an_abandoned_claim_leaves_nothing_of_its_own(tmp_path):
    folder = RunFolder(tmp_path / "a" / "b")
    folder.claim()
    folder.write_summary({"status": "running"})
    (folder.path / "checkpoints").mkdir()
    (folder.path / "checkpoints" / "x").write_text("x")
    folder.abandon()
    assert list(tmp_path.iterdir()) == []


def test_an_abandoned_claim_leaves_what_was_there(tmp_path):
    (tmp_path / "run" / "deep").mkdir(parents=True)
    (tmp_path / "run" / "deep" / "notes.txt").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("mine")
    folder = RunFolder(tmp_path / "run")
    folder.claim()
    (folder.path / "link").symlink_to(tmp_path / "elsewhere")
    folder.abandon()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["deep"]
    assert (tmp_path / "run" / "deep" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "elsewhere" / "file").read_text() == "mine"


def test_abandoning_what_was_not_claimed_does_nothing(tmp_path):
    (tmp_path / "file").write_text("mine")
    RunFolder(tmp_path).abandon()
    assert (tmp_path / "file").exists()


def test_the_summary_goes_there_and_back(tmp_path):
    folder = RunFolder(tmp_path / "run", "id-1")
    assert folder.read_summary() == {}
    assert not folder.exists()
    folder.claim()
    folder.write_summary({"run_id": "id-1", "fid": 1.5})
    folder.release()
    assert RunFolder(tmp_path / "run").identity == "id-1"
    assert RunFolder(tmp_path / "run", "other").read_summary() == {"run_id": "id-1", "fid": 1.5}


def test_the_identity_is_given_or_the_name_of_the_folder(tmp_path):
    assert RunFolder(tmp_path / "run", "id").identity == "id"
    assert RunFolder(tmp_path / "run").identity == "run"


def test_a_damaged_summary(tmp_path):
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(InputError, match=r"summary.json is damaged"):
        RunFolder(tmp_path)


def test_the_process_has_a_start():
    first = process_seconds()
    assert 0 < first <= process_seconds() < 24 * 3600


# -- training in folders


def summary(folder):
    return json.loads((Path(folder) / "summary.json").read_text())


def test_runs_of_one_experiment_lie_beside_each_other(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (train(load("train", tiny)).folder.path for _ in range(2))
    assert first != second
    assert first.parent == second.parent == Path("runs/dcgan_mnist5k")
    assert summary(first)["run_id"] == first.name


def test_the_same_job_goes_on_in_its_folder(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    paused = train(load("train", [*tiny, "pause_after.batches=2"]))
    assert (paused.exit_code, paused.summary["status"], paused.summary["batches"]) == (75, "paused", 2)
    assert paused.folder.path == Path("runs/dcgan_mnist5k/slurm-12")
    assert not (paused.folder.path / "bundle").exists()
    done = train(load("train", tiny))  # as the cluster starts it again: the same command
    assert done.folder.path == paused.folder.path
    assert (done.exit_code, done.summary["status"], done.summary["batches"]) == (0, "done", 4)
    assert done.summary["run_id"] == "slurm-12"
    assert [path.name for path in Path("runs/dcgan_mnist5k").iterdir()] == ["slurm-12"]


def test_the_same_job_goes_on_in_a_folder_that_it_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    arguments = [*tiny, f"run_dir={tmp_path / 'run'}"]
    assert train(load("train", [*arguments, "pause_after.batches=2"])).exit_code == 75
    monkeypatch.setenv("WANDB_RUN_ID", "xyz")
    with pytest.raises(InputError, match="holds another run"):
        train(load("train", arguments))
    assert summary(tmp_path / "run")["batches"] == 2
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    assert train(load("train", arguments)).summary["batches"] == 4


def test_a_run_that_was_done_can_be_resumed_and_is_done(tiny_run, tmp_path):
    import shutil

    run = shutil.copytree(tiny_run, tmp_path / "run")
    before = (run / "bundle" / "model.safetensors").read_bytes()
    again = train(load("train", [f"resume={run}"]))
    assert (again.exit_code, again.summary["batches"]) == (0, 4)
    assert (run / "bundle" / "model.safetensors").read_bytes() == before


def test_nothing_of_a_run_stays_in_the_environment(tiny, tmp_path):
    before = dict(os.environ)
    train(load("train", [*tiny, f"run_dir={tmp_path / 'run'}"]))
    assert dict(os.environ) == before
