"""Read and check a W&B sweep file: the search space, the method, and the command."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_aigc.build import did_you_mean
from lit_aigc.config.overrides import in_hydras_grammar, key_of
from lit_aigc.errors import InputError, not_whole
from lit_aigc.files import read_yaml
from lit_aigc.sweep.parameters import Drawn, Parameter, read_parameters

METHODS = ("random", "grid", "bayes")
_GOALS = ("minimize", "maximize")
_FOR_WANDB = ("name", "description", "project", "entity", "program")  # for W&B, without effect here
_KEYS = (*_FOR_WANDB, "command", "method", "metric", "parameters", "early_terminate", "run_cap")
_PYTHON = re.compile(r"((\$\{env\} )?(\$\{interpreter\}|python) -m|\$\{env\} \$\{interpreter\})?")  # before the program
OWN_KEYS = ("run_dir", "resume", "pause_after")


@dataclasses.dataclass(frozen=True)
class Halving:
    """Successive halving: at `min_iter` values of the metric, and each `eta` times as many, the best 1/`eta` stay."""

    min_iter: int
    eta: int = 3


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The content of a sweep file.

    Attributes:
        method: ``random``, ``grid`` or ``bayes``.
        metric: The key of ``summary.json`` and ``metrics.csv`` that is optimized; None: the experiment's monitor.
        goal: ``minimize`` or ``maximize``.
        target: A value at which no more trials are started, or None.
        parameters: The settings that are searched.
        constants: Settings that are the same in all trials.
        words: Overrides in its ``command``.
        halving: When trials are pruned, or None.
        run_cap: The largest number of trials, or None.
        content: The file as plain types.
    """

    method: str
    metric: str | None
    goal: str
    target: float | None
    parameters: tuple[Parameter, ...]
    constants: dict[str, Any]
    words: tuple[str, ...]
    halving: Halving | None
    run_cap: int | None
    content: dict[str, Any]

    def values(self, drawn: Mapping[str, Drawn]) -> dict[str, Any]:
        """Return the values of the searched settings for what was drawn."""
        return {parameter.name: parameter.value(drawn[parameter.name]) for parameter in self.parameters}

    def arguments(self, values: Mapping[str, Any]) -> list[str]:
        """Return the overrides of a trial."""
        settings = {**self.constants, **values}
        return [*self.words, *(f"{key}={in_hydras_grammar(value)}" for key, value in settings.items())]

    def grid(self) -> list[dict[str, Drawn]]:
        """Return all combinations, the last parameter changing first."""
        names = [parameter.name for parameter in self.parameters]
        points = itertools.product(*(parameter.grid or () for parameter in self.parameters))
        return [dict(zip(names, point, strict=True)) for point in points]

    def is_better(self, value: float, than: float) -> bool:
        """Return whether a value of the metric is better than another."""
        return value < than if self.goal == "minimize" else value > than


def read_sweep(path: str | Path) -> Sweep:
    """Read a sweep file.

    Raises:
        InputError: With everything that is wrong or not supported, in one message.
    """
    content = read_yaml(path)
    problems = _unknown("", content, _KEYS)
    method = content.get("method")
    if method not in METHODS:
        problems.append(f"method is {method!r}, expected one of {', '.join(METHODS)}.")
    parameters, constants, found = read_parameters(content.get("parameters"))
    problems += found
    if method == "grid":
        endless = [parameter.name for parameter in parameters if parameter.grid is None]
        problems += [f"parameters.{name}: a grid needs values, or whole min and max." for name in endless]
    words = _words(content, problems)
    for name in (*(parameter.name for parameter in parameters), *constants, *map(key_of, words)):
        if name.partition(".")[0] in OWN_KEYS:
            problems.append(f"{name} can't be set by a sweep: each trial gets its own.")
    metric, goal, target = _metric(content.get("metric"), problems)
    run_cap = content.get("run_cap")
    problems += [] if run_cap is None else not_whole("run_cap", run_cap, least=1)
    halving = _halving(content.get("early_terminate"), problems)
    if problems:
        raise InputError(f"{path} can't be run:\n" + "\n".join(problems))
    return Sweep(method, metric, goal, target, tuple(parameters), constants, words, halving, run_cap, content)


def _unknown(where: str, node: Mapping[str, Any], known: Sequence[str]) -> list[str]:
    return [f"{where}unknown key {key!r}{did_you_mean(str(key), known)}" for key in node if key not in known]


def _words(content: Mapping[str, Any], problems: list[str]) -> tuple[str, ...]:
    """Return the overrides in ``command``, which has to run this package's training."""
    command = content.get("command") or ["lit_aigc.train"]
    known = [word for word in command if isinstance(word, str)] if isinstance(command, list) else []
    place = next((i for i, word in enumerate(known) if word == "lit_aigc.train" or word.endswith("train.py")), None)
    if place is None or not _PYTHON.fullmatch(" ".join(known[:place])):
        problems.append(
            "command: expected a list that runs python -m lit_aigc.train, such as [${env}, ${interpreter}, -m, "
            "lit_aigc.train, experiment=vae_mnist5k, ${args_no_hyphens}]."
        )
        return ()
    words = tuple(word for word in known[place + 1 :] if not word.startswith("${"))
    problems += [f"command: {word!r} is not of the form key=value." for word in words if not re.match(r"[+\w]", word)]
    return words


def _metric(node: Any, problems: list[str]) -> tuple[str | None, str, float | None]:
    if node is None:
        return None, "minimize", None
    if not isinstance(node, Mapping) or not isinstance(node.get("name"), str):
        problems.append(f"metric is {node!r}: expected name and goal, such as {{name: elbo, goal: maximize}}.")
        return None, "minimize", None
    goal, target = node.get("goal", "minimize"), node.get("target")
    problems += _unknown("metric: ", node, ("name", "goal", "target"))
    if goal not in _GOALS:
        problems.append(f"metric.goal is {goal!r}, expected {' or '.join(_GOALS)}.")
    if target is not None and not (isinstance(target, int | float) and math.isfinite(target)):
        problems.append(f"metric.target is {target!r}, expected a number.")
    return node["name"], goal, target


def _halving(node: Any, problems: list[str]) -> Halving | None:
    """Read ``early_terminate``: type hyperband, eta, and min_iter, or max_iter and s."""
    if node is None:
        return None
    known = ("type", "min_iter", "max_iter", "s", "eta", "strict")
    if not isinstance(node, Mapping) or node.get("type") != "hyperband":
        problems.append(f"early_terminate is {node!r}: expected {{type: hyperband, min_iter: 1}}.")
        return None
    found = _unknown("early_terminate: ", node, known)
    eta = node.get("eta", 3)
    found += not_whole("early_terminate.eta", eta, least=2)
    for key in ("min_iter",) if "min_iter" in node else ("max_iter", "s"):
        found += not_whole(f"early_terminate.{key}", node.get(key), least=1)
    problems += found
    if found:
        return None
    if "min_iter" in node:
        return Halving(node["min_iter"], eta)
    return Halving(max(1, node["max_iter"] // eta ** node["s"]), eta)
