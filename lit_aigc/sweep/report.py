"""The results of a search: a table, a picture, and the best config as an experiment."""

from __future__ import annotations

import csv
import io
import shlex
from typing import Any

from lit_aigc.config.compose import compose
from lit_aigc.config.keys import get, put
from lit_aigc.config.overrides import choices, config_folder, folder_options, groups_in, key_of
from lit_aigc.files import write_atomically
from lit_aigc.machine.lock import is_held
from lit_aigc.media.console import duration, print_in_full, table
from lit_aigc.sweep.picture import draw_search
from lit_aigc.sweep.plan import Plan
from lit_aigc.sweep.running import too_many_failures
from lit_aigc.sweep.trials import Trial, best_trial, short, shortened

SHOWN = 30  # trials in the printed table
_NOT_OF_THE_RESULT = ("run_dir", "logger")  # where a trial was recorded


class Report:
    """Reports on the trials on record: table, picture and best config.

    Args:
        plan: What was searched; its folder has the trials.

    Attributes:
        trials: The best first: done ones, then pruned, running or paused, and failed ones.
        best: The best trial that is done, or None.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.sweep, self.folder = plan, plan.sweep, plan.folder
        self.best = best_trial(self.folder.trials, self.sweep)
        self.trials = sorted(self.folder.trials, key=self._place)

    def status(self, trial: Trial) -> str:
        """Return a trial's status on record; ``paused`` if it was interrupted: the same command resumes it."""
        interrupted = trial.status == "running" and not is_held(self.folder.run_dir(trial))
        return "paused" if interrupted else trial.status

    def _place(self, trial: Trial) -> tuple[int, float, int]:
        order = ("done", "pruned", "running", "failed").index(trial.status)
        sign = 1 if self.sweep.goal == "minimize" else -1
        return order, 0.0 if trial.value is None else sign * trial.value, trial.number

    def show(self) -> None:
        """Print the table, why trials failed, and how to train the best."""
        names = [parameter.name for parameter in self.sweep.parameters]
        arrow = "↓" if self.sweep.goal == "minimize" else "↑"
        heads = ("trial", f"{self.sweep.metric} {arrow}", *shortened(names), "status", "validations", "time")
        rows = [
            [
                str(trial.number),
                "—" if trial.value is None else f"{trial.value:.5g}",
                *(short(trial.values[name]) for name in names),
                self.status(trial),
                str(len(trial.curve)),
                "—" if trial.train_seconds is None else duration(trial.train_seconds),
            ]
            for trial in self.trials[:SHOWN]
        ]
        console = print_in_full(table(heads, rows, left=("status",)))
        if len(self.trials) > SHOWN:
            console.print(f"and {len(self.trials) - SHOWN} more in {self.folder.path / 'table.csv'}")
        for trial in self.trials:
            if trial.error:
                console.print(f"trial {trial.number} failed: {trial.error}", markup=False, soft_wrap=True)
        if too_many_failures(self.trials):
            console.print(f"Nothing succeeded, so no more were started: see {self.folder.path / 'trials'}/*.log")

    def write(self) -> None:
        """Write ``table.csv``, ``search.png`` and ``conf/experiment/best.yaml``, and print where they are."""
        print(f"table    {write_atomically(self.folder.path / 'table.csv', self.table())}")
        if any(trial.value is not None for trial in self.trials):
            print(f"picture  {draw_search(self, self.folder.path / 'search.png')}")
        if self.best:
            folder = self.folder.path / "conf"
            write_atomically(folder / "experiment" / "best.yaml", self.experiment())
            options = [*folder_options(self.plan.own_folders), f"--config-dir={folder}"]
            print(f"best     {shlex.join(['python', '-m', 'lit_aigc.train', *options, 'experiment=best'])}")

    def table(self) -> str:
        """Return all trials by number, as CSV."""
        text = io.StringIO()
        names = [parameter.name for parameter in self.sweep.parameters]
        writer = csv.writer(text, lineterminator="\n")
        facts = ("samples_seen", "train_seconds", "error")
        writer.writerow(["trial", "status", self.sweep.metric, *names, "validations", *facts, "run_dir"])
        for trial in self.folder.trials:
            values = [trial.values[name] for name in names]
            rest = [getattr(trial, fact) for fact in facts]
            row = [trial.number, self.status(trial), trial.value, *values, len(trial.curve), *rest]
            writer.writerow([*row, self.folder.run_dir(trial)])  # None is an empty cell
        return text.getvalue()

    def experiment(self) -> str:
        """Return the best trial as the text of an experiment: its settings, on top of the experiment that it ran."""
        import yaml

        assert self.best
        arguments = self.plan.trial_arguments(self.best.values)
        config = compose("train", arguments)
        groups = groups_in([config_folder(), *self.plan.own_folders])
        overrides = [word for word in arguments if not word.startswith("-")]
        keys = [key for key in map(key_of, overrides) if key.partition(".")[0] not in _NOT_OF_THE_RESULT]
        chosen = choices([], overrides)
        defaults: list[Any] = [] if config["experiment"] in (None, "null") else [config["experiment"]]
        for group in dict.fromkeys(key for key in keys if key in groups and key != "experiment"):
            defaults.append({f"override /{group}": None if chosen[group] == "null" else chosen[group]})
        settings: dict[str, Any] = {}
        for key in dict.fromkeys(keys):
            if key not in groups:
                put(settings, key, get(config, key))
        best = f"{self.sweep.metric} {self.best.value:.6g}, trial {self.best.number} of {len(self.trials)}"
        body = yaml.safe_dump({"defaults": [*defaults, "_self_"], **settings}, sort_keys=False)
        return f"# @package _global_\n# the best of the sweep {self.folder.path.name}: {best}\n{body}"
