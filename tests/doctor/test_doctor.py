"""doctor, in faked environments: each thing that can be wrong is found, with its cure; no secret is printed."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest

from lit_aigc.config.compose import compose
from lit_aigc.doctor import __main__ as doctor
from lit_aigc.doctor import contents, findings, machine, outlook, report
from lit_aigc.doctor.machine import Gpu, Machine

PLAIN = Machine("A CPU", 4, 16.0, 12.0, (), None, {"python": "3.11.7", "torch": "2.14.1", "lightning": "2.6.6"})
GPUS = dataclasses.replace(PLAIN, gpus=(Gpu("A GPU", 40.0, True),) * 2, gpus_in_the_machine=2)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("OMP_NUM_THREADS", "WANDB_MODE", "CUDA_VISIBLE_DEVICES", "NETRC", "JPY_PARENT_PID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def examine(monkeypatch, capsys):
    """``examine("seed=1", machine=GPUS)``: exit code and printed text of doctor on a machine."""

    def run(*arguments, machine=PLAIN):
        monkeypatch.setattr(report, "look", lambda: machine)
        monkeypatch.setattr("lit_aigc.doctor.machine.installed", lambda: machine.versions)
        code = doctor.main(["experiment=vae_mnist5k", "trainer.precision=32-true", *arguments])
        return code, capsys.readouterr().out

    return run


def wrong(text):
    return text.partition("What is wrong")[2]


def test_all_is_well(examine):
    code, text = examine()
    assert code == 0
    assert "Nothing is wrong." in text
    for told in ("A CPU, 4 cores", "16.0 GiB", "none that torch can use", "32-true is fastest", "vae_mnist5k"):
        assert told in text
    assert "runs/vae_mnist5k/" in text and "a new one at each start" in text


def test_what_training_would_do_with_two_gpus(examine):
    code, text = examine("trainer=gpu", machine=GPUS)
    assert code == 0
    for told in ("A GPU, 40 GiB, bfloat16; A GPU", "bf16-mixed is fastest", "DDP"):
        assert told in text
    ahead = outlook.look_ahead(compose("train", ["trainer=gpu"]), GPUS)
    assert (ahead.accelerator, ahead.processes, ahead.launcher) == ("gpu", 2, "the Trainer")
    ahead = outlook.look_ahead(compose("train", []), GPUS)
    assert (ahead.accelerator, ahead.processes, ahead.strategy) == ("gpu", 1, "one device")
    ahead = outlook.look_ahead(compose("train", ["trainer.devices=[1]"]), GPUS)
    assert (ahead.processes, ahead.strategy) == (1, "one device")


SRUN = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "night", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("variables", "launcher", "folder"),
    [(SRUN, "srun", "slurm-7"), (TORCHRUN, "torchrun", "torchelastic-night")],
)
def test_processes_that_were_started_from_outside(monkeypatch, variables, launcher, folder, examine):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ahead = outlook.look_ahead(compose("train", ["experiment=vae_mnist5k"]), PLAIN)
    assert (ahead.launcher, ahead.per_node, ahead.nodes, ahead.processes) == (launcher, 2, 2, 4)
    assert (ahead.run_dir, ahead.lasting) == (Path("runs/vae_mnist5k") / folder, True)
    code, text = examine("data.batch_size=64")
    assert code == 0 and "Nothing is wrong." in text and "2 on each of 2 nodes" in text


@pytest.mark.parametrize(
    ("variables", "arguments", "stops", "what", "cure"),
    [
        ({"OMP_NUM_THREADS": "1"}, [], False, "one of 4 cores", "unset OMP_NUM_THREADS"),
        ({"SLURM_JOB_ID": "7"}, [], False, "runs/vae_mnist5k/slurm-7", "run_dir=PATH"),
        ({"SLURM_JOB_ID": "7", "JPY_PARENT_PID": "1"}, [], False, "A notebook in the SLURM job 7", "run_dir=PATH"),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, ["run_dir=x"], False, "has 4 tasks", "srun python"),
        ({"TORCHELASTIC_RUN_ID": "none"}, [], True, "torchrun gave this run no id", "--rdzv-id=NAME"),
        (TORCHRUN, ["trainer.devices=3"], True, "torchrun starts 2 processes on each node", "Leave trainer.devices"),
        ({}, ["trainer.num_nodes=2"], True, "nobody starts the processes on the other nodes", "srun or torchrun"),
        ({}, ["trainer.devices=3"], True, "data: ", "Fix the data's settings"),
        ({}, ["trainer.accelerator=gpu"], True, "asks for 1 GPUs on each node; torch sees 0", "accelerator=cpu"),
        ({}, ["trainer.precision=16-mixed"], True, "half precision needs a GPU", "trainer.precision=32-true"),
        ({}, ["logger=wandb"], True, "there is no login", "wandb login"),
        ({"WANDB_SWEEP_ID": "abc"}, [], True, "there is no login", "logger.wandb.mode=offline"),
        ({}, ["data=mnist"], False, "files are missing under data, such as data/MNIST/raw", "Set LIT_AIGC_DATA"),
        ({}, ["experiment=gpt_tinyshakespeare"], True, "LIT_AIGC_DATA is not set", "Set LIT_AIGC_DATA"),
        ({"LIT_AIGC_DATA": "/no/such"}, ["data=image_folder"], True, "data: ", "Fix the data's settings"),
        ({}, ["sed=1"], True, "unknown key 'sed'", "--help"),
    ],
)
def test_what_is_wrong_is_found_with_its_cure(monkeypatch, examine, variables, arguments, stops, what, cure):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, text = examine(*arguments)
    assert what in wrong(text) and cure in wrong(text)
    assert wrong(text).count("\n    cure") == 1
    assert code == (2 if stops else 0)
    assert ("STOPS" in wrong(text)) == stops


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        ({"OMP_NUM_THREADS": "1"}, ["trainer.devices=2", "trainer.accelerator=cpu"]),
        ({"SLURM_JOB_ID": "7"}, ["run_dir=mine"]),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "1"}, []),
        ({"WANDB_MODE": "offline"}, ["logger=wandb"]),
        ({}, ["logger=wandb", "logger.wandb.mode=disabled"]),
        ({"WANDB_API_KEY": "0" * 40}, ["logger=wandb"]),
    ],
)
def test_what_is_right_is_not_complained_of(monkeypatch, examine, variables, arguments):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, text = examine(*arguments)
    assert code == 0 and "Nothing is wrong." in text


@pytest.mark.parametrize(
    ("idle", "threads", "arguments", "cure"),
    [
        (2, None, [], "export OMP_NUM_THREADS=2."),
        (0, None, [], "export OMP_NUM_THREADS=1."),
        (3, None, ["trainer.devices=2", "trainer.accelerator=cpu"], "export OMP_NUM_THREADS=1."),
        (2, "3", [], "export OMP_NUM_THREADS=2."),
        (2, "2", [], None),
        (0, "1", [], None),
        (4, None, [], None),
    ],
)
def test_a_busy_machine(monkeypatch, examine, idle, threads, arguments, cure):
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    code, text = examine(*arguments, machine=dataclasses.replace(PLAIN, idle=idle))
    assert code == 0 and f"4 cores, {idle} idle" in text
    if cure:
        assert f"The machine is busy: other programs use {4 - idle} of 4 cores." in " ".join(text.split())
        assert cure in " ".join(text.split())
    else:
        assert "Nothing is wrong." in text


def test_a_login_in_netrc_is_found_and_none_of_it_is_printed(monkeypatch, examine, tmp_path):
    (tmp_path / "home" / ".netrc").write_text("machine api.wandb.ai login user password very-secret\n")
    (tmp_path / "home" / ".netrc").chmod(0o600)
    code, text = examine("logger=wandb")
    assert code == 0 and "very-secret" not in text
    monkeypatch.setenv("WANDB_BASE_URL", "https://me:hidden@wandb.example.org")
    code, text = examine("logger=wandb")
    assert code == 2 and "hidden" not in text


def test_no_secret_is_printed(monkeypatch, examine):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN", "WANDB_HTTP_PROXY", "SLURM_JWT", "LIT_AIGC_TOKEN"):
        monkeypatch.setenv(name, "very-secret")
    monkeypatch.setenv("WANDB_MODE", "offline")
    _, text = examine("logger=wandb")
    assert "very-secret" not in text
    assert "WANDB_API_KEY" in text and "WANDB_MODE" in text and "offline" in text


def test_folders_that_cannot_be_written(examine, tmp_path):
    (tmp_path / "runs").write_text("a file in the way")
    code, text = examine()
    assert code == 2 and "can't be made" in wrong(text) and "run_dir=PATH" in wrong(text)
    (tmp_path / "runs").unlink()
    (tmp_path / "cache").write_text("a file in the way")
    code, text = examine()
    assert code == 0 and "XDG_CACHE_HOME" in wrong(text)


@pytest.mark.parametrize(("free", "code"), [(50.0, 0), (1.0, 0), (0.05, 2)])
def test_a_disk_that_is_full(monkeypatch, examine, free, code):
    monkeypatch.setattr(findings.shutil, "disk_usage", lambda _: type("", (), {"free": free * machine.GIB})())
    found, text = examine()
    assert found == code
    assert ("Free some space" in text) == (free < 2)


@pytest.mark.parametrize("version", findings.MALWARE)
def test_malware_is_told_before_it_is_imported(monkeypatch, examine, version):
    monkeypatch.setattr(report, "examine", lambda *_: pytest.fail("lightning was imported"))
    code, text = examine(machine=dataclasses.replace(PLAIN, versions={"lightning": version}))
    assert code == 2
    assert f"lightning {version} is malware" in text and "change the keys" in text


def test_a_package_that_is_too_old(monkeypatch, examine):
    monkeypatch.setattr(
        "lit_aigc.doctor.machine.importlib.metadata.requires", lambda _: ["torch>=2.9", "optuna>=4; extra == 'sweep'"]
    )
    code, text = examine(machine=dataclasses.replace(PLAIN, versions={"torch": "2.1.0+cu118"}))
    assert code == 2
    assert "torch 2.1.0+cu118 is installed, >=2.9 is needed" in text and "pip install 'torch>=2.9'" in text


def test_a_gpu_that_torch_does_not_see(monkeypatch, examine):
    unseen = dataclasses.replace(PLAIN, gpus_in_the_machine=2)
    assert "Install a build of torch" in examine(machine=unseen)[1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "Unset CUDA_VISIBLE_DEVICES" in examine(machine=unseen)[1]


def test_a_gpu_that_only_emulates_bfloat16(examine):
    old = dataclasses.replace(GPUS, gpus=(Gpu("An old GPU", 8.0, False),))
    _, text = examine("trainer.precision=bf16-mixed", machine=old)
    assert "32-true is fastest" in text and "An old GPU only emulates bfloat16" in text


def test_a_precision_that_is_slow_on_the_cpu_is_a_fault(examine):
    _, text = examine("trainer.precision=bf16-mixed")
    assert "trainer.precision=bf16-mixed takes 12.0 times as long here as 32-true." in wrong(text)
    _, text = examine("trainer.precision=auto")
    assert "Nothing is wrong." in text and re.search(r"precision +32-true$", text, re.MULTILINE)
    _, text = examine("trainer.precision=32-true", machine=dataclasses.replace(PLAIN, bf16_slowdown=0.4))
    assert "trainer.precision=32-true takes 2.5 times" in wrong(text)


def test_missing_extras(monkeypatch, examine):
    there = importlib.util.find_spec
    gone = ("tensorboard", "torch_fidelity")
    monkeypatch.setattr(
        contents.importlib.util, "find_spec", lambda name, *a: None if name in gone else there(name, *a)
    )
    monkeypatch.setattr(report, "extras", lambda: {"features": ("torch-fidelity",), "emoji": ()})
    code, text = examine("logger=tensorboard", "callbacks.generative_metrics.extractor=inception")
    assert code == 2
    assert "pip install 'lit-aigc[tensorboard]'" in wrong(text) and "pip install 'lit-aigc[features]'" in wrong(text)
    assert "[features]" in text and "[emoji]" not in text


def test_data_that_is_there(monkeypatch, examine, tmp_path):
    (tmp_path / "sets" / "tinyshakespeare").mkdir(parents=True)
    (tmp_path / "sets" / "tinyshakespeare" / "input.txt").write_text("To be, or not to be.\n" * 50)
    monkeypatch.setenv("LIT_AIGC_DATA", str(tmp_path / "sets"))
    code, text = examine("experiment=gpt_tinyshakespeare")
    assert code == 0 and f"{tmp_path / 'sets'}: tinyshakespeare" in text


def test_the_machine_is_looked_at():
    found = machine.look()
    assert found.cpu and found.cores >= 1 and found.memory_gib > 0.1
    assert found.versions["torch"] and found.versions["lightning"]
    assert found.precision in ("bf16-mixed", "32-true") and found.bf16_slowdown > 0
    assert machine.extras() == {} or "features" in machine.extras()


def test_a_system_that_does_not_tell_its_memory(monkeypatch, examine):
    monkeypatch.delattr(machine.os, "sysconf")  # Windows
    text = examine(machine=dataclasses.replace(PLAIN, memory_gib=machine.look().memory_gib))[1]
    assert re.search(r"memory +not known", text)
