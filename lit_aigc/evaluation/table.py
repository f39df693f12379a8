"""What an evaluation shows on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from lit_aigc.evaluation.baseline import table_of
from lit_aigc.report import print_results


def print_evaluation(results: Mapping[str, Any], paths: Mapping[str, str | Path]) -> None:
    """The numbers, a FID of too few images marked as biased; then the comparison, if there is one, and the paths."""
    biased = {f"fid_{name}" for name, facts in results["protocol"].items() if facts.get("biased")}
    shown = {f"{key} (biased)" if key in biased else key: value for key, value in results.items()}
    comparison = shown.pop("comparison", None)
    print_results(shown, paths)
    if comparison:
        Console().print(table_of(comparison))
