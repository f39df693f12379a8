"""The options that all families share."""

from __future__ import annotations

import pytest

from lit_aigc.errors import InputError
from lit_aigc.modules.updates import Recipe


def test_all_wrong_options_are_reported_at_once():
    with pytest.raises(InputError) as error:
        Recipe(schedule="cosin", warmup=1.0, clip_norm=0.0, accumulate=0, ema_decay=1.0, ema_every=0)
    lines = str(error.value).splitlines()
    assert lines[:-1] == [
        "recipe.warmup=1.0: expected a share in [0, 1)",
        "recipe.clip_norm=0.0: expected a positive number or null",
        "recipe.accumulate=0: expected at least 1",
        "recipe.ema_decay=1.0: expected a number in [0, 1)",
        "recipe.ema_every=0: expected at least 1",
    ]
    assert lines[-1] == "unknown schedule 'cosin', did you mean 'cosine'?"


def test_the_rate_follows_the_schedule_and_its_options():
    recipe = Recipe(schedule="linear", warmup=0.2, final=0.5)
    assert [recipe.rate_factor(progress) for progress in (0.0, 0.1, 0.2, 0.6, 1.0)] == [0.0, 0.5, 1.0, 0.75, 0.5]
