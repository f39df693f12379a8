"""Records of runs that never were, with numbers that can be checked by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_aigc.compare.plan import Comparison

KEY = "fid_mnist_classifier"


@pytest.fixture
def made_up() -> Callable[..., dict[str, Any]]:
    """``made_up("a_mnist", seed=1, value=3.0)``: the record of a run that is done, with a floor of 0.5."""

    def record(experiment: str, seed: int = 0, value: float | None = 2.0, **more: Any) -> dict[str, Any]:
        return {
            "experiment": experiment,
            "seed": seed,
            "commit": "1234567",
            "budget": {"minutes": 10},
            "overrides": [],
            "status": "done",
            "exit_code": 0,
            "monitor": KEY,
            "monitor_mode": "min",
            "metrics": {KEY: value, "fid_floor_mnist_classifier": 0.5, "accuracy_mnist_classifier": 0.875},
            "protocol": {"mnist_classifier": {"n_fake": 5000, "n_real": 30000, "extractor_hash": "ab"}},
            "samples_seen": 100000 + seed,
            "samples_per_second": 200.0,
            "train_seconds": 600.0,
            "curve": {"train_seconds": [300.0, 600.0], "samples_seen": [50000, 100000], KEY: [2 * value, value]}
            if value is not None
            else {},
            "machine": {"cpu": "A CPU", "cores": 2, "gpu": None, "torch": "2.14.1"},
            "date": f"2026-01-0{seed + 1}T00:00:00+00:00",
            **more,
        }

    return record


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Comparison]:
    """``plan("a_mnist", "b_mnist")``: a comparison of ten minutes with records in the test's own folder."""

    def comparison(*experiments: str, **more: Any) -> Comparison:
        return Comparison(experiments, **{"seeds": None, "budget": {"minutes": 10}, "out": tmp_path, **more})

    return comparison
