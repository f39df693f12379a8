"""Runs and bundles of older commits go on, load and sample as they did then; see ``tests/fixtures/make_runs.py``."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_aigc.config.compose import load
from lit_aigc.noise import Noise
from lit_aigc.runs.bundle import load_bundle
from lit_aigc.spec import Condition
from lit_aigc.train.run import train
from tests.fixtures.make_runs import CHECKPOINT, CORPUS, FOLDER, RUNS, described, figures

FIXTURES = [f"{commit}/{name}" for commit, runs in RUNS.items() for name in runs]
RELATIVE, ABSOLUTE = 1e-4, 1e-5  # CPUs of different kinds differ in the last bits, and training enlarges that


@pytest.fixture(autouse=True)
def started_where_the_old_run_was(tmp_path, monkeypatch) -> Iterator[None]:
    """Among the files that its config names, and without a process group that would stay for later tests."""
    shutil.copy(FOLDER / CORPUS, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "disabled")  # the logger is built and told all, and no process of W&B is started
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # torch.distributed replaces it
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def expected(fixture: str) -> dict[str, Any]:
    return json.loads((FOLDER / fixture / "expected.json").read_text())


def samples_of(bundle: Path) -> Any:
    return described(load_bundle(bundle).module, Noise(0), Condition)


def assert_weights(found: dict[str, list[float]], then: dict[str, list[float]]) -> None:
    """Sums are as close as the sums of sizes, which don't cancel out, allow."""
    assert found.keys() == then.keys()
    for name, (total, size) in then.items():
        assert found[name] == pytest.approx([total, size], rel=0, abs=ABSOLUTE + RELATIVE * size), name


def assert_samples(found: list[Any], then: list[Any]) -> None:
    """Tokens are the same; of images, mean and deviation are close."""
    if isinstance(then[0][0], int):
        assert found == then
    else:
        assert found == [pytest.approx(image, rel=RELATIVE, abs=ABSOLUTE) for image in then]


@pytest.mark.parametrize("fixture", FIXTURES)
def test_an_old_run_goes_on_to_where_it_went_then(fixture, tmp_path):
    run, then = tmp_path / fixture.partition("/")[2], expected(fixture)
    shutil.copytree(FOLDER / fixture / "run", run)
    (run / "checkpoints" / CHECKPOINT).rename(run / "checkpoints/last.ckpt")
    finished = train(load("train", [f"resume={run.name}"]))
    assert (finished.exit_code, finished.module.batches) == (0, then["summary"]["batches"])
    now = figures(run, samples_of(run / "bundle"))
    assert_weights(now["weights"], then["weights"])
    assert {key: now["summary"].get(key) for key in then["summary"]} == {
        key: pytest.approx(value, rel=RELATIVE, abs=ABSOLUTE) for key, value in then["summary"].items()
    }
    assert_samples(now["samples"], then["samples"])


@pytest.mark.parametrize("fixture", FIXTURES)
def test_an_old_bundle_gives_the_samples_that_it_gave_then(fixture):
    assert_samples(samples_of(FOLDER / fixture / "bundle"), expected(fixture)["samples"])
