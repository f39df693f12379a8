"""Seconds from command to response: ``--help``, the first training step, and ``import torch`` to judge the machine.

The first training step is that of a run of one batch: the age of the process when the fit starts, plus the fit.

    python benchmarks/start_up.py [rounds]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ONE_BATCH = ["budget.samples=null", "budget.batches=1", "validations=0", "monitor=null", "run_dir=run"]


def seconds(command: list[str], folder: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


def first_step() -> float:
    with tempfile.TemporaryDirectory() as folder:
        seconds(["-m", "lit_aigc.train", *ONE_BATCH], folder)
        summary = json.loads((Path(folder) / "run/summary.json").read_text())
    return summary["startup_seconds"] + summary["train_seconds"]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    measured = {
        "--help": lambda: seconds(["-m", "lit_aigc.train", "--help"], "."),
        "first training step": first_step,
        "import torch": lambda: seconds(["-c", "import torch"], "."),
    }
    for name, measure in measured.items():
        taken = [measure() for _ in range(rounds + 1)][1:]
        print(f"{name:<20} median {statistics.median(taken):.2f} s, {min(taken):.2f} to {max(taken):.2f}")


if __name__ == "__main__":
    main()
