"""What a machine has, and how fast it is in bfloat16."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import math
import os
import platform
import re
from pathlib import Path

from lit_aigc.machine.cores import core_count, cpu_name, driver_gpus, idle_cores

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "wandb", "safetensors", "tokenizers")
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU that torch can use.

    Attributes:
        name: Its name.
        memory_gib: Its memory in GiB.
        bf16: Whether it computes in bfloat16 itself.
    """

    name: str
    memory_gib: float
    bf16: bool


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a machine has.

    Attributes:
        cpu: Name of the processor.
        cores: Cores that this process may use.
        memory_gib: Memory in GiB, of the container if that has less.
        bf16_slowdown: How many times as long the processor takes in bfloat16 as in float32, measured.
        gpus: What torch can use.
        gpus_in_the_machine: How many the driver knows; None if there is no driver.
        versions: Of Python and of packages that are installed.
        idle: Cores that no other program uses; None if that is not known.
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
        """The ``trainer.precision`` that trains fastest on an accelerator: ``gpu``, ``cuda``, ``cpu`` or ``mps``."""
        on_gpu = accelerator in ("gpu", "cuda")
        fast = self.gpus and all(gpu.bf16 for gpu in self.gpus) if on_gpu else self.bf16_slowdown < 1
        return "bf16-mixed" if fast and accelerator != "mps" else "32-true"

    def slowdown(self, precision: str) -> float:
        """How many times as long a ``trainer.precision`` takes on the processor as the alternative; 1 if not known."""
        return {"bf16-mixed": self.bf16_slowdown, "32-true": 1 / self.bf16_slowdown}.get(precision, 1.0)


def installed() -> dict[str, str]:
    """Versions of Python and of the packages that matter, read without importing them."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def look() -> Machine:
    """This machine; imports torch."""
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


def extras() -> dict[str, tuple[str, ...]]:
    """The packages of each extra that are not installed; empty where lit_aigc itself isn't installed."""
    try:
        wanted = importlib.metadata.requires("lit-aigc") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    missing: dict[str, list[str]] = {}
    for requirement in wanted:
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        package = re.match(r"[\w.-]+", requirement)
        if extra and package and package[0] != "lit-aigc":
            missing.setdefault(extra[1], [])
            try:
                importlib.metadata.version(package[0])
            except importlib.metadata.PackageNotFoundError:
                missing[extra[1]].append(package[0])
    return {extra: tuple(packages) for extra, packages in missing.items()}


def _memory() -> float:
    """Bytes of memory, of the container if that has less; NaN where the system doesn't say."""
    if not hasattr(os, "sysconf"):  # Windows
        return math.nan
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [
        _text(path).strip() for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    ]
    return min([whole, *(int(limit) for limit in limits if limit.isdecimal())])


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
