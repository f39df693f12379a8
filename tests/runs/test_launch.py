"""Who started the processes of a run, as the environment tells it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.runs.launch import DataParallel, Launch, cluster_environment, launch, with_processes
from lit_aigc.train.run import train

TORCHRUN = {"TORCHELASTIC_RUN_ID": "night", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}
JOB = {"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "16", "SLURM_PROCID": "0"}
STEP = {"ID": "1", "NUM_TASKS": "16", "NUM_NODES": "2", "NODELIST": "gpu[07-08]"}
SRUN = JOB | {f"SLURM_STEP_{name}": value for name, value in STEP.items()}


@pytest.fixture
def within(monkeypatch):
    """Puts a process where a launcher would."""

    def enter(environment):
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.setenv(name, "")  # so that what is set comes off again
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "5")

    return enter


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (JOB, None),  # a batch script, or a shell of salloc
        (JOB | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}, None),
        (SRUN, Launch("srun", 8, 2)),
        (TORCHRUN, Launch("torchrun", 8, 2)),
        (SRUN | TORCHRUN | {"WORLD_SIZE": "32"}, Launch("torchrun", 8, 4)),
    ],
)
def test_the_launcher_is_found(within, environment, expected):
    within(environment)
    assert launch() == expected


def test_nodes_with_different_numbers_of_processes_are_refused(within):
    within(SRUN | {"SLURM_STEP_NUM_TASKS": "15"})
    with pytest.raises(InputError, match="15 processes, not the same number"):
        launch()


@pytest.mark.parametrize("devices", ["auto", -1, 1, 8, "8", [0, 1, 2, 3, 4, 5, 6, 7]])
def test_the_trainer_gets_the_processes_that_are_there(within, devices):
    within(SRUN)
    given = {"accelerator": "cpu", "devices": devices, "num_nodes": 1}
    asked = with_processes(given)
    assert asked["num_nodes"] == 2
    assert asked["devices"] == (8 if devices in ("auto", -1, 1) else devices)
    assert given["num_nodes"] == 1


@pytest.mark.parametrize("node", [{"devices": 4}, {"devices": [0, 1]}, {"num_nodes": 3}])
def test_another_number_of_processes_is_refused(within, node):
    within(TORCHRUN)
    with pytest.raises(InputError, match="torchrun started 8 processes on each of 2 nodes"):
        with_processes({"devices": "auto", **node})


def test_several_nodes_need_a_launcher(tiny, tmp_path):
    with pytest.raises(InputError, match="started by torchrun or srun"):
        train(load("train", [*tiny, "trainer.num_nodes=2", f"run_dir={tmp_path}/run"]))
    assert not (tmp_path / "run").exists()


def test_srun_is_told_to_lightning_with_an_address_and_a_port_of_the_step(within):
    within(SRUN)
    told = cluster_environment()
    assert (told.auto_requeue, told.creates_processes_externally, told.world_size()) == (False, True, 16)
    assert (told.main_address, told.main_port) == ("gpu07", 20000 + 12 + 7919)
    told.validate_settings(num_devices=8, num_nodes=2)


def test_in_a_job_without_srun_the_trainer_starts_its_own_processes(within):
    within(JOB)
    assert not cluster_environment().creates_processes_externally


def test_outside_of_slurm_lightning_finds_out(within):
    assert cluster_environment() is None
    within(SRUN | TORCHRUN)
    assert cluster_environment() is None


def test_settings_of_ddp_reach_it_and_are_checked():
    strategy = DataParallel(bucket_mebibytes=8, gradients="bf16", minutes=2)
    assert strategy._ddp_kwargs == {
        "bucket_cap_mb": 8,
        "gradient_as_bucket_view": True,
    }
    assert (strategy._ddp_comm_hook.__name__, strategy._timeout.total_seconds()) == ("bf16_compress_hook", 120)
    assert DataParallel()._ddp_comm_hook is None
    for name, value in {"gradients": "fp8", "bucket_mebibytes": 0, "minutes": -1}.items():
        with pytest.raises(InputError, match=f"{name}={value}: expected"):
            DataParallel(**{name: value})


def test_torchrun_without_an_id_needs_a_named_folder(tiny, tmp_path, monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="--rdzv-id"):
        train(load("train", tiny))
    assert train(load("train", [*tiny, f"run_dir={tmp_path}/run"])).exit_code == 0
    with pytest.raises(InputError, match="holds another run"):
        train(load("train", [*tiny, f"run_dir={tmp_path}/run"]))


def test_another_training_in_the_same_job_is_not_taken_for_the_first(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.chdir(tmp_path)
    train(load("train", [*tiny, "seed=1", "pause_after.batches=2"]))
    with pytest.raises(InputError, match="another run of this job: seed=1 there, 2 here"):
        train(load("train", [*tiny, "seed=2"]))
    assert train(load("train", [*tiny, "seed=1"])).exit_code == 0


def test_a_process_of_the_trainer_ends_after_the_first_has_died(tmp_path):
    child = "import time; from lit_aigc.runs.launch import end_with_the_first_process as end; end(0.1)"
    child += "; print(1, flush=True); time.sleep(99)"
    parent = "import os, subprocess, sys; os.environ['LIT_AIGC_FIRST_PROCESS'] = str(os.getpid())"
    parent += f"; subprocess.run([sys.executable, '-c', {child!r}])"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", parent], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "1\n"
    process.send_signal(signal.SIGKILL)
    assert "first process of this run has died" in process.communicate(timeout=120)[1]
