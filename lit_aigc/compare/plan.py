"""The plan of a comparison, read from a config and checked before anything trains."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_aigc.build import did_you_mean
from lit_aigc.config.compose import compose
from lit_aigc.config.keys import get
from lit_aigc.config.overrides import config_folder, folder_options, members, problems_of_list, problems_of_name
from lit_aigc.errors import InputError, check

_MEASURES = "callbacks.generative_metrics"
_UNITS = {"minutes": "min", "samples": "samples", "batches": "batches"}
_OWN_KEYS = ("experiment", "seed", "run_dir", "resume", "budget")
_MAY_DIFFER = {"seed", "root", "batch_size", "eval_batch_size", "workers", "resident_gib", "augment"}  # of the data


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Which experiments are compared, and how each is trained.

    Attributes:
        experiments: Names of experiments.
        seeds: Seeds of each; None: all that are on record.
        budget: The limits that are set, of ``minutes``, ``samples`` and ``batches``.
        overrides: Overrides for all runs.
        out: Folder of the records.
        folders: The user's own config folders.
    """

    experiments: tuple[str, ...]
    seeds: tuple[int, ...] | None
    budget: dict[str, float]
    overrides: tuple[str, ...] = ()
    out: Path = Path("results")
    folders: tuple[Path, ...] = ()

    @classmethod
    def from_config(cls, config: Mapping[str, Any], folders: Sequence[Path] = ()) -> Comparison:
        """Read the comparison that a config of ``conf/compare.yaml`` asks for.

        Raises:
            InputError: With all problems in one message.
        """
        problems = []
        experiments = config["experiments"]
        if isinstance(experiments, str) or not experiments or not all(isinstance(name, str) for name in experiments):
            raise InputError(f"experiments={experiments}: expected a list of names, such as [dcgan_mnist5k].")
        if repeated := sorted({name for name in experiments if experiments.count(name) > 1}):
            problems.append(f"experiments has {', '.join(repeated)} more than once.")
        known = members("experiment", (config_folder(), *folders))
        if not config["report_only"]:  # records may outlive an experiment's name
            unknown = [name for name in experiments if name not in known]
            problems += [f"experiment {name!r} is unknown{did_you_mean(name, known)}" for name in unknown]
        if (baseline := config["baseline"]) is not None and baseline not in experiments:
            problems.append(f"baseline={baseline} is none of the experiments{did_you_mean(str(baseline), experiments)}")
        seeds = _seeds(config["seeds"], problems)
        budget = {key: value for key, value in config["budget"].items() if value is not None}
        if not budget:
            problems.append("No budget: set budget.minutes, budget.samples or budget.batches.")
        problems += problems_of_list(config["overrides"], _OWN_KEYS, "validations=10")
        problems += problems_of_name(config["name"])
        positive = {key: type(value) in (int, float) and value > 0 for key, value in budget.items()}
        check(*((f"budget.{key}", budget[key], positive[key], "a positive number") for key in budget), more=problems)
        if seeds is None and not config["report_only"]:
            seeds = (0,)
        overrides = tuple(config["overrides"])
        return cls(tuple(experiments), seeds, budget, overrides, Path(config["out"]), tuple(folders))

    def identity(self, experiment: str, seed: int, code: str) -> str:
        """Return the name of a run, fit for a file: ``dcgan_mnist5k.10min.validations=10.seed0.66a8c5b``."""
        parts = [experiment, "-".join(f"{value:.10g}{_UNITS[key]}" for key, value in self.budget.items())]
        if self.overrides:
            text = ",".join(self.overrides)
            plain = re.sub(r"[^\w=,.+-]", "_", text)[:80]
            parts.append(plain if plain == text else f"{plain}-{hashlib.blake2b(text.encode()).hexdigest()[:8]}")
        return ".".join([*parts, f"seed{seed}", code])

    def train_arguments(self, experiment: str, seed: int, run_dir: Path) -> list[str]:
        """Return the arguments of ``python -m lit_aigc.train`` for a new run."""
        limits = [f"budget.{key}={self.budget.get(key, 'null')}" for key in _UNITS]
        return [f"experiment={experiment}", f"seed={seed}", f"run_dir={run_dir}", *limits, *self.overrides]

    def check_experiments(self, metric: str | None) -> None:
        """Compose all experiments, and check that their numbers can stand in one table.

        Raises:
            InputError: If one has a problem, or if they differ in their data or in how samples are measured.
        """
        facts: dict[str, dict[str, Any]] = {}
        for name in self.experiments:
            arguments = self.train_arguments(name, 0, Path("unused"))
            try:
                config = compose("train", [*folder_options(self.folders), *arguments])
            except InputError as error:
                raise InputError(f"experiment {name}: {error}") from error
            data = {f"data.{key}": value for key, value in config["data"].items() if key not in _MAY_DIFFER}
            node = get(config, _MEASURES) or {}
            measured = {f"{_MEASURES}.{key}": v for key, v in node.items() if key not in ("every", "metrics")}
            facts[name] = {**({} if metric else {"monitor": config["monitor"]}), **data, **measured}
            if not metric and not config["monitor"]:
                raise InputError(f"experiment {name} has no monitor: give metric=, the key that is to be compared.")
            if not config["validations"]:
                raise InputError(f"experiment {name} never validates: leave validations=0 out.")
        keys = dict.fromkeys(key for found in facts.values() for key in found)
        different = []
        for key in keys:
            values = {name: found.get(key) for name, found in facts.items()}
            if any(value != values[self.experiments[0]] for value in values.values()):
                different.append(f"{key}: " + "; ".join(f"{name} has {value}" for name, value in values.items()))
        if different:
            raise InputError(
                "The experiments can't be compared: they differ in their data or in how samples are measured:\n"
                + "\n".join(different)
                + "\nCompare those that agree, or make them agree with overrides=[KEY=VALUE]."
            )


def _seeds(given: Any, problems: list[str]) -> tuple[int, ...] | None:
    """Read ``3`` as (0, 1, 2), a list as it is; add what is wrong to `problems`."""
    if given is None:
        return None
    seeds = list(range(given)) if type(given) is int else given
    whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if whole and len(set(seeds)) == len(seeds) > 0:
        return tuple(seeds)
    problems.append(f"seeds={given}: expected how many (3 means 0, 1 and 2), or a list of different ones, [0, 4].")
    return None
