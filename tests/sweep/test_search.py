"""The search: what it draws is a function of what is on record; it finds; it gives up what Optuna would."""

from __future__ import annotations

import math

import optuna
import pytest

from lit_aigc.sweep.search import Search
from lit_aigc.sweep.trials import Trial

HALVING = {"type": "hyperband", "min_iter": 1, "eta": 2}


def run(sweep, count, seed=0, value=lambda v: -((math.log10(v["model.lr"]) + 2) ** 2)):
    """Trials one after another, each done at once."""
    search, trials = Search(sweep, seed), []
    for number in range(count):
        drawn = search.propose(number)
        values = sweep.values(drawn)
        trials.append(Trial(number, drawn, values, "done", value(values)))
        search.finish(trials[-1])
    return trials


def test_a_random_search_is_a_function_of_seed_and_number(sweep):
    first, again, other = (run(sweep(), 6, seed) for seed in (0, 0, 1))
    assert [t.drawn for t in first] == [t.drawn for t in again]
    assert [t.drawn for t in first] != [t.drawn for t in other]
    assert len({t.values["model.lr"] for t in first}) == 6


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_search_that_was_broken_off_goes_on_as_if_nothing_had_happened(sweep, method):
    plan = sweep(method=method)
    whole = run(plan, 16)
    search = Search(plan, 0)
    for trial in whole[:13]:
        search.recall(trial)
    assert search.propose(13) == whole[13].drawn


def test_a_grid_is_gone_through_in_order(sweep):
    plan = sweep(method="grid", parameters={"a": {"values": ["x", "y"]}, "b": {"values": [1, 2]}})
    search = Search(plan, 0)
    assert search.size == 4
    assert [plan.values(search.propose(k)) for k in range(4)] == [{"a": a, "b": b} for a in "xy" for b in (1, 2)]


def test_bayes_does_better_than_random(sweep):
    best = {method: [] for method in ("random", "bayes")}
    for seed in range(5):
        for method in best:
            best[method].append(max(t.value for t in run(sweep(method=method), 30, seed)[10:]))
    assert sum(best["bayes"]) > sum(best["random"])


def test_bayes_keeps_away_from_where_trials_fail(sweep):
    """Learning rates above 0.01 diverge; what is best lies just below."""

    def share_that_fails(status):
        plan, search, failed = sweep(method="bayes"), None, 0
        search = Search(plan, 0)
        for number in range(60):
            drawn = search.propose(number)
            lr = plan.values(drawn)["model.lr"]
            fails = lr > 0.01
            failed += fails and number >= 20
            if fails and status is None:
                continue  # as if nothing were told
            search.finish(Trial(number, drawn, {}, "failed" if fails else "done", None if fails else lr))
        return failed / 40

    assert share_that_fails("failed") < share_that_fails(None)


def curves():
    values = [(3, 5, 6, 9), (4, 6, 7, 8), (1, 2, 3, 4), (5, 7, 9, 9), (2, 9, 9, 9), (5, 6, 9, 9), (4.5, 8, 8, 8)]
    return [tuple(map(float, curve)) for curve in values]


def test_trials_are_given_up_as_by_asynchronous_successive_halving(sweep):
    """By hand: at 1, 2, 4, ... values a trial goes on if it is among the best half of those that got there, itself
    included, or the best of fewer than two."""
    search = Search(sweep(early_terminate=HALVING), 0)
    seen = {1: [], 2: [], 4: []}
    for number, curve in enumerate(curves()):
        search.propose(number)
        for step, value in enumerate(curve, 1):
            expected = False
            if step in seen:
                seen[step].append(value)
                best = sorted(seen[step], reverse=True)[: max(1, len(seen[step]) // 2)]
                expected = value not in best
            assert search.report(number, step, value) == expected, (number, step)
            if expected:
                break


def test_what_is_on_record_counts_for_halving(sweep):
    plan = sweep(early_terminate=HALVING)

    def answers(resumed):
        search = Search(plan, 0)
        for number, curve in enumerate(curves()[:4]):
            drawn = search.propose(number)
            if resumed is None:
                for step, value in enumerate(curve, 1):
                    search.report(number, step, value)
                search.finish(Trial(number, drawn, {}, "done", curve[-1], list(curve)))
            else:
                resumed.append(Trial(number, drawn, {}, "done", curve[-1], list(curve)))
        if resumed is not None:
            search = Search(plan, 0)
            for trial in resumed:
                search.recall(trial)
        search.propose(4)
        return [search.report(4, 1, value) for value in (4.4,)] + [search.report(4, 2, 5.5)]

    assert answers(None) == answers([]) == [False, True]


def test_a_running_trial_that_is_recalled_goes_on(sweep):
    plan = sweep(early_terminate=HALVING)
    search = Search(plan, 0)
    drawn = Search(plan, 0).propose(0)
    search.recall(Trial(0, drawn, {}, "running", None, [1.0, 2.0]))
    assert search.report(0, 3, 2.5) is False
    search.finish(Trial(0, drawn, {}, "done", 2.5))


def test_every_status_has_a_state_of_optunas():
    from lit_aigc.sweep.search import STATES

    assert set(STATES) == {"done", "pruned", "failed"}
    assert all(state.is_finished() for state in STATES.values())
    assert STATES["done"] is optuna.trial.TrialState.COMPLETE
