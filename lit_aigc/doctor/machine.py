"""The hardware and the packages of a machine, and how fast it is in bfloat16."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import math
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lit_aigc.machine.cores import core_count, cpu_name, driver_gpus, idle_cores

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "wandb", "safetensors", "tokenizers")
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU that torch can use.

    Attributes:
        name: Its name.
        memory_gib: Its memory in GiB.
        bf16: Whether it computes in bfloat16 in hardware.
    """

    name: str
    memory_gib: float
    bf16: bool


@dataclasses.dataclass(frozen=True)
class Machine:
    """The hardware and the packages of a machine.

    Attributes:
        cpu: Name of the processor.
        cores: Cores that this process may use.
        memory_gib: Memory in GiB, of the container if that has less.
        bf16_slowdown: How many times as long the processor takes in bfloat16 as in float32, measured.
        gpus: The GPUs that torch can use.
        gpus_in_the_machine: How many GPUs the driver knows; None without a driver.
        versions: Versions of Python and of the installed packages.
        idle: Cores that no other program uses; None if unknown.
    """

    cpu: str
    cores: int
    memory_gib: float
    bf16_slowdown: float
    gpus: tuple[Gpu, ...]
    gpus_in_the_machine: int | None
    versions: dict[str, str]
    idle: int | None = None

    @property
    def precision(self) -> str:
        """The ``trainer.precision`` that trains fastest, on the GPUs if there are any."""
        return self.precision_on("gpu" if self.gpus else "cpu")

    def precision_on(self, accelerator: str) -> str:
        """Return the ``trainer.precision`` that trains fastest on ``gpu``, ``cuda``, ``cpu`` or ``mps``."""
        from lit_aigc.machine.precision import fastest_precision

        if accelerator in ("gpu", "cuda"):
            return fastest_precision("cuda", bool(self.gpus) and all(gpu.bf16 for gpu in self.gpus))
        return fastest_precision(accelerator, self.bf16_slowdown < 1)


def installed() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter, without importing them."""
    found = {name: _version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **{name: version for name, version in found.items() if version}}


def look() -> Machine:
    """Examine this machine; imports torch."""
    import torch

    from lit_aigc.machine.precision import bf16_slowdown

    gpus = []
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        found = torch.cuda.get_device_properties(i)
        gpus.append(Gpu(found.name, found.total_memory / GIB, bool(torch.version.hip) or found.major >= 8))
    return Machine(
        cpu=cpu_name(),
        cores=core_count(),
        memory_gib=_memory() / GIB,
        bf16_slowdown=bf16_slowdown(),
        gpus=tuple(gpus),
        gpus_in_the_machine=driver_gpus(),
        versions=installed(),
        idle=idle_cores(),
    )


def requirements() -> list[Requirement]:
    """Return what lit_aigc requires, extras included; nothing where it is run from its source tree."""
    from packaging.requirements import Requirement

    try:
        return [Requirement(text) for text in importlib.metadata.requires("lit-aigc") or []]
    except importlib.metadata.PackageNotFoundError:
        return []


def extras() -> dict[str, tuple[str, ...]]:
    """Return the packages of each extra that are not installed."""
    missing: dict[str, tuple[str, ...]] = {}
    for requirement in requirements():
        found = re.search(r"extra == ['\"]([\w-]+)['\"]", str(requirement.marker))
        if found and requirement.name != "lit-aigc":
            absent = (requirement.name,) if not _version(requirement.name) else ()
            missing[found[1]] = missing.get(found[1], ()) + absent
    return missing


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory() -> float:
    """Return the bytes of memory, of the container if that has less; NaN where the system doesn't say."""
    if not hasattr(os, "sysconf"):  # Windows
        return math.nan
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            limits.append(int(Path(path).read_text()))
    return min(limits)
