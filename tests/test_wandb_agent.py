"""The real `wandb sweep` and `wandb agent` run a sweep of ours, against a stand-in of the service on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from lit_aigc.loggers.csv import read_metrics

pytestmark = pytest.mark.slow

SECONDS = 1800  # for everything together, on a busy machine
AWKWARD = {
    "seed": 1,
    "model.recipe.clip_norm": None,
    "model.generator.hidden": [8, 4],
    "model.generator_optimizer.lr": 1e-05,
    "model.discriminator_optimizer": {"betas": [0.1, 0.9], "lr": 1e-4},
    "logger": "wandb",
    "logger.wandb.notes": "wide, deep: it's",
}
TRIALS = {
    "awkward": AWKWARD,
    "diverging": {"model.generator_optimizer.lr": 1e30, "budget.batches": 20},
    "two_processes": {"trainer.devices": 2, "seed": 2},
    "preempted": {"budget.batches": 3000, "log_every": 50},
    "stopped": {"budget.batches": 1_000_000, "validations": 10_000, "log_every": 50},
}
# The programs themselves; their agent asks more often, and says how its processes ended.
WANDB = """
import sys
from wandb import wandb_agent
from wandb.cli.cli import cli

class Process(wandb_agent.AgentProcess):
    def poll(self):
        code = super().poll()
        if code is not None:
            print("exit code", code, flush=True)
        return code

wandb_agent.AgentProcess = Process
wandb_agent.Agent.POLL_INTERVAL = 0.2
cli()
"""


def stand_in():
    spec = importlib.util.spec_from_file_location("wandb_server", Path(__file__).with_name("wandb_server.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for its dataclass
    spec.loader.exec_module(module)
    return module.WandbServer


def environment(folder: Path, url: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "SLURM_"))}
    return ours | {
        "HOME": str(folder),
        "WANDB_DIR": str(folder),
        "WANDB_BASE_URL": url,
        "WANDB_API_KEY": "0" * 40,
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_AGENT_DISABLE_FLAPPING": "true",
        "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
        "SLURM_JOB_ID": "77",  # one job, many trials
    }


def training_process(agent: int) -> int:
    """The process that an agent has started a training in."""
    children = Path(f"/proc/{agent}/task").glob("*/children")
    for child in " ".join(path.read_text() for path in children).split():
        if b"lit_aigc.train" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError("the agent has no training process")


@pytest.fixture(scope="module")
def swept(tmp_path_factory, tiny):
    """A sweep that is done: the service, the folder that the agent ran in, and what the agent printed."""
    folder = tmp_path_factory.mktemp("sweep")
    tried = {
        key: [values[key] for values in TRIALS.values() if key in values]
        for values in TRIALS.values()
        for key in values
    }
    sweep = {
        "project": "trials",
        "method": "random",
        "metric": {"name": "train/d_loss", "goal": "minimize"},
        "parameters": {key: {"values": values} for key, values in tried.items()},
        "command": ["${env}", "${interpreter}", "-m", "lit_aigc.train", *tiny, "${args_no_hyphens}"],
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    server = stand_in()(TRIALS)
    server.stop_after["stopped"] = 2
    program = [sys.executable, "-c", WANDB]
    options = {"cwd": folder, "env": environment(folder, server.url), "text": True}
    made = subprocess.run([*program, "sweep", "sweep.yaml"], capture_output=True, timeout=SECONDS, **options)
    assert made.returncode == 0, made.stdout + made.stderr
    command = re.search(r"wandb (agent \S+)", made.stderr)[1].split()
    agent = subprocess.Popen([*program, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    watchdog = threading.Timer(SECONDS, agent.kill)
    watchdog.start()
    preempted = server.run("preempted")
    threading.Thread(target=preempt, args=(server, preempted, agent.pid), daemon=True).start()
    try:
        output = agent.communicate()[0]
    finally:
        watchdog.cancel()
        agent.kill()
        server.close()
    (folder / "agent.log").write_text(output)
    assert agent.returncode == 0, output
    return server, folder, output


def preempt(server, run, agent: int) -> None:
    server.wait_for(lambda: any(row["samples_seen"] >= 800 for row in run.rows), SECONDS)
    os.kill(training_process(agent), signal.SIGTERM)


def summary(folder: Path, name: str) -> dict:
    return json.loads((folder / "runs" / "dcgan_mnist5k" / name / "summary.json").read_text())


def test_everything_that_was_asked_was_answered(swept):
    server, _, _ = swept
    assert server.unknown == []
    assert server.operations["CreateAgent"] == 1
    assert server.bundles == [(name, "model") for name in ("awkward", "two_processes", "preempted")]


def test_processes_end_with_the_codes_that_the_service_is_told(swept):
    server, _, output = swept
    told = {name: run.exit_codes for name, run in server.runs.items()}
    assert told == {"awkward": [0], "diverging": [1], "two_processes": [0], "preempted": [75, 0], "stopped": [0]}
    codes = [int(code) for code in re.findall(r"^exit code (-?\d+)$", output, re.MULTILINE)]
    assert codes == [0, 1, 0, 75, 0, 75], "a run that W&B stops could be resumed by hand, but its sweep is done with it"
    states = {name: run.state for name, run in server.runs.items()}
    assert states.pop("diverging") == "failed"
    assert set(states.values()) == {"finished"}


def test_each_trial_has_its_own_run_folder_also_within_one_slurm_job(swept):
    _, folder, _ = swept
    assert {path.name for path in (folder / "runs" / "dcgan_mnist5k").iterdir()} == set(TRIALS)
    status = {name: summary(folder, name)["status"] for name in TRIALS}
    assert status.pop("diverging") == "failed"
    assert status.pop("stopped") == "paused"
    assert set(status.values()) == {"done"}


def test_the_runs_saw_what_the_sweep_gave_them(swept):
    server, folder, _ = swept
    ran_with = yaml.safe_load((folder / "runs" / "dcgan_mnist5k" / "awkward" / "config.yaml").read_text())
    told = server.runs["awkward"].config
    for config in (ran_with, told):
        model = config["model"]
        assert config["seed"] == 1
        assert model["recipe"]["clip_norm"] is None
        assert model["generator"]["hidden"] == [8, 4]
        assert model["generator_optimizer"] == {"name": "Adam", "lr": 1e-05, "betas": [0.5, 0.999]}
        assert model["discriminator_optimizer"] == {"name": "Adam", "lr": 1e-4, "betas": [0.1, 0.9]}
        assert model["discriminator"]["hidden"] == [8]
    assert ran_with["logger"]["wandb"]["notes"] == "wide, deep: it's"
    assert told["model.recipe.clip_norm"] is None, "the sweep's own names are there too"
    assert "0" * 40 not in json.dumps(told), "the key of the login goes nowhere"


def test_the_service_has_the_numbers_of_the_run_folder(swept):
    server, folder, _ = swept
    for name in ("awkward", "two_processes", "preempted"):
        curves = read_metrics(folder / "runs" / "dcgan_mnist5k" / name / "metrics.csv")
        rows = [row for row in server.runs[name].rows if "train/d_loss" in row]
        assert ([row["samples_seen"] for row in rows], [row["train/d_loss"] for row in rows]) == curves["train/d_loss"]
        assert server.runs[name].summary["status"] == "done"
        assert server.runs[name].summary["samples_seen"] == summary(folder, name)["samples_seen"]


def test_two_processes_are_one_run(swept):
    server, folder, _ = swept
    run = server.runs["two_processes"]
    assert (run.starts, list(server.runs)) == (1, list(TRIALS))
    assert summary(folder, "two_processes")["samples_seen"] == 4 * 8, "the global batch of 8, four times"


def test_a_preempted_run_goes_on_under_its_id_in_its_folder(swept):
    server, folder, _ = swept
    run = server.runs["preempted"]
    assert run.starts == 2
    assert summary(folder, "preempted")["batches"] == 3000
    seen = [row["samples_seen"] for row in run.rows if "train/d_loss" in row]
    assert seen == list(range(400, 24_001, 400)), "no row is lost, none is there twice"


def test_a_run_that_the_service_stops_is_not_handed_out_again(swept):
    server, folder, output = swept
    run = server.runs["stopped"]
    assert run.starts == 1
    assert "Stop: stopped" in output
    assert 0 < summary(folder, "stopped")["batches"] < 1_000_000
    assert (folder / "runs" / "dcgan_mnist5k" / "stopped" / "checkpoints" / "last.ckpt").exists()
