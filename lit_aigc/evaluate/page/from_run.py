"""What a run folder has for the page of its bundle: the curves of the training."""

from __future__ import annotations

from pathlib import Path

from lit_aigc.evaluate.page.charts import Curve


def run_curves(bundle: str | Path) -> dict[str, Curve]:
    """The curves in ``metrics.csv`` of the run folder that a bundle lies in; none where there is no such file."""
    metrics = Path(bundle).absolute().parent / "metrics.csv"
    if not metrics.is_file():
        return {}
    from lit_aigc.loggers.csv import read_metrics

    return read_metrics(metrics)
