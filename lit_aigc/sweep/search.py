"""Choose what to try next and what to prune, by Optuna in memory; each start reads the record to it again.

No random state is kept: trial k of a random search is a function of (seed, k); in a Bayesian search, also of the trials
known so far. So an interrupted search resumes as if nothing had happened.
"""

from __future__ import annotations

import hashlib
from typing import Any

import optuna

from lit_aigc.sweep.parameters import Drawn
from lit_aigc.sweep.sweep_file import Sweep
from lit_aigc.sweep.trials import Trial

STATES = {
    "done": optuna.trial.TrialState.COMPLETE,
    "pruned": optuna.trial.TrialState.PRUNED,
    # So that a Bayesian search keeps away from there; Optuna ignores trials that are reported as failed.
    "failed": optuna.trial.TrialState.PRUNED,
}


class Search:
    """A search by Optuna: random, over a grid, or by tree-structured Parzen estimators (TPE), with successive halving.

    Sources: Bergstra et al., "Algorithms for hyper-parameter optimization", 2011, for TPE; Li et al., "A system for
    massively parallel hyperparameter tuning", 2020, for asynchronous successive halving.

    Args:
        sweep: The search space.
        seed: Seed of the search.

    Attributes:
        size: The number of points of a grid; None for other methods.
    """

    def __init__(self, sweep: Sweep, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sweep, self._seed = sweep, seed
        self._space = {parameter.name: parameter.distribution for parameter in sweep.parameters}
        self._grid = sweep.grid() if sweep.method == "grid" else None
        self.size = None if self._grid is None else len(self._grid)
        pruner: Any = optuna.pruners.NopPruner()
        if halving := sweep.halving:
            pruner = optuna.pruners.SuccessiveHalvingPruner(halving.min_iter, halving.eta)
        self._study = optuna.create_study(direction=sweep.goal, pruner=pruner)
        self._trials: dict[int, optuna.trial.Trial] = {}

    def propose(self, number: int) -> dict[str, Drawn]:
        """Return the draws of a new trial, by the name of each parameter."""
        if self._grid is not None:
            return self._take(number, self._grid[number])
        seed = int.from_bytes(hashlib.blake2b(f"{self._seed}/{number}".encode(), digest_size=4).digest(), "little")
        kind = optuna.samplers.TPESampler if self._sweep.method == "bayes" else optuna.samplers.RandomSampler
        self._study.sampler = kind(seed=seed)
        return self._take(number)

    def recall(self, trial: Trial) -> None:
        """Take in a trial that is on record."""
        self._take(trial.number, trial.drawn)
        for step, value in enumerate(trial.curve, 1):
            self.report(trial.number, step, value)
        if trial.status != "running":
            self.finish(trial)

    def report(self, number: int, step: int, value: float) -> bool:
        """Take in a running trial's `step`-th value of the metric, from 1 on; return whether to prune the trial."""
        trial = self._trials[number]
        trial.report(value, step)
        return trial.should_prune()

    def finish(self, trial: Trial) -> None:
        """Take in how a trial ended."""
        value = trial.value if trial.status == "done" else None
        self._study.tell(self._trials.pop(trial.number), value, STATES[trial.status])

    def _take(self, number: int, drawn: dict[str, Drawn] | None = None) -> dict[str, Drawn]:
        if drawn is not None:
            self._study.sampler = optuna.samplers.RandomSampler(seed=0)  # draws nothing: all is given
            self._study.enqueue_trial(drawn)
        self._trials[number] = self._study.ask(self._space)
        return dict(self._trials[number].params)
