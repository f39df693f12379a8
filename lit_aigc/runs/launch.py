"""How the processes of a run are started: by torchrun, by SLURM's srun, or by the Trainer, which starts all but one."""

from __future__ import annotations

import dataclasses
import datetime
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

from lit_aigc.errors import InputError, check

FIRST_PROCESS = "LIT_AIGC_FIRST_PROCESS"  # its id, for the processes that it starts
_NUMBERS = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES")


@dataclasses.dataclass(frozen=True)
class Launch:
    """Processes that were started from outside, before training.

    Attributes:
        by: The program that started them.
        per_node: Processes on each node.
        nodes: Number of nodes.
    """

    by: str
    per_node: int
    nodes: int


def launch() -> Launch | None:
    """Return how the processes of this run were started from outside; None if there is only this one so far.

    Raises:
        InputError: If the nodes have different numbers of processes.
    """
    number = {name: int(value) for name, value in os.environ.items() if name in _NUMBERS}
    if "TORCHELASTIC_RUN_ID" in os.environ and "WORLD_SIZE" in number:
        by, processes, per_node = "torchrun", number["WORLD_SIZE"], number.get("LOCAL_WORLD_SIZE", 1)
        nodes = processes // per_node
    elif number.get("SLURM_STEP_NUM_TASKS", 1) > 1:
        by, processes, nodes = "srun", number["SLURM_STEP_NUM_TASKS"], number["SLURM_STEP_NUM_NODES"]
        per_node = processes // nodes
    else:
        return None
    if per_node * nodes != processes:
        raise InputError(f"{by} started {processes} processes, not the same number on each node: expected the same.")
    return Launch(by, per_node, nodes)


def with_processes(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Trainer config with the ``devices`` and ``num_nodes`` that were started from outside, if any were.

    Raises:
        InputError: If it asks for other numbers, or for several nodes that nobody started.
    """
    found = launch()
    devices, nodes = trainer.get("devices", "auto"), int(trainer.get("num_nodes") or 1)
    if not found:
        if nodes > 1:
            raise InputError(
                f"trainer.num_nodes={nodes}: processes on several nodes are started by torchrun or srun, which leaves "
                "trainer.num_nodes out (docs/cluster.md)."
            )
        return dict(trainer)
    anything = leaves_the_number_open(devices)
    if not (anything or local_devices(trainer) == found.per_node) or nodes not in (1, found.nodes):
        raise InputError(
            f"trainer.devices={devices} trainer.num_nodes={nodes}, but {found.by} started {found.per_node} processes "
            f"on each of {found.nodes} nodes: leave both out, or start as many as they say."
        )
    return {**trainer, "devices": found.per_node if anything else devices, "num_nodes": found.nodes}


def leaves_the_number_open(devices: Any) -> bool:
    """Return whether ``trainer.devices`` leaves the number to torchrun or srun: all devices, or one, the default."""
    return devices in ("auto", -1, "-1", 1, "1")


def local_devices(trainer: Mapping[str, Any], gpus: int | None = None) -> int:
    """Return the number of processes per node that a Trainer config asks for.

    Args:
        trainer: The config.
        gpus: The number of GPUs; None: of this machine.

    Raises:
        InputError: If it is not a number of devices.
    """
    devices = trainer.get("devices", "auto")
    if devices in ("auto", -1, "-1"):
        on_gpu = trainer.get("accelerator") in ("auto", "gpu", "cuda")
        gpus = torch.cuda.device_count() if gpus is None else gpus
        number = max(1, gpus) if on_gpu else 1
    elif isinstance(devices, list):
        number = len(devices)
    else:
        number = int(devices) if str(devices).isdecimal() else 0
    check(("trainer.devices", devices, number > 0, "auto, a number from 1 on, -1 for all, or [0, 1, ...]"))
    return number


def cluster_environment() -> ClusterEnvironment | None:
    """Describe the launch to Lightning where it would guess wrong; return None where it guesses right.

    Lightning assumes that srun started the processes of every SLURM job, asks for settings that ``srun -n2`` doesn't
    make, gives two steps of one job the same port, and requeues by itself.
    """
    if "SLURM_JOB_ID" not in os.environ or "TORCHELASTIC_RUN_ID" in os.environ:
        return None
    found = launch()
    if not found:
        return LightningEnvironment()
    job, step = int(os.environ["SLURM_JOB_ID"]), int(os.environ["SLURM_STEP_ID"])
    first_node = SLURMEnvironment.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"])
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1" if found.nodes == 1 else first_node)
    os.environ.setdefault("MASTER_PORT", str(20000 + (job + 7919 * step) % 10000))
    os.environ["SLURM_NTASKS_PER_NODE"] = str(found.per_node)
    return SLURMEnvironment(auto_requeue=False)


def check_strategy(gradients: str, **numbers: float) -> None:
    """Raise `InputError` if gradients are sent in no known precision, or another option isn't above 0."""
    above_0 = ((f"trainer.strategy.{name}", value, value > 0, "a number above 0") for name, value in numbers.items())
    check(("trainer.strategy.gradients", gradients, gradients in ("fp32", "bf16"), "fp32 or bf16"), *above_0)


class DataParallel(DDPStrategy):
    """DDP with the settings that matter between many GPUs; see docs/scaling.md.

    Args:
        bucket_mebibytes: Gradients are reduced in buckets of this size, each as soon as it is full.
        gradients: ``fp32``, or ``bf16``: half the bytes, and gradients rounded to 8 bits on the way.
        minutes: How long a process waits for the others before it gives up.

    Raises:
        InputError: If an option is out of range.
    """

    def __init__(self, bucket_mebibytes: float = 25.0, gradients: str = "fp32", minutes: float = 10.0) -> None:
        check_strategy(gradients, bucket_mebibytes=bucket_mebibytes, minutes=minutes)
        super().__init__(
            bucket_cap_mb=bucket_mebibytes,
            gradient_as_bucket_view=True,
            ddp_comm_hook=bf16_compress_hook if gradients == "bf16" else None,
            timeout=datetime.timedelta(minutes=minutes),
        )

    def configure_ddp(self) -> None:
        """Have DDP look for unused parameters only where a backward pass may leave some out, as in a GAN."""
        self._ddp_kwargs["find_unused_parameters"] = not self.lightning_module.trains_all_at_once
        super().configure_ddp()


def end_with_the_first_process(grace: float = 30.0) -> None:
    """In a process that the Trainer started: watch the one that started it, and end `grace` seconds after it.

    Nobody else ends processes that the Trainer started. On GPUs one would wait for the dead one's gradients for ten
    minutes and hold its memory.
    """
    first = int(os.environ[FIRST_PROCESS])

    def watch() -> None:
        while os.getppid() == first:
            time.sleep(0.5)
        time.sleep(grace)  # at a regular end this process is gone by then
        print("lit_aigc.train: the first process of this run has died, so this one ends.", file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
