"""Parameters of a sweep file: for each, a distribution of Optuna's, and the setting's value for a draw from it."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lit_aigc.build import did_you_mean
from lit_aigc.errors import is_whole

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Drawn = int | float
# For each distribution of W&B: the keys that it needs, and those that may be left out.
_KEYS = {
    "constant": ("value", ""),
    "categorical": ("values", ""),
    "int_uniform": ("min max", ""),
    "uniform": ("min max", ""),
    "q_uniform": ("min max", "q"),
    "log_uniform_values": ("min max", ""),
    "q_log_uniform_values": ("min max", "q"),
    "normal": ("", "mu sigma"),
}
_TAIL = 1e-6  # probability at each end of a normal distribution that is never drawn


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A setting that is searched.

    Attributes:
        name: Its key in the config, such as ``model.recipe.lr``.
        distribution: Optuna's; whole numbers stand for choices and for multiples of q.
        value: Returns the setting's value for a draw.
        grid: All possible draws, in order; None if there are infinitely many.
        logarithmic: Whether it is drawn on a logarithmic scale.
    """

    name: str
    distribution: BaseDistribution
    value: Callable[[Drawn], Any]
    grid: Sequence[int] | None = None
    logarithmic: bool = False


def read_parameters(nodes: Any) -> tuple[list[Parameter], dict[str, Any], list[str]]:
    """Return the parameters that are searched, those with one value, and what is wrong, one sentence each.

    Args:
        nodes: ``parameters`` of a W&B sweep file.
    """
    if not isinstance(nodes, Mapping) or not nodes:
        return [], {}, ["parameters: expected a key for each setting that is searched, such as seed: {values: [0, 1]}."]
    searched, constants, problems = [], {}, []
    for name, node in nodes.items():
        kind, found = _kind(name, node)
        if not found and kind == "constant":
            constants[name] = node["value"]
        elif not found:
            try:
                searched.append(_parameter(name, kind, node))
            except ValueError as error:
                found = [f"parameters.{name}: {error}."]
        problems += found
    if not searched and not problems:
        problems.append("parameters: all have one value, there is nothing to search.")
    return searched, constants, problems


def _kind(name: str, node: Any) -> tuple[str, list[str]]:
    """Return the distribution of a node, and what is wrong with its keys."""
    where = f"parameters.{name}"
    if not isinstance(node, Mapping):
        return "", [f"{where} is {node!r}: expected value, values, or min and max."]
    if "parameters" in node:
        return "", [f"{where}: nested parameters are not supported: write {name}.KEY as one key."]
    keys = set(node) - {"distribution"}
    kind = node.get("distribution") or _implied(node)
    if kind not in _KEYS:
        what = f"distribution {kind!r} is not supported{did_you_mean(str(kind), _KEYS)}" if kind else "no distribution"
        return "", [f"{where}: {what}; expected value, values, min and max, or one of {', '.join(_KEYS)}."]
    needed, optional = ({*words.split()} for words in _KEYS[kind])
    problems = [f"{where}: {key} is missing." for key in sorted(needed - keys)]
    extra = sorted(map(str, keys - needed - optional))
    return kind, problems + [f"{where}: {kind} has no {key}{did_you_mean(key, needed | optional)}." for key in extra]


def _implied(node: Mapping[str, Any]) -> str | None:
    """Return the distribution that W&B infers for a node without one."""
    if "value" in node:
        return "constant"
    if "values" in node:
        return "categorical"
    if "min" in node and "max" in node:
        return "int_uniform" if all(is_whole(node[key]) for key in ("min", "max")) else "uniform"
    return "normal" if "mu" in node or "sigma" in node else None


def _parameter(name: str, kind: str, node: Mapping[str, Any]) -> Parameter:
    """Read a node that has all its keys; ValueError for impossible values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if kind == "categorical":
        choices = node["values"]
        if not isinstance(choices, list) or not choices:
            raise ValueError(f"values is {choices!r}, expected a list")
        places = range(len(choices))
        return Parameter(name, CategoricalDistribution(list(places)), lambda place: choices[place], places)
    if kind == "normal":
        normal = statistics.NormalDist(_number(node, "mu", 0), _number(node, "sigma", 1))
        if not normal.stdev > 0:
            raise ValueError(f"sigma is {normal.stdev:g}, expected more than 0")
        return Parameter(name, FloatDistribution(_TAIL, 1 - _TAIL), normal.inv_cdf)

    low, high = _number(node, "min"), _number(node, "max")
    logarithmic = "log" in kind
    if not low <= high:
        raise ValueError(f"min {low:g} is more than max {high:g}")
    if logarithmic and not low > 0:
        raise ValueError(f"min is {low:g}, expected more than 0 on a logarithmic scale")
    if kind == "int_uniform" and not (is_whole(low) and is_whole(high)):
        raise ValueError(f"min {low:g} and max {high:g}: expected whole numbers")
    if kind.startswith("q_") or kind == "int_uniform":
        q = _number(node, "q", 1)
        if not q > 0:
            raise ValueError(f"q is {q:g}, expected more than 0")
        first, last = math.ceil(low / q - 1e-9), math.floor(high / q + 1e-9)
        if first > last or (logarithmic and first < 1):
            raise ValueError(f"between min {low:g} and max {high:g} there is no multiple of q {q:g} that can be drawn")
        distribution = IntDistribution(first, last, log=logarithmic)
        # the rounding makes 0.3 of 3 * 0.1
        return Parameter(name, distribution, lambda k: round(k * q, 12), range(first, last + 1), logarithmic)
    return Parameter(name, FloatDistribution(low, high, log=logarithmic), float, None, logarithmic)


def _number(node: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """Read a number; YAML reads ``1e-3``, which has no point, as text."""
    value = node.get(key, default)
    try:
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else float(str(value))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{key} is {value!r}, expected a number")
    return number
