"""Print the findings of ``lit_aigc.doctor``: machine, environment, what training would do, what is wrong."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from lit_aigc.doctor.findings import Finding, hardware, knows_login, launch, places, wandb
from lit_aigc.doctor.machine import GIB, Machine, extras, look
from lit_aigc.doctor.outlook import Outlook, look_ahead
from lit_aigc.files import nearest

_PREFIXES = ("SLURM_", "TORCHELASTIC_", "WANDB_", "LIT_AIGC_")
# Variables whose values are shown; of all others only the names, as the values may be secret.
_SHOWN = (
    "CUDA_VISIBLE_DEVICES", "LIT_AIGC_DATA", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    "OMP_NUM_THREADS", "RANK", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID", "SLURM_JOB_NAME",
    "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_NNODES", "SLURM_PROCID", "SLURM_STEP_ID", "SLURM_STEP_NUM_NODES",
    "SLURM_STEP_NUM_TASKS", "TORCHELASTIC_RUN_ID", "WANDB_MODE", "WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_SWEEP_ID",
    "WORLD_SIZE",
)  # fmt: skip
_MOST_NAMES = 8


def examine(config: Mapping[str, Any] | None) -> list[Finding]:
    """Print what the machine has and what training would do, and return what is wrong.

    Args:
        config: As composed for ``lit_aigc.train``; None: only the machine is examined.
    """
    from lit_aigc.data import cache
    from lit_aigc.doctor.contents import data, found_data, packages

    machine = look()
    try:
        where = str(cache.folder())
    except RuntimeError:
        where = "none: there is no home folder"
    _print_section("This machine", {**_machine(machine), "cache": where, "data": found_data(), **_missing_extras()})
    _print_section("Its environment", environment())
    if config is None:
        return []
    outlook = look_ahead(config, machine)
    _print_section("What training would do", _outlook(config, outlook))
    return [
        *hardware(machine, outlook),
        *launch(config, outlook),
        *places(outlook, cache.folder),
        *packages(config),
        *data(config, outlook),
        *wandb(config),
    ]


def print_findings(found: Sequence[Finding]) -> None:
    """Print what is wrong, starting with what stops training."""
    print("What is wrong" if found else "Nothing is wrong.")
    for finding in sorted(found, key=lambda finding: not finding.stops):
        print(f"  {'STOPS ' if finding.stops else 'note  '} {_indented(finding.what)}")
        print(f"    cure  {_indented(finding.cure)}")


def _print_section(title: str, facts: Mapping[str, str]) -> None:
    width = max(map(len, facts), default=0)
    print(title, *(f"  {name:<{width}}  {value}" for name, value in facts.items()), "", sep="\n")


def environment() -> dict[str, str]:
    """Return the variables that training reads; for those that may be secret the names, not the values."""
    names = sorted(name for name in os.environ if name.startswith(_PREFIXES) or name in _SHOWN)
    shown = {name: os.environ[name] for name in names if name in _SHOWN}
    other = [name for name in names if name not in _SHOWN]
    if other:
        more = f" and {len(other) - _MOST_NAMES} more" if len(other) > _MOST_NAMES else ""
        shown["also set"] = ", ".join(other[:_MOST_NAMES]) + more
    return {**shown, "W&B login": "found" if knows_login() else "none"}


def _machine(machine: Machine) -> dict[str, str]:
    gpus = [f"{gpu.name}, {gpu.memory_gib:.0f} GiB{', bfloat16' if gpu.bf16 else ''}" for gpu in machine.gpus]
    here = nearest(os.curdir)
    return {
        "CPU": f"{machine.cpu}, {machine.cores} cores" + ("" if machine.idle is None else f", {machine.idle} idle"),
        "memory": "not known" if math.isnan(machine.memory_gib) else f"{machine.memory_gib:.1f} GiB",
        "GPUs": "; ".join(gpus) or "none that torch can use",
        "precision": f"{machine.precision} is fastest; on the CPU bfloat16 takes {machine.bf16_slowdown:.1f}x as long",
        "versions": ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
        "free disk": f"{shutil.disk_usage(here).free / GIB:.1f} GiB in {here}",
    }


def _missing_extras() -> dict[str, str]:
    return {
        f"[{extra}]": f"not installed: {', '.join(missing)} (pip install 'lit-aigc[{extra}]')"
        for extra, missing in extras().items()
        if missing and extra != "dev"
    }


def _outlook(config: Mapping[str, Any], outlook: Outlook) -> dict[str, str]:
    again = "a later start of this job resumes in it" if outlook.lasting else "a new one at each start"
    limits = [f"{value:,} {unit}" for unit, value in config["budget"].items() if value is not None]
    return {
        "experiment": str(config["experiment"]),
        "accelerator": outlook.accelerator,
        "processes": f"{outlook.per_node}" + (f" on each of {outlook.nodes} nodes" if outlook.nodes > 1 else ""),
        "started by": outlook.launcher,
        "strategy": outlook.strategy,
        "precision": outlook.precision,
        "batch size": f"{config['data'].get('batch_size')} over all processes",
        "budget": " or ".join(limits) or "none",
        "run folder": f"{outlook.run_dir}, {again}" if outlook.run_dir else "none",
        "loggers": ", ".join(["metrics.csv", *(config.get("logger") or {})]),
    }


def _indented(text: str) -> str:
    return text.replace("\n", "\n          ")
