"""The plan of a search, read from a config and checked before anything trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_aigc.config.compose import compose
from lit_aigc.config.overrides import folder_options, key_of, problems_of_list, problems_of_name
from lit_aigc.errors import InputError, not_whole
from lit_aigc.sweep.sweep_file import OWN_KEYS, Sweep, read_sweep
from lit_aigc.sweep.trials import SweepFolder

if TYPE_CHECKING:
    from lit_aigc.sweep.search import Search

SWEEPS = Path("runs") / "sweeps"
_WITHOUT_EFFECT = ("name", "description", "project", "entity", "program", "run_cap")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is searched, and how each trial is trained.

    Attributes:
        sweep: The search space; its metric is set.
        folder: The folder that records it.
        overrides: Overrides for all trials.
        own_folders: The user's own config folders.
        parallel: Trials at a time.
        seed: Seed of the search.
        asked_count: Number of trials asked for, or None.
        validations: Validations of a whole trial.
    """

    sweep: Sweep
    folder: SweepFolder
    overrides: tuple[str, ...]
    own_folders: tuple[Path, ...]
    parallel: int
    seed: int
    asked_count: int | None
    validations: int = 0

    @classmethod
    def from_config(cls, config: Mapping[str, Any], own_folders: Sequence[Path] = ()) -> Plan:
        """Read the search that a config of ``conf/sweep.yaml`` asks for, and check the config of its first trial.

        Raises:
            InputError: With all problems in one message.
        """
        try:
            import optuna  # noqa: F401
        except ImportError as error:
            raise InputError("lit_aigc.sweep needs optuna: run  pip install 'lit-aigc[sweep]'") from error
        problems = not_whole("parallel", config["parallel"], least=1) + not_whole("seed", config["seed"], least=0)
        problems += [] if config["count"] is None else not_whole("count", config["count"], least=1)
        name = config["name"] or Path(str(config["file"])).stem
        problems += problems_of_name(name)
        problems += problems_of_list(config["overrides"], OWN_KEYS, "budget.samples=20_000")
        if problems:
            raise InputError("\n".join(problems))
        sweep = read_sweep(config["file"])
        searched = {parameter.name for parameter in sweep.parameters} & set(map(key_of, config["overrides"]))
        if searched:
            raise InputError(f"overrides sets {', '.join(sorted(searched))}, which the sweep file searches.")
        content = {key: value for key, value in sweep.content.items() if key not in _WITHOUT_EFFECT}
        asked = {"sweep": content, "overrides": list(config["overrides"]), "seed": config["seed"]}
        folder, overrides = SweepFolder(SWEEPS / name, asked), tuple(config["overrides"])
        plan = cls(sweep, folder, overrides, tuple(own_folders), config["parallel"], config["seed"], config["count"])
        return plan._checked()

    def trial_arguments(self, values: Mapping[str, Any]) -> list[str]:
        """Return the arguments of a trial's training except its run folder; overrides come last and win."""
        return [*folder_options(self.own_folders), *self.sweep.arguments(values), *self.overrides]

    def count(self, search: Search) -> int:
        """Return how many trials the whole search has."""
        return min(n for n in (self.asked_count, self.sweep.run_cap, search.size) if n is not None)

    def recall(self, retry: bool) -> Search:
        """Return the search with everything on record; with `retry`, failed trials run again."""
        from lit_aigc.sweep.search import Search

        search = Search(self.sweep, self.seed)
        for trial in self.folder.trials:
            if retry and trial.status == "failed":
                trial.status, trial.error, trial.curve = "running", None, []
            search.recall(trial)
        return search

    def _checked(self) -> Plan:
        """Return the plan with the metric and the number of validations that the config of a first trial has."""
        first = {p.name: p.grid[0] if p.grid else p.distribution.low for p in self.sweep.parameters}
        config = compose("train", self.trial_arguments(self.sweep.values(first)))
        if self.asked_count is None and self.sweep.run_cap is None and self.sweep.method != "grid":
            raise InputError(f"count= is missing: how many trials of this {self.sweep.method} search?")
        sweep = self.sweep
        if not sweep.metric:
            if not config["monitor"]:
                raise InputError("metric is missing in the sweep file, and the experiment has no monitor.")
            goal = "maximize" if config["monitor_mode"] == "max" else "minimize"
            sweep = dataclasses.replace(sweep, metric=config["monitor"], goal=goal)
        if not config["validations"]:
            raise InputError("validations=0: a search needs the metric that is measured at validation.")
        return dataclasses.replace(self, sweep=sweep, validations=config["validations"])
