"""Verbs on the command line: help, exit codes, one run per combination of values."""

from __future__ import annotations

import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml

from lit_aigc import __version__
from lit_aigc.config import command as config
from lit_aigc.config.compose import load
from lit_aigc.config.overrides import config_folder
from lit_aigc.runs import processes

ROOT = Path(__file__).parents[2]
VERBS = sorted(file.parent.name for file in (ROOT / "lit_aigc").glob("*/__main__.py"))


# -- help


@pytest.mark.parametrize("verb", ["train", "evaluate", "generate"])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_answers(command, verb, option):
    outcome = command(verb, option)
    assert outcome.code == 0
    assert f"python -m lit_aigc.{verb}" in outcome.out
    for key in yaml.safe_load((config_folder() / f"{verb}.yaml").read_text()):
        assert key in ("defaults", "hydra") or f"  {key}:" in outcome.out


def test_help_lists_every_choice_with_what_it_is(command):
    lines = command("train", "--help").out.splitlines()
    for group in ("experiment", "data", "model"):
        for file in (config_folder() / group).glob("*.yaml"):
            found = [line.split(maxsplit=1) for line in lines if line.split()[:1] == [file.stem]]
            assert found and len(found[0]) == 2, f"{group}/{file.name} has no line in --help"


@pytest.mark.parametrize(("option", "says"), [("--help", "dcgan_mnist5k"), ("--version", f"lit_aigc {__version__}\n")])
def test_help_and_version_need_no_torch(option, says):
    code = (
        f"import sys; sys.modules['torch'] = sys.modules['hydra'] = None; sys.argv = ['train', '{option}'];"
        "import runpy; runpy.run_module('lit_aigc.train', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_its_version_and_takes_an_interruption(monkeypatch, capsys, verb):
    """Also while it imports what it needs, which takes seconds."""

    def start(*arguments: str) -> int | None:
        monkeypatch.setattr(sys, "argv", [verb, *arguments])
        with pytest.raises(SystemExit) as stop, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of runpy: the module may have been imported before
            runpy.run_module(f"lit_aigc.{verb}", run_name="__main__")
        return stop.value.code

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    assert not start("--version")
    assert capsys.readouterr().out == f"lit_aigc {__version__}\n"
    monkeypatch.setattr("lit_aigc.config.compose.compose", interrupt)
    assert start() == 1
    error = capsys.readouterr().err
    assert error.startswith(f"lit_aigc.{verb}: interrupted") and error.count("\n") == 1
    assert ("resume=RUN_DIR" in error) == (verb == "train")


# -- multirun


def test_multirun_starts_a_process_a_job(tmp_path, monkeypatch, capsys):
    started = []

    def run(arguments, **options):
        started.append(arguments[1:])
        return subprocess.CompletedProcess(arguments, 0)

    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes.subprocess, "run", run)
    own_folder = ["--config-dir", str(tmp_path / "mine")]
    monkeypatch.setattr(sys, "argv", ["lit_aigc/train/__main__.py", "-m", "seed=1,2", "init_from=a, b", *own_folder])
    with pytest.raises(SystemExit) as stop:
        config.command("train", lambda _: 1)
    assert not stop.value.code
    assert capsys.readouterr() == ("run 1 of 2: seed=1\nrun 2 of 2: seed=2\n", "")
    assert [arguments[:2] for arguments in started] == [["-m", "lit_aigc.train"]] * 2
    configs = [load("train", arguments[2:]) for arguments in started]
    assert [composed["seed"] for composed in configs] == [1, 2]
    assert {composed["init_from"] for composed in configs} == {"a, b"}
    assert all(f"--config-dir={tmp_path / 'mine'}" in arguments for arguments in started)


def test_a_job_of_a_multirun_that_fails_ends_it_with_its_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes.subprocess, "run", lambda a, **_: subprocess.CompletedProcess(a, 2))
    monkeypatch.setattr(sys, "argv", ["lit_aigc/train/__main__.py", "-m", "seed=1,2"])
    with pytest.raises(SystemExit) as stop:
        config.command("train", lambda _: 1)
    assert stop.value.code == 2


def test_a_multirun_takes_what_a_single_run_takes(tmp_path, monkeypatch):
    started = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        processes.subprocess, "run", lambda a, **_: started.append(a[3:]) or subprocess.CompletedProcess(a, 0)
    )
    monkeypatch.setattr(
        sys,
        "argv",
        ["train.py", "--multirun", "model=dcgan,mlp_gan", "+seed=range(1,3)", "trainer.benchmark=true", "logger=null"],
    )
    with pytest.raises(SystemExit):
        config.command("train", lambda _: 1)
    configs = [load("train", arguments) for arguments in started]
    kinds = [(one["model"]["generator"]["_target_"].split(".")[2], one["seed"]) for one in configs]
    assert kinds == [("dcgan", 1), ("dcgan", 2), ("mlp", 1), ("mlp", 2)]
    assert all(one["trainer"]["benchmark"] is True for one in configs)


def test_a_multirun_over_all_that_a_pattern_finds(tmp_path, monkeypatch, capsys):
    started = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        processes.subprocess, "run", lambda a, **_: started.append(a[3:]) or subprocess.CompletedProcess(a, 0)
    )
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "experiment=glob(vae*_mnist5k)", "init_from=a, b"])
    with pytest.raises(SystemExit) as stop:
        config.command("train", lambda _: 1)
    assert not stop.value.code
    assert [load("train", arguments)["experiment"] for arguments in started] == ["vae_gan_mnist5k", "vae_mnist5k"]
    assert capsys.readouterr().out.splitlines()[0] == "run 1 of 2: experiment=vae_gan_mnist5k"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["experiment=glob(nothing*)"], "experiment=glob(nothing*) has no values"),
        (["model.recipe.ema_decay=interval(0,1)"], "interval(0,1) has no values"),
        (["data=nothing"], "data=nothing is unknown"),
        (["sed=1", "budget.minuts=1,2"], "unknown key 'budget.minuts', did you mean 'minutes'?\nunknown key 'sed'"),
        (["seed=[1"], "seed=[1"),
        (["data=null"], "data= is needed"),
        (["--config-dir=/no/such"], "--config-dir /no/such"),
    ],
)
def test_a_multirun_that_cannot_start_leaves_with_2(tmp_path, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes.subprocess, "run", lambda *_, **__: pytest.fail("a job was started"))
    monkeypatch.setattr(sys, "argv", ["lit_aigc/train/__main__.py", "-m", "seed=1,2", *arguments])
    with pytest.raises(SystemExit) as stop:
        config.command("train", lambda _: 1)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("lit_aigc.train: ") and expected in error
    assert list(tmp_path.iterdir()) == []


def test_several_runs_in_one_folder_are_refused_before_the_first(command, tmp_path):
    outcome = command("train", "-m", "seed=1,2", f"run_dir={tmp_path}/run")
    assert outcome.code == 2 and f"{tmp_path}/run is one folder for 2 runs" in outcome.err
    assert not (tmp_path / "run").exists()
