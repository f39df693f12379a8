"""Peak memory of ``lit_aigc.evaluate`` with FID and inception score, which should not grow with the number of images.

Each number of images is measured in a process of its own, on a zip of PNGs.

    python benchmarks/metric_memory.py [numbers of images ...]
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

REAL = 1000


def write(path: Path, n: int, seed: int) -> Path:
    """Make a zip of n random gray images of 28x28."""
    random = np.random.default_rng(seed)
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(n):
            buffer = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (28, 28), dtype=np.uint8)).save(buffer, "PNG", compress_level=1)
            archive.writestr(f"{i:06d}.png", buffer.getvalue())
    return path


def peak(*arguments: str) -> float:
    """MiB that ``lit_aigc.evaluate`` takes at most."""
    words = [sys.executable, "-W", "ignore", "-m", "lit_aigc.evaluate", *arguments]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)} failed")
    return usage.ru_maxrss / 1024


def main(*numbers: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ask = [f"real={write(folder / 'real.zip', REAL, 0)}", "extractor=mnist_classifier", "metrics=[fid, is]"]
        ask += ["cache=false", f"out={folder / 'out.json'}"]
        found = []
        for n in numbers:
            found.append(peak(f"fake={write(folder / f'{n}.zip', n, 1)}", *ask))
            print(f"{n:>7,} images: peak {found[-1]:.0f} MiB, {found[-1] / found[0] - 1:+.1%}", flush=True)


if __name__ == "__main__":
    main(*(map(int, sys.argv[1:]) if sys.argv[1:] else (5_000, 50_000)))
