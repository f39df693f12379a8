"""Numbers and budgets of a comparison, for people."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from lit_aigc.media.console import decimals

NOTHING = "—"  # in a cell of the table


def budget_in_words(budget: Mapping[str, float]) -> str:
    """Return ``10 minutes of training, validation included``."""
    words = {"minutes": "{} minutes of training, validation included", "samples": "{} samples", "batches": "{} batches"}
    return " or ".join(words[key].format(f"{value:,.10g}") for key, value in budget.items())


def significant(value: float | None, spread: float | None = None) -> str:
    """Return three significant digits without an exponent; a spread gets as many decimals."""
    if value is None or not math.isfinite(value):
        return NOTHING
    places = decimals(value, 3, most=6)
    return f"{value:,.{places}f}" + ("" if spread is None else f" ± {spread:,.{places}f}")


def mean_and_spread(values: Sequence[float]) -> str:
    """Return ``0.297 ± 0.012``: mean and standard deviation (of n - 1) of several values, or the only value."""
    if not values:
        return NOTHING
    return significant(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
