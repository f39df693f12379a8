"""Sweep files of a few lines, and trainings that only write what a training leaves behind."""

from __future__ import annotations

import fcntl
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_aigc.sweep.sweep_file import Sweep, read_sweep

RANDOM = {
    "method": "random",
    "metric": {"name": "elbo", "goal": "maximize"},
    "parameters": {
        "model.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
        "model.width": {"values": [8, 16, 32]},
        "seed": {"value": 3},
    },
}


@pytest.fixture
def sweep_file(tmp_path: Path) -> Callable[..., Path]:
    """``sweep_file(method="grid")``: a sweep file, its keys changed or, by None, left out."""

    def write(**changes: Any) -> Path:
        content = {key: value for key, value in {**RANDOM, **changes}.items() if value is not None}
        (tmp_path / "search.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return tmp_path / "search.yaml"

    return write


@pytest.fixture
def sweep(sweep_file: Callable[..., Path]) -> Callable[..., Sweep]:
    """As `sweep_file`, read."""
    return lambda **changes: read_sweep(sweep_file(**changes))


class Training:
    """What `lit_aigc.sweep.running` sees of a training that measures four times, once a poll.

    Its elbo is best at lr 0.01: ``-(log10(lr) + 2)**2 - 1 / validation``.
    """

    def __init__(self, arguments: list[str], validations: int = 4) -> None:
        options = dict(argument.split("=", 1) for argument in arguments)
        self.folder = Path(options.get("run_dir") or options["resume"])
        self.resumed = "resume" in options
        self.validations = validations
        if self.resumed:
            options = yaml.safe_load((self.folder / "config.yaml").read_text())
        self.options = options
        self.lr = float(options["model.lr"])
        self.terminated = False
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / ".lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(options))
        self.metrics = self.folder / "metrics.csv"
        if not self.metrics.exists():
            self.metrics.write_text("samples_seen,elbo\n")
        self.code: int | None = None

    @property
    def measured(self) -> int:
        return len(self.metrics.read_text().splitlines()) - 1

    def poll(self) -> int | None:
        if self.code is not None:
            return self.code
        if self.terminated:
            return self.leave(75, "paused")
        step = self.measured + 1
        value = self.elbo(step)
        self.metrics.write_text(self.metrics.read_text() + f"{10 * step},{value!r}\n")
        if step == self.validations:
            return self.leave(0, "done", elbo=value)
        return None

    def elbo(self, step: int) -> float:
        return -((math.log10(self.lr) + 2) ** 2) - 1 / step

    def leave(self, code: int, status: str, **results: Any) -> int:
        told = {"status": status, "samples_seen": 10 * self.measured, "train_seconds": 1.5, **results}
        (self.folder / "summary.json").write_text(json.dumps(told))
        self.code = code
        self.free()
        return code

    def free(self) -> None:
        self._lock.close()

    def terminate(self) -> None:
        self.terminated = True


@pytest.fixture
def training() -> type[Training]:
    """The class of trainings that only write what a training leaves behind."""
    return Training
