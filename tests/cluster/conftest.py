"""SLURM for the tests that need it, and the runs that all launchers must equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.node import Slurm, missing, started
from tests.cluster.runs import arguments, train


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A SLURM of two nodes."""
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    with started(folder) as slurm:
        yield slurm


@pytest.fixture(scope="session")
def wanted(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Callable[[str], Path]:
    """``wanted(family)``: the run folder of that training on two processes that the Trainer started."""
    runs: dict[str, Path] = {}

    def run(family: str) -> Path:
        if family not in runs:
            folder = tmp_path_factory.mktemp(family)
            train(folder, *arguments(tiny, family, f"run_dir={folder}/run", "trainer.devices=2"))
            runs[family] = folder / "run"
        return runs[family]

    return run
