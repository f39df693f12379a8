"""Find what is wrong, with a cure for each: environment, machine, packages; no secret is ever read."""

from __future__ import annotations

import contextlib
import dataclasses
import netrc
import os
import shutil
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lit_aigc.doctor.machine import GIB, Machine, requirements
from lit_aigc.doctor.outlook import Outlook
from lit_aigc.files import cannot_write, nearest
from lit_aigc.runs.folder import in_sweep

MALWARE = ("2.6.2", "2.6.3")  # of lightning
_FULL, _NEARLY_FULL = 0.2, 2.0  # free GiB


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        what: A sentence that describes it.
        cure: A sentence that says what to do.
        stops: Whether training can't, or must not, begin.
    """

    what: str
    cure: str
    stops: bool = False


def unfit_packages(versions: Mapping[str, str]) -> Iterator[Finding]:
    """Find packages that must not be imported, or are too old, before any is imported."""
    if versions.get("lightning") in MALWARE:
        yield Finding(
            f"lightning {versions['lightning']} is malware: that release stole credentials.",
            "pip install 'lightning>=2.6.6', and change the keys and tokens that this machine could reach.",
            stops=True,
        )
    for requirement in requirements():
        found = versions.get(requirement.name)
        if requirement.marker is None and found and not requirement.specifier.contains(found, prereleases=True):
            what = f"{requirement.name} {found} is installed, {requirement.specifier} is needed."
            yield Finding(what, f"pip install '{requirement.name}{requirement.specifier}'", stops=True)


def hardware(machine: Machine, outlook: Outlook) -> Iterator[Finding]:
    """Find hardware that is asked for and missing, or that is there and not used."""
    from lit_aigc.machine.precision import SLOW, slowdown

    gpus, on_gpu = len(machine.gpus), outlook.accelerator in ("gpu", "cuda")
    if machine.gpus_in_the_machine and not gpus:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") is not None
        yield Finding(
            f"The machine has {machine.gpus_in_the_machine} GPUs, but torch {machine.versions.get('torch')} sees none.",
            "Unset CUDA_VISIBLE_DEVICES, which hides them." if hidden else
            "Install a build of torch for this driver: see pytorch.org/get-started.",
        )  # fmt: skip
    if on_gpu and outlook.per_node > gpus:
        yield Finding(
            f"Training asks for {outlook.per_node} GPUs on each node; torch sees {gpus} here.",
            f"Set trainer.devices={gpus}." if gpus else "Set trainer.accelerator=cpu, or leave it out.",
            stops=True,
        )
    if outlook.precision.startswith("16") and not gpus:
        yield Finding(
            f"trainer.precision={outlook.precision}: half precision needs a GPU.",
            f"Set trainer.precision={machine.precision}.",
            stops=True,
        )
    elif (factor := slowdown(outlook.precision, outlook.accelerator, machine.bf16_slowdown)) > SLOW:  # on the CPU
        fastest = machine.precision_on("cpu")
        yield Finding(
            f"trainer.precision={outlook.precision} takes {factor:.1f} times as long here as {fastest}.",
            "Set trainer.precision=auto.",
        )
    elif outlook.precision.startswith("bf16") and on_gpu and not all(gpu.bf16 for gpu in machine.gpus):
        yield Finding(
            f"{machine.gpus[0].name} only emulates bfloat16, which is slow.",
            f"Set trainer.precision={machine.precision}.",
        )
    if not on_gpu:
        yield from threads(machine, outlook)


def threads(machine: Machine, outlook: Outlook) -> Iterator[Finding]:
    """Find fewer threads than idle cores, or more: threads that share a core keep all others waiting."""
    idle = machine.cores if machine.idle is None else machine.idle
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked == "1" and idle > 1 and outlook.processes == 1:
        yield Finding(
            f"OMP_NUM_THREADS=1: training uses one of {machine.cores} cores.",
            f"unset OMP_NUM_THREADS, or set it to {idle}; 1 is for several processes on one machine.",
        )
    each = int(asked) if asked.isdecimal() else machine.cores // outlook.per_node or 1
    if idle < machine.cores and each * outlook.per_node > max(1, idle):
        yield Finding(
            f"The machine is busy: other programs use {machine.cores - idle} of {machine.cores} cores. Threads of "
            "training that share a core with them keep the others waiting; it can be 10 to 50 times slower.",
            f"Wait, end other programs, or export OMP_NUM_THREADS={max(1, idle // outlook.per_node)}.",
        )


def launch(config: Mapping[str, Any], outlook: Outlook) -> Iterator[Finding]:
    """Find misunderstandings of SLURM and torchrun."""
    from lit_aigc.runs.launch import launch as processes
    from lit_aigc.runs.launch import leaves_the_number_open, local_devices

    if outlook.problem:
        yield Finding(outlook.problem, "torchrun --rdzv-id=NAME --nproc-per-node=N -m lit_aigc.train ...", stops=True)
    outside, devices = processes(), config["trainer"].get("devices", "auto")
    if outside and not leaves_the_number_open(devices) and local_devices(config["trainer"]) != outside.per_node:
        yield Finding(
            f"trainer.devices={devices}, but {outside.by} starts {outside.per_node} processes on each node.",
            f"Leave trainer.devices out, or have {outside.by} start as many.",
            stops=True,
        )
    if outlook.nodes > 1 and not outside:
        yield Finding(
            f"trainer.num_nodes={outlook.nodes}: nobody starts the processes on the other nodes.",
            "Start training with srun or torchrun, which do; leave trainer.num_nodes out.",
            stops=True,
        )
    job = os.environ.get("SLURM_JOB_ID")
    if not job or outside:
        return
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if tasks != "1":
        yield Finding(
            f"The SLURM job {job} has {tasks} tasks, but srun has not started this process: training would be one "
            "process.",
            "srun python -m lit_aigc.train ...",
        )
    if "SLURM_STEP_ID" not in os.environ and outlook.lasting and not config.get("run_dir") and not config.get("resume"):
        where = "A notebook" if "JPY_PARENT_PID" in os.environ else "A shell"
        yield Finding(
            f"{where} in the SLURM job {job} looks like the job itself: all runs of an experiment in it share the "
            f"run folder {outlook.run_dir}, and the second is taken for the first, requeued.",
            "Give each run its own run_dir=PATH.",
        )


def places(outlook: Outlook, cache: Callable[[], Path]) -> Iterator[Finding]:
    """Find folders that can't be written to, and disks that are full."""
    if outlook.run_dir:
        there = nearest(outlook.run_dir)
        if problem := cannot_write(there):
            what = f"The run folder {outlook.run_dir} can't be made: {problem}, {there}."
            yield Finding(what, "Give another run_dir=PATH.", stops=True)
        elif (free := shutil.disk_usage(there).free / GIB) < _NEARLY_FULL:
            yield Finding(
                f"{free:.2f} GiB are free on the disk of {there.resolve()}.",
                "Free some space, or give a run_dir=PATH elsewhere.",
                stops=free < _FULL,
            )
    with contextlib.suppress(RuntimeError):
        if problem := cannot_write(folder := cache()):
            why = f"{problem}, {nearest(folder)}"
            what = f"The cache folder {folder} can't be written to ({why}): slow preparations are repeated."
            yield Finding(what, "Set XDG_CACHE_HOME to a folder that can be.")


def wandb(config: Mapping[str, Any]) -> Iterator[Finding]:
    """Find W&B asked for without a login."""
    asked = loggers(config, "WandbLogger")
    mode = next((node["mode"] for node in asked if node.get("mode")), os.environ.get("WANDB_MODE", "online"))
    if (asked or in_sweep()) and mode == "online" and not knows_login():
        yield Finding(
            "Training logs to Weights & Biases, and there is no login: no WANDB_API_KEY, no entry in ~/.netrc.",
            "Run  wandb login,  or set logger.wandb.mode=offline and send the run later by  wandb sync.",
            stops=True,
        )


def loggers(config: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    """Return the nodes of a config that ask for a logger of a class with this name."""
    nodes = (node for node in (config.get("logger") or {}).values() if isinstance(node, Mapping))
    return [node for node in nodes if str(node.get("_target_")).endswith(kind)]


def knows_login() -> bool:
    """Return whether there is a key for W&B, without reading it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urllib.parse.urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    with contextlib.suppress(OSError, netrc.NetrcParseError, RuntimeError):
        file = os.environ.get("NETRC") or Path.home() / ".netrc"
        return host in netrc.netrc(str(file)).hosts
    return False
