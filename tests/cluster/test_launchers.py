"""The same training whoever starts its processes; and no process waits for one that has died."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cluster.node import free_ports, wait_until
from tests.cluster.runs import GATE, arguments, assert_same_end, checkpoint, environment, summary, torchrun, train

TRAIN = ("-m", "lit_aigc.train")
# Without backend and endpoint torchrun replaces the id of a single node by one of its own.
NIGHT = ("--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "--rdzv-id=night")

MINUTE = 60 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # of a machine that has nothing else to do

SGD = ("model.optimizer.name=SGD", "~model.optimizer.betas", "model.optimizer.lr=0.001")


def start(command: list[str], folder: Path) -> subprocess.Popen:
    """In a group of its own, so that whatever a failing test leaves can be ended."""
    return subprocess.Popen(
        command, env=environment(), cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def end(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gan", *(pytest.param(name, marks=pytest.mark.long) for name in ("vae", "text"))])
def test_torchrun_equals_the_trainers_own_processes(tiny, wanted, tmp_path, family):
    more = arguments(tiny, family)
    subprocess.run([*torchrun(*NIGHT), *TRAIN, *more], env=environment(), cwd=tmp_path, check=True, timeout=600)
    (run,) = (path.parent for path in tmp_path.rglob("summary.json"))
    assert run.name == "torchelastic-night"
    assert summary(run)["status"] == "done"
    assert (run / "bundle/manifest.json").exists()
    assert_same_end(wanted(family), run)


@pytest.mark.slow
def test_two_nodes_of_torchrun_equal_one_node(tiny, wanted, tmp_path):
    """Two agents, each with a process of its own; none is told an id, so the folder has a name."""
    (port,) = free_ports(1)
    nodes = [
        start(
            [*torchrun("--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=1", "--master-addr=127.0.0.1",
                       f"--master-port={port}"), *TRAIN, *arguments(tiny, "gan", f"run_dir={tmp_path}/run")],
            tmp_path,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        for node in nodes:
            assert node.wait(timeout=600) == 0, node.stderr.read()
    finally:
        for node in nodes:
            end(node)
    assert_same_end(wanted("gan"), tmp_path / "run")


@pytest.mark.long
@pytest.mark.slow
def test_what_torchrun_paused_goes_on_under_the_trainer(tiny, wanted, tmp_path):
    """A pause shows in the summary: torchrun takes any code but 0 for a failure."""
    command = torchrun(*NIGHT, *TRAIN)
    again = arguments(tiny, "gan", f"run_dir={tmp_path}/run")
    subprocess.run([*command, *again, "pause_after.batches=3"], env=environment(), cwd=tmp_path, timeout=600)
    assert summary(tmp_path / "run")["status"] == "paused"
    assert checkpoint(tmp_path / "run")["lit_aigc"]["counters"]["batches"] == 3
    resume = [sys.executable, *TRAIN, f"resume={tmp_path}/run", "trainer.devices=2"]
    subprocess.run(resume, env=environment(), cwd=tmp_path, check=True, timeout=600)
    assert_same_end(wanted("gan"), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("launcher", ["trainer", pytest.param("torchrun", marks=pytest.mark.long)])
def test_a_dead_process_takes_the_others_down(tiny, tmp_path, launcher, victim):
    """The other one is in the middle of a batch, and waits for gradients that won't come."""
    run = tmp_path / "run"
    more = arguments(tiny, "gan", f"run_dir={run}", f"callbacks.gate={{_target_: gate.Gate, rank: {victim}}}")
    if launcher == "torchrun":
        process = start([*torchrun(*NIGHT), *TRAIN, *more], tmp_path)
    else:
        process = start([sys.executable, *TRAIN, *more, "trainer.devices=2"], tmp_path)
    try:
        gate = run / f"at-gate-{victim}"
        wait_until(lambda: gate.exists() or process.poll() is not None, "the gate", seconds=300)
        os.kill(int(gate.read_text()), signal.SIGKILL)
        message = process.communicate(timeout=MINUTE)[1]  # ends when the last process has closed its end
        assert process.returncode not in (0, 75)
        assert "peer" in message or "terminated with code -9" in message or "exitcode: -9" in message.lower(), message
    finally:
        end(process)
    assert summary(run)["status"] != "done"


@pytest.mark.long
@pytest.mark.slow
def test_sigterm_to_torchrun_pauses(tiny, wanted, tmp_path):
    process = start([*torchrun(*NIGHT), *TRAIN, *arguments(tiny, "gan", *GATE)], tmp_path)
    run = tmp_path / "runs/dcgan_mnist5k/torchelastic-night"
    try:
        gates = [run / f"at-gate-{rank}" for rank in (0, 1)]
        wait_until(lambda: all(g.exists() for g in gates) or process.poll() is not None, "the gate", seconds=300)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=MINUTE)
    finally:
        end(process)
    assert summary(run)["status"] == "paused"
    assert checkpoint(run)["lit_aigc"]["counters"]["batches"] == 4


@pytest.mark.long
@pytest.mark.slow
def test_the_size_of_buckets_changes_nothing(tiny, wanted, tmp_path):
    strategy = "trainer.strategy={_target_: lit_aigc.runs.launch.DataParallel, bucket_mebibytes: 0.01}"
    train(tmp_path, *arguments(tiny, "vae"), f"run_dir={tmp_path}/run", "trainer.devices=2", strategy)
    assert_same_end(wanted("vae"), tmp_path / "run")


@pytest.mark.gpu
@pytest.mark.slow
def test_gradients_sent_as_bf16_differ_by_rounding_only(tiny, tmp_path):
    """And not by nothing: the setting has arrived. Lightning takes it on GPUs only; never run so far."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    ends = []
    for gradients in ("fp32", "bf16"):
        more = ["trainer=cluster", "trainer.devices=2", "trainer.precision=32-true", "budget.batches=2", *SGD]
        given = [a for a in arguments(tiny, "vae") if not a.startswith("trainer.")]
        run_dir = f"run_dir={tmp_path}/{gradients}"
        train(tmp_path, *given, *more, run_dir, f"trainer.strategy.gradients={gradients}")
        ends.append(checkpoint(tmp_path / gradients)["state_dict"])
    differences = [(ends[1][name] - tensor).abs().max() for name, tensor in ends[0].items()]
    assert 0 < max(differences) < 1e-3
