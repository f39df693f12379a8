"""How waiting OpenMP threads share cores with other programs: steps per second of a small network.

    python benchmarks/busy_cores.py [rounds]

On an idle machine, about a minute per round. Each variable is measured alone, next to one busy process, and
next to a second process that does the same work. The variables alternate, so that slow changes of the machine affect
all of them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from lit_aigc.machine.cores import core_count, idle_cores

SECONDS = 2.0
VARIABLES = {
    "default": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}
LOADS = ("nothing", "a busy process", "the same work")


def work() -> None:
    """Train a small network for two seconds from the moment that a line arrives, and print steps per second."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3136, 128),
        *(layer for _ in range(8) for layer in (nn.Linear(128, 128), nn.ReLU())),
    )  # fmt: skip
    optimizer, images = torch.optim.Adam(network.parameters()), torch.randn(32, 1, 28, 28)

    def step() -> None:
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()

    for _ in range(3):
        step()
    print("ready", flush=True)
    sys.stdin.readline()
    begun, steps = time.perf_counter(), 0
    while (passed := time.perf_counter() - begun) < SECONDS:
        step()
        steps += 1
    print(steps / passed)


def measure(variables: dict[str, str], load: str) -> float:
    """Return the steps per second of one process."""
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in names} | variables
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"])] if load == "a busy process" else []
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "work"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2 if load == "the same work" else 1)
    ]
    try:
        for process in processes:
            process.stdout.readline()
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        return statistics.mean(float(process.communicate()[0]) for process in processes)
    finally:
        for process in busy + processes:
            process.kill()
            process.wait()


def main(rounds: int) -> None:
    print(f"{idle_cores()} of {core_count()} cores are idle; steps per second, median (lowest to highest) of {rounds}")
    results = {(name, load): [] for name in VARIABLES for load in LOADS}
    for turn in range(rounds):
        for load in LOADS:
            for name in list(VARIABLES)[:: 1 if turn % 2 == 0 else -1]:
                results[name, load].append(measure(VARIABLES[name], load))
    print(f"\n| other load | {' | '.join(VARIABLES)} |\n|{'---|' * (len(VARIABLES) + 1)}")
    for load in LOADS:
        cells = []
        for name in VARIABLES:
            values = results[name, load]
            cells.append(f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})")
        print(f"| {load} | {' | '.join(cells)} |")


if __name__ == "__main__":
    if sys.argv[1:] == ["work"]:
        work()
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 3)
