"""cluster/slurm.sbatch on a real SLURM: it trains, survives what clusters do to jobs, and ends as if nothing was."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lit_aigc.machine.lock import is_held
from tests.cluster.node import Slurm, wait_until
from tests.cluster.runs import GATE, ROOT, arguments, assert_same_end, checkpoint, environment, summary, train

pytestmark = pytest.mark.cluster
SCRIPT = str(ROOT / "cluster" / "slurm.sbatch")
TRAIN = ("python", "-m", "lit_aigc.train")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
MINUTE = 60 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # of a machine that has nothing else to do
LONG = 8 * MINUTE  # a job takes ten seconds


@pytest.fixture
def submit(slurm: Slurm, tmp_path: Path) -> Callable[..., str]:
    """``submit(arguments, *options)``: a job of two tasks, its output in ``out-JOB.txt``; gives its id."""

    def run(training: list[str], *options: str) -> str:
        where = ("--parsable", f"--chdir={tmp_path}", f"--output={tmp_path}/out-%j.txt")
        tasks = () if any(option.startswith("--nodes") for option in options) else ("--ntasks-per-node=2",)
        return slurm.run("sbatch", *where, *tasks, *options, SCRIPT, *training, environment=environment())

    return run


def end_of(slurm: Slurm, job: str) -> str:
    """The state that a job ends in."""

    def ended() -> bool:
        if slurm.state(job)["JobState"] == "PENDING":
            slurm.hurry(job)  # a requeued job is held back for two minutes
        return slurm.state(job)["JobState"] in ENDED

    wait_until(ended, f"the end of job {job}", seconds=LONG)
    return slurm.state(job)["JobState"]


def run_of(tmp_path: Path, job: str) -> Path:
    (run,) = (path.parent for path in tmp_path.glob(f"runs/*/slurm-{job}/config.yaml"))
    return run


def wait_for_gate(slurm: Slurm, tmp_path: Path, job: str, processes: int = 2) -> Path:
    """The run folder, once each process is held."""

    def held() -> bool:
        assert slurm.state(job)["JobState"] not in ENDED, (tmp_path / f"out-{job}.txt").read_text()
        return len(list(tmp_path.glob(f"runs/*/slurm-{job}/at-gate-[0-9]"))) == processes

    wait_until(held, "the gate", seconds=LONG)
    return run_of(tmp_path, job)


def paused_at(run: Path) -> int:
    assert summary(run)["status"] == "paused"
    assert summary(run)["batches"] == checkpoint(run)["lit_aigc"]["counters"]["batches"]
    return summary(run)["batches"]


@pytest.mark.parametrize("family", ["gan", *(pytest.param(name, marks=pytest.mark.long) for name in ("vae", "text"))])
def test_sbatch_trains_as_the_trainer_does(slurm, submit, tiny, wanted, tmp_path, family):
    job = submit(arguments(tiny, family))
    assert end_of(slurm, job) == "COMPLETED", (tmp_path / f"out-{job}.txt").read_text()
    assert summary(run_of(tmp_path, job))["status"] == "done"
    assert_same_end(wanted(family), run_of(tmp_path, job))


def test_two_nodes_train_as_one(slurm, submit, tiny, wanted, tmp_path):
    """The same command; the nodes have names that only SLURM knows, so the address of the first is given."""
    job = submit(arguments(tiny, "gan"), "--nodes=2", "--ntasks-per-node=1", "--export=ALL,MASTER_ADDR=127.0.0.1")
    assert end_of(slurm, job) == "COMPLETED", (tmp_path / f"out-{job}.txt").read_text()
    assert slurm.state(job)["NumNodes"] == "2"
    assert_same_end(wanted("gan"), run_of(tmp_path, job))


@pytest.mark.long
def test_srun_needs_no_script(slurm, tiny, wanted, tmp_path):
    more = arguments(tiny, "gan", f"run_dir={tmp_path}/run")
    slurm.run("srun", "-n2", f"--chdir={tmp_path}", *TRAIN, *more, environment=environment(), timeout=LONG)
    assert_same_end(wanted("gan"), tmp_path / "run")


def test_a_requeued_job_goes_on_as_the_same_run(slurm, submit, tiny, wanted, tmp_path):
    """``scontrol requeue``: the same folder, the same W&B run, the same end."""
    job = submit(arguments(tiny, "gan", *GATE, "logger=wandb", "logger.wandb.mode=offline"))
    run = wait_for_gate(slurm, tmp_path, job)
    slurm.run("scontrol", "requeue", job)
    wait_until(lambda: slurm.state(job)["JobState"] == "PENDING", "the job in the queue", seconds=LONG)
    assert paused_at(run) == 4
    assert end_of(slurm, job) == "COMPLETED", (tmp_path / f"out-{job}.txt").read_text()
    assert slurm.state(job)["Restarts"] == "1"
    assert_same_end(wanted("gan"), run)
    ids = [path.stem.rpartition("-")[2] for path in (run / "wandb").rglob("run-*.wandb")]
    assert len(ids) > 1 and set(ids) == {(run / "wandb/run_id").read_text()}


@pytest.mark.long
def test_the_signal_ahead_of_the_time_limit_requeues(slurm, submit, tiny, wanted, tmp_path):
    """SLURM looks each half minute, and may send it a minute early: here from half a minute after the start on."""
    job = submit(arguments(tiny, "gan", *GATE), f"--time={5 + round(MINUTE / 60)}", "--signal=B:USR1@300")
    run = wait_for_gate(slurm, tmp_path, job)
    wait_until(lambda: int(slurm.state(job)["Restarts"]) == 1, "the requeue", seconds=LONG)
    wait_until(lambda: slurm.state(job)["JobState"] == "PENDING", "the job in the queue", seconds=LONG)
    assert paused_at(run) == 4
    assert "resumes later" in (tmp_path / f"out-{job}.txt").read_text()
    assert end_of(slurm, job) == "COMPLETED", (tmp_path / f"out-{job}.txt").read_text()
    assert_same_end(wanted("gan"), run)


def test_a_cancelled_job_leaves_a_checkpoint_and_stays_cancelled(slurm, submit, tiny, wanted, tmp_path):
    job = submit(arguments(tiny, "gan", *GATE))
    run = wait_for_gate(slurm, tmp_path, job)
    slurm.run("scancel", job)
    assert end_of(slurm, job) == "CANCELLED"
    wait_until(lambda: summary(run)["status"] != "running" and not is_held(run), "the pause", seconds=LONG)
    assert paused_at(run) == 4
    assert slurm.state(job)["Restarts"] == "0"
    train(tmp_path, f"resume={run}", "trainer.devices=2", "trust=[gate]")
    assert_same_end(wanted("gan"), run)


@pytest.mark.long
def test_each_task_of_an_array_is_a_run_and_requeues_alone(slurm, submit, tiny, tmp_path):
    job = submit(arguments(tiny, "gan", "seed=%a", "pause_after.batches=5"), "--array=3-4", "--ntasks-per-node=1")
    tasks = [f"{job}_{number}" for number in (3, 4)]
    for task in tasks:
        assert end_of(slurm, task) == "COMPLETED"
        assert slurm.state(task)["Restarts"] == "1"
    runs = [run_of(tmp_path, task) for task in tasks]
    assert [(summary(run)["seed"], summary(run)["batches"]) for run in runs] == [(3, 8), (4, 8)]


def test_a_dead_process_fails_the_job_within_a_minute(slurm, submit, tiny, tmp_path):
    """The other waits for its gradients."""
    job = submit(arguments(tiny, "gan", "callbacks.gate={_target_: gate.Gate, rank: 1}"))
    run = wait_for_gate(slurm, tmp_path, job, processes=1)
    os.kill(int((run / "at-gate-1").read_text()), signal.SIGKILL)
    wait_until(lambda: slurm.state(job)["JobState"] in ENDED, "the end", seconds=MINUTE)
    assert slurm.state(job)["JobState"] == "FAILED"
    assert "task 1: Exited with exit code 137" in (tmp_path / f"out-{job}.txt").read_text()


@pytest.mark.long
def test_bad_input_fails_the_job_with_its_message(slurm, submit, tiny, tmp_path):
    job = submit(arguments(tiny, "gan", "trainer.devices=3"))
    assert end_of(slurm, job) == "FAILED"
    assert "srun started 2 processes on each of 1 nodes" in (tmp_path / f"out-{job}.txt").read_text()


@pytest.mark.long
def test_a_second_run_in_one_job_is_refused(slurm, tiny, tmp_path):
    """An allocation has one id: what another command trains must not pass for this one's result."""
    script = tmp_path / "two.sh"
    line = " ".join(f"'{word}'" for word in (*TRAIN, *arguments(tiny, "gan", "trainer.devices=1", "budget.batches=1")))
    script.write_text(f"#!/bin/bash\n{line} seed=1 && {line} seed=2\n")
    with pytest.raises(RuntimeError, match="seed=1 there, 2 here"):
        slurm.run("srun", "-n1", f"--chdir={tmp_path}", "bash", script, environment=environment(), timeout=LONG)
