"""The processors of this machine: the cores that this process may use, how many of them are idle, and the GPUs."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_SECONDS = 0.3  # long enough for thirty ticks of the kernel's clock
Ticks = Mapping[int, tuple[int, int]]
"""For each core, ticks of its clock since the machine started: those in use, and all of them."""


def usable() -> set[int]:
    """Return the cores that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def core_count() -> int:
    """Return how many cores this process may use."""
    return len(usable())


def cpu_name() -> str:
    """Return the name of the processor."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not on Linux
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def driver_gpus() -> int | None:
    """Return how many GPUs the NVIDIA driver knows; None without a driver."""
    folder = Path("/proc/driver/nvidia/gpus")
    return len(list(folder.iterdir())) if folder.is_dir() else None


def idle_cores(
    *,
    cores: set[int] | None = None,
    read: Callable[[], Ticks] | None = None,
    load: Callable[[], float] | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """Return how many of the cores that this process may use are idle; call it while this process itself rests.

    OpenMP's threads spin while they wait for each other. A thread that has to share its core with another program
    keeps all of them waiting, and work on small tensors becomes ten to fifty times slower. A thread too few costs
    much less, so count idle cores, not cores.

    Args:
        cores: Which cores count; those that this process may use if None.
        read: The clocks of all cores, read twice; from ``/proc/stat`` if None.
        load: The mean number of running programs in the last minute, for systems without ``/proc/stat``.
        wait: Lets some seconds pass between the two readings.

    Returns:
        A whole number from 0 to the number of cores. A core that is in use for half of the time counts as half.
    """
    cores = usable() if cores is None else cores
    read, load = read or proc_stat, load or _load
    before = read()
    if not cores <= before.keys():
        return max(0, round(len(cores) - load()))
    wait(_SECONDS)
    after = read()
    used = 0.0
    for core in cores:
        in_use, whole = (now - then for now, then in zip(after[core], before[core], strict=True))
        used += in_use / whole if whole > 0 else 0.0
    return max(0, round(len(cores) - used))


def proc_stat(path: Path = Path("/proc/stat")) -> dict[int, tuple[int, int]]:
    """Read the clocks of all cores from Linux's ``/proc/stat``; empty where there is no such file."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    found = {}
    for name, *columns in map(str.split, lines):
        if name.startswith("cpu") and name != "cpu":
            ticks = [int(column) for column in columns[:8]]  # user nice system idle iowait irq softirq steal
            found[int(name[3:])] = (sum(ticks) - sum(ticks[3:5]), sum(ticks))
    return found


def _load() -> float:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
