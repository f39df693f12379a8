"""Learning-rate schedules at their corners."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_aigc.optimization.schedules import SCHEDULES, schedule


@pytest.mark.parametrize(
    ("name", "progress", "options", "expected"),
    [
        ("constant", 0.0, {}, 1.0),
        ("constant", 1.0, {"final": 0.1}, 1.0),
        ("linear", 0.0, {}, 1.0),
        ("linear", 0.25, {}, 0.75),
        ("linear", 1.0, {}, 0.0),
        ("linear", 1.0, {"final": 0.1}, 0.1),
        ("linear", 0.5, {"final": 0.2}, 0.6),
        ("cosine", 0.0, {}, 1.0),
        ("cosine", 0.5, {}, 0.5),
        ("cosine", 1 / 3, {}, 0.75),
        ("cosine", 1.0, {"final": 0.1}, 0.1),
        ("constant", 0.0, {"warmup": 0.2}, 0.0),
        ("constant", 0.05, {"warmup": 0.2}, 0.25),
        ("constant", 0.2, {"warmup": 0.2}, 1.0),
        ("linear", 0.2, {"warmup": 0.2}, 1.0),
        ("linear", 0.6, {"warmup": 0.2}, 0.5),
        ("cosine", 0.6, {"warmup": 0.2, "final": 0.5}, 0.75),
        ("cosine", 1.5, {}, 0.0),
    ],
)
def test_values(name, progress, options, expected):
    assert schedule(name, progress, **options) == pytest.approx(expected, abs=1e-12)


@given(
    name=st.sampled_from(list(SCHEDULES)),
    progress=st.floats(0, 1),
    warmup=st.floats(0, 0.99),
    final=st.floats(0, 1),
)
def test_factors_stay_between_0_and_1(name, progress, warmup, final):
    factor = schedule(name, progress, warmup, final)
    assert -1e-12 <= factor <= 1 + 1e-12
    if progress >= warmup:
        assert factor >= min(final, 1.0) - 1e-12
