"""Records of runs: for each one small JSON file, and a row of its samples as a picture."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_aigc import __version__
from lit_aigc.compare.plan import Comparison
from lit_aigc.errors import InputError
from lit_aigc.files import read_yaml
from lit_aigc.machine.cores import core_count, cpu_name
from lit_aigc.media.console import HIDDEN, RUN_FACTS

CODE = ("lit_aigc", "conf")  # a result depends on these: commits of anything else leave it valid
ROOT = Path(__file__).resolve().parents[2]
SAMPLES = 20  # in the row of samples


def describe_run(run_dir: Path, summary: Mapping[str, Any], out: Path, identity: str) -> dict[str, Any]:
    """Return the results of a finished or failed run for its record.

    If the model makes images, also write a row of samples to ``<out>/<identity>.png`` and, once for all runs, a row of
    real images.

    Args:
        run_dir: The run folder; missing if the run could not start.
        summary: Its ``summary.json``; empty for a run that could not start or was killed.
        out: Folder of the records.
        identity: Name of the run.
    """
    config = read_yaml(run_dir / "config.yaml") if summary else {}
    facts = {key: summary.get(key) for key in RUN_FACTS if key not in ("status", "error", "seed", "startup_seconds")}
    metrics = {
        key: finite(value)
        for key, value in summary.items()
        if key not in RUN_FACTS and key not in HIDDEN and isinstance(value, int | float)
    }
    return {
        "monitor": config.get("monitor"),
        "monitor_mode": config.get("monitor_mode"),
        "metrics": metrics,
        "protocol": summary.get("protocol", {}),
        **facts,
        "curve": _curve(run_dir / "metrics.csv"),
        **(_rows_of_images(run_dir, config, out, identity) if (run_dir / "bundle").exists() else {}),
        "machine": _machine(),
        "run_dir": str(run_dir),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def finite(value: Any) -> float | None:
    """Return a finite number as it is, None for anything else, which a JSON file can't hold as a number."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _curve(path: Path) -> dict[str, list[float | None]]:
    """Return a column per metric at the validations, besides ``train_seconds`` and ``samples_seen``."""
    from lit_aigc.loggers.csv import STEP, read_metrics

    columns = read_metrics(path) if path.exists() else {}
    if "train_seconds" not in columns:
        return {}
    steps, seconds = columns.pop("train_seconds")
    curve: dict[str, list[float | None]] = {"train_seconds": seconds, STEP: steps}
    for name, (places, values) in columns.items():
        if not name.startswith("train/"):
            at = dict(zip(places, values, strict=True))
            curve[name] = [finite(at.get(step)) for step in steps]
    return curve


def _rows_of_images(run_dir: Path, config: Mapping[str, Any], out: Path, identity: str) -> dict[str, str]:
    """Write samples, and real images of the same classes, as one row each without gaps; return the file names."""
    from lit_aigc.build import instantiate
    from lit_aigc.media.images import first_images, make_grid, save_png, to_uint8
    from lit_aigc.media.modality import of_modality
    from lit_aigc.noise import Noise
    from lit_aigc.runs.bundle import load_bundle

    try:
        bundle = load_bundle(run_dir / "bundle", config["trust"])
        spec = bundle.spec
        if not of_modality("media", spec.modality).PICTURES:
            return {}
        samples = bundle.module.sample(SAMPLES, noise=Noise(0))
    except InputError:  # a classifier, or a user's own class that isn't trusted
        return {}
    save_png(make_grid(to_uint8(samples, spec.value_range), SAMPLES, padding=0), out / f"{identity}.png")
    real = out / f"real.{spec.name or 'data'}.{spec.fingerprint[:8]}.png"
    if not real.exists():
        classes = [place % spec.num_classes for place in range(SAMPLES)] if spec.num_classes else None
        row, _ = first_images(instantiate(config["data"]).real_batches("val"), SAMPLES, spec.shape, classes)
        save_png(make_grid(row, SAMPLES, padding=0), real)
    return {"data": spec.name, "samples": f"{identity}.png", "real": real.name}


def _machine() -> dict[str, Any]:
    import torch

    from lit_aigc.machine.precision import bf16_slowdown

    return {
        "cpu": cpu_name(),
        "cores": core_count(),
        "threads": torch.get_num_threads(),
        "bf16_slowdown": round(bf16_slowdown(), 2),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def newest_records(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the newest record of each experiment and seed with this budget and these overrides, of any commit.

    Raises:
        InputError: If an experiment has none.
    """
    newest: dict[tuple[str, int], dict[str, Any]] = {}
    for record in sorted(map(read_record, comparison.out.glob("*.json")), key=lambda record: record["date"]):
        wanted = record["experiment"] in comparison.experiments
        wanted = wanted and (comparison.seeds is None or record["seed"] in comparison.seeds)
        same = record["budget"] == comparison.budget and tuple(record["overrides"]) == comparison.overrides
        if wanted and same:
            newest[record["experiment"], record["seed"]] = record
    missing = [name for name in comparison.experiments if name not in {experiment for experiment, _ in newest}]
    if missing:
        raise InputError(
            f"{comparison.out} has no record of {', '.join(missing)} with this budget and these overrides: leave "
            "report_only out to train, or leave these experiments out."
        )
    return list(newest.values())


def read_record(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        InputError: If the file is not a record.
    """
    try:
        record = json.loads(path.read_text())
        missing = [key for key in ("experiment", "seed", "budget", "overrides", "status", "date") if key not in record]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} can't be read ({error}): delete it, and its run is repeated.") from error
    if missing:
        raise InputError(f"{path} is not a record ({', '.join(missing)} missing): delete it, or give another out=.")
    return record


def code_version(own_folders: Sequence[Path] = (), root: Path = ROOT) -> str:
    """Return the last commit that changed the code or its configs; outside a git checkout, the package's version.

    Uncommitted changes, and the user's own config folders, add ``+`` and four digits that tell their states apart.

    Args:
        own_folders: The user's own config folders.
        root: The folder of ``lit_aigc/`` and ``conf/``.
    """
    version = _git(root, "log", "-1", "--format=%h", "--abbrev=7", "--", *CODE).decode().strip()
    others = [file for folder in own_folders for file in sorted(folder.rglob("*.yaml"))]
    changes = b""
    if version:
        changes = _git(root, "diff", "HEAD", "--", *CODE)
        new = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *CODE).decode().split("\0")
        others += [root / name for name in new if name]
    for file in others:
        changes += file.name.encode() + file.read_bytes()
    return (version or __version__) + (f"+{hashlib.blake2b(changes).hexdigest()[:4]}" if changes else "")


def _git(root: Path, *arguments: str) -> bytes:
    """Return git's output; nothing without git or a repository."""
    try:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return b""
