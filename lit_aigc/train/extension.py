"""Resume a run under another budget: refuse one that is used up, and report a jump of the learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lit_aigc.callbacks.clock import Budget
from lit_aigc.errors import InputError
from lit_aigc.modules.checkpoint import CHECKPOINT_KEY
from lit_aigc.modules.updates import Recipe


def check_extension(before: Budget, budget: Budget, counters: Mapping[str, Any]) -> None:
    """Refuse a new budget that leaves nothing to train.

    A run that isn't done may be given exactly what it has used: it ends where it is.

    Args:
        before: The budget of the run so far.
        budget: The new budget.
        counters: The counters of its checkpoint.

    Raises:
        InputError: With the limits that are used up.
    """
    if budget == before or _progress(budget, counters) < 1.0:
        return
    done, minutes = _progress(before, counters) >= 1.0, counters["train_seconds"] / 60
    used_up = [
        f"budget.{name}={limit}: the run has {text} already."
        for name, limit, used, text in (
            ("minutes", budget.minutes, minutes, f"trained for {minutes:.2f} minutes"),
            ("samples", budget.samples, counters["samples_seen"], f"seen {counters['samples_seen']} samples"),
            ("batches", budget.batches, counters["batches"], f"trained on {counters['batches']} batches"),
        )
        if limit is not None and (used > limit or (done and used == limit))
    ]
    if used_up:
        raise InputError(
            "\n".join([*used_up, "Nothing was changed. To train longer give more than that, or null for no limit."])
        )


def change_of_rate(checkpoint: Mapping[str, Any], recipe: Recipe, budget: Budget) -> str:
    """Return one line if a new budget changes the learning rate, since schedules run over the budget; else nothing.

    Args:
        checkpoint: The checkpoint that the run resumes from.
        recipe: The recipe, which names the schedule.
        budget: The new budget.
    """
    counters = checkpoint[CHECKPOINT_KEY]["counters"]
    now = _progress(budget, counters)
    factors = [recipe.rate_factor(progress) for progress in (counters["progress"], now)]
    if factors[0] == factors[1]:
        return ""
    groups = [group for state in checkpoint["optimizer_states"] for group in state["param_groups"]]
    base = {group.get("base_lr", group["lr"]) for group in groups}
    old, new = (" and ".join(f"{rate:.3g}" for rate in sorted({factor * rate for rate in base})) for factor in factors)
    return (
        f"The budget has changed, and the learning rate with it: it was {old} and resumes at {new}, where the "
        f"{recipe.schedule} schedule is after {now:.0%} of the new budget."
    )


def _progress(budget: Budget, counters: Mapping[str, Any]) -> float:
    return budget.progress(counters["train_seconds"], counters["samples_seen"], counters["batches"])
