"""What a run folder has for the page of its bundle: pictures, and the curves of the training."""

from __future__ import annotations

from pathlib import Path

from lit_aigc.evaluation.charts import Curve


def run_pictures(bundle: str | Path) -> dict[str, bytes]:
    """The last grid of samples (``samples``) and the nearest training images (``neighbours``), where they are there.

    Args:
        bundle: A bundle, in a run folder or elsewhere.
    """
    samples = Path(bundle).absolute().parent / "samples"
    grids = sorted(path for path in samples.glob("*.png") if path.stem.isdecimal())
    chosen = {"samples": grids[-1:], "neighbours": [samples / "neighbours.png"]}
    return {name: path.read_bytes() for name, paths in chosen.items() for path in paths if path.is_file()}


def run_curves(bundle: str | Path) -> dict[str, Curve]:
    """The curves in ``metrics.csv`` of the run folder that a bundle lies in; none where there is no such file."""
    metrics = Path(bundle).absolute().parent / "metrics.csv"
    if not metrics.is_file():
        return {}
    from lit_aigc.metrics_csv import read_metrics

    return read_metrics(metrics)
