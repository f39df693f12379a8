"""Check that a long training run is stable: memory, open files, threads and processor time per batch over time.

It trains the smallest model in a process of its own and measures from a callback inside. Besides the figures it reports
how each differs between the last two quarters of the run, and how large the run folder has become.

    python benchmarks/long_run.py [minutes=60] [experiment=mlp_gan_mnist5k] [out=benchmarks/results]

Writes ``long_run.json`` and ``long_run.png`` to the folder `out`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from lit_aigc.machine.precision import machine_class

POINTS = 120  # measurements over the run
OVERRIDES = (
    "callbacks.generative_metrics.extractor=mnist_classifier", "callbacks.generative_metrics.num_samples=500",
    "trainer.accelerator=cpu", "trainer.devices=1", "budget.samples=null", "budget.batches=null",
    "checkpoint_seconds=20", "log_every=20",
)  # fmt: skip
UNITS = {"memory": "MiB resident", "files": "open files", "threads": "threads", "batch": "ms of CPU per batch, median"}


class Watch(L.Callback):
    """Appends a line of figures to a file every `seconds`.

    Args:
        path: The file, a JSON object a line.
        seconds: Between two lines.
    """

    def __init__(self, path: str, seconds: float) -> None:
        self.path, self.seconds = Path(path), seconds
        self._times: list[float] = []
        self._started = self._last = time.monotonic()

    def on_train_batch_start(self, *args: Any) -> None:
        self._batch_started = time.process_time()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self._times.append(time.process_time() - self._batch_started)
        now = time.monotonic()
        if now - self._last < self.seconds:
            return
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        figures = {
            "minutes": (now - self._started) / 60,
            "memory": int(status["VmRSS"].split()[0]) / 1024,
            "files": len(os.listdir("/proc/self/fd")),
            "threads": int(status["Threads"]),
            "batch": float(np.median(self._times)) * 1000,
            "batches": pl_module.batches,
        }
        with self.path.open("a") as file:
            file.write(json.dumps(figures) + "\n")
        self._last, self._times = now, []


def growth(rows: list[dict[str, float]], name: str) -> dict[str, float]:
    """The figure's median in the third quarter of the run and in the last; of a long run, what that is an hour."""
    n = len(rows)
    earlier, later = (rows[n // 2 : n * 3 // 4], rows[n * 3 // 4 :])
    before, after = (float(np.median([row[name] for row in part])) for part in (earlier, later))
    hours = (np.mean([row["minutes"] for row in later]) - np.mean([row["minutes"] for row in earlier])) / 60
    found = {"third quarter": before, "last quarter": after}
    if rows[-1]["minutes"] >= 20:  # of a shorter run it would be noise
        found["per hour"] = (after - before) / hours
    return {key: round(value, 3) for key, value in found.items()}


def draw(rows: list[dict[str, float]], path: Path, title: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    for index, (name, label) in enumerate(UNITS.items()):
        axes = figure.add_subplot(2, 2, index + 1)
        values = [row[name] for row in rows]
        axes.plot([row["minutes"] for row in rows], values, linewidth=1.2)
        axes.set_ylim(0, max(values) * 1.15)
        axes.set_title(label, loc="left", fontsize=10)
        axes.set_xlabel("minutes", fontsize=9, color="0.35")
        axes.grid(True, color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main(minutes: float, experiment: str, out: Path) -> None:
    print(machine_class())
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        run, lines = Path(name) / "run", Path(name) / "figures.jsonl"
        watch = f"{{_target_: long_run.Watch, path: '{lines}', seconds: {minutes * 60 / POINTS}}}"
        arguments = [f"experiment={experiment}", *OVERRIDES, f"budget.minutes={minutes}", f"run_dir={run}"]
        arguments += [f"validations={max(4, round(minutes * 2))}", f"callbacks.watch={watch}"]
        paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        subprocess.run(
            [sys.executable, "-m", "lit_aigc.train", *arguments],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            check=True,
        )
        rows = [json.loads(line) for line in lines.read_text().splitlines()]
        files = [file for file in run.rglob("*") if file.is_file()]
        found = {
            "experiment": experiment,
            "minutes": minutes,
            "batches": rows[-1]["batches"],
            "growth": {figure: growth(rows, figure) for figure in UNITS},
            "run folder": {"files": len(files), "MiB": round(sum(f.stat().st_size for f in files) / 2**20, 2)},
            "figures": rows,
        }
    (out / "long_run.json").write_text(json.dumps(found, indent=1) + "\n")
    title = f"{experiment}: {found['batches']:,} batches in {minutes:g} minutes"
    draw(rows, out / "long_run.png", title)
    for figure, label in UNITS.items():
        print(f"{label:>20}: " + ", ".join(f"{key} {value:g}" for key, value in found["growth"][figure].items()))
    print(f"{'run folder':>20}: {found['run folder']['files']} files, {found['run folder']['MiB']} MiB")


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    main(
        float(given.pop("minutes", 60)),
        given.pop("experiment", "mlp_gan_mnist5k"),
        Path(given.pop("out", Path(__file__).parent / "results")),
    )
    assert not given, f"unknown: {', '.join(given)}"
