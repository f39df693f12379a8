"""Seconds from command to answer: ``--help``, and a training of a single batch, start to end, bundle written.

The second is an upper bound of the time to the first training step.

    python benchmarks/start_up.py [rounds]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

ONE_BATCH = ["budget.samples=null", "budget.batches=1", "validations=0", "monitor=null"]


def seconds(arguments: list[str], folder: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "lit_aigc.train", *arguments], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in (("--help", ["--help"]), ("one batch", ONE_BATCH)):
            taken = [seconds(arguments, folder) for _ in range(rounds + 1)][1:]
            print(f"{name:<10} median {statistics.median(taken):.2f} s, {min(taken):.2f} to {max(taken):.2f}")


if __name__ == "__main__":
    main()
