"""What ``lit_aigc.sweep`` is asked for, checked before anything trains."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_aigc.config.compose import compose
from lit_aigc.config.overrides import key_of
from lit_aigc.errors import InputError, not_whole
from lit_aigc.sweep.sweep_file import Sweep, read_sweep
from lit_aigc.sweep.trials import SweepFolder

if TYPE_CHECKING:
    from lit_aigc.sweep.search import Search

SWEEPS = Path("runs") / "sweeps"
_WITHOUT_EFFECT = ("name", "description", "project", "entity", "program", "run_cap")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A search.

    Attributes:
        sweep: What is searched; its metric is set.
        folder: Where it is recorded.
        overrides: For all trials.
        own_folders: Config folders of the user's own.
        parallel: Trials at a time.
        seed: Of the search.
        validations: Of a whole trial.
        asked_count: Trials that are asked for, or None.
    """

    sweep: Sweep
    folder: SweepFolder
    overrides: tuple[str, ...]
    own_folders: tuple[Path, ...]
    parallel: int
    seed: int
    validations: int
    asked_count: int | None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], own_folders: Sequence[Path] = ()) -> Plan:
        """The search that ``conf/sweep.yaml`` asks for, its first trial's config composed and checked.

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
        if not re.fullmatch(r"[\w.-]+", name):
            problems.append(f"name={name}: expected letters, digits, _ . and - only; a folder is named by it.")
        for override in config["overrides"]:
            if not isinstance(override, str) or "=" not in override:
                problems.append(f"overrides has {override!r}: expected key=value, as in [budget.samples=20_000].")
            elif key_of(override).partition(".")[0] in ("run_dir", "resume", "pause_after"):
                problems.append(f"overrides can't set {key_of(override)}: it is given for each trial.")
        if problems:
            raise InputError("\n".join(problems))
        sweep = read_sweep(config["file"])
        searched = {parameter.name for parameter in sweep.parameters} & set(map(key_of, config["overrides"]))
        if searched:
            raise InputError(f"overrides sets {', '.join(sorted(searched))}, which the sweep file searches.")
        content = {key: value for key, value in sweep.content.items() if key not in _WITHOUT_EFFECT}
        asked = {"sweep": content, "overrides": list(config["overrides"]), "seed": config["seed"]}
        plan = cls(
            sweep,
            SweepFolder(SWEEPS / name, asked),
            tuple(config["overrides"]),
            tuple(own_folders),
            config["parallel"],
            config["seed"],
            0,
            config["count"],
        )
        return plan._checked()

    def trial_arguments(self, values: Mapping[str, Any]) -> list[str]:
        """The arguments of a trial's training but for its run folder; overrides come last and win."""
        return [*self.folder_options(), *self.sweep.arguments(values), *self.overrides]

    def folder_options(self) -> list[str]:
        """The user's own config folders, for another command."""
        return [f"--config-dir={folder.resolve()}" for folder in self.own_folders]

    def count(self, search: Search) -> int:
        """How many trials there are to be in all."""
        limits = [n for n in (self.asked_count, self.sweep.run_cap, search.size) if n is not None]
        return min(limits)

    def recall(self, retry: bool) -> Search:
        """The search with all that is on record; with `retry`, what failed is to be run again."""
        from lit_aigc.sweep.search import Search

        search = Search(self.sweep, self.seed)
        for trial in self.folder.trials:
            if retry and trial.status == "failed":
                trial.status, trial.error, trial.curve = "running", None, []
            search.recall(trial)
        return search

    def _checked(self) -> Plan:
        """With the metric and the number of validations that the config of a first trial has."""
        first = self.sweep.values(
            {
                parameter.name: parameter.grid[0] if parameter.grid else parameter.distribution.low
                for parameter in self.sweep.parameters
            }
        )
        config = compose("train", self.trial_arguments(first))
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
