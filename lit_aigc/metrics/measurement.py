"""Measured numbers and their keys: the one place that writes keys such as ``fid_inception_low`` and reads them.

A key is ``<figure>_<extractor>``, or ``<figure>`` alone where no extractor is involved; ``_<class>`` at its end means
the value of one class. The interval of a number is in ``<key>_standard_error``, ``<key>_low`` and ``<key>_high``. What
real images reach is in ``<figure>_floor_<extractor>`` where lower is better, else in ``<figure>_real_<extractor>``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lit_aigc.metrics.base import Figure
from lit_aigc.metrics.table import METRICS, figures

INTERVAL = ("standard_error", "low", "high")
_REAL = ("floor", "real")

Curve = tuple[Sequence[int], Sequence[float]]
"""Steps and values."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A number, and everything that belongs to it.

    Attributes:
        metric: Name of its figure; of an unknown key, all of it.
        extractor: What it was measured on: an extractor, or ``pixels``; may be empty.
        value: The number; of an unknown key it can be anything.
        part: The class that it is of; empty: all of them.
        standard_error: Of the bootstrap, or None.
        low: Lower end of the interval, or None.
        high: Upper end, or None.
        real: What real images reach, or None.
        protocol: Name of the part of the protocol that it depends on; may be empty.
        biased: Whether there are too few images for it.
        label: Name of the class that it is of.
    """

    metric: str
    extractor: str = ""
    value: Any = None
    part: str = ""
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    real: float | None = None
    protocol: str = ""
    biased: bool = False
    label: str = ""

    @property
    def figure(self) -> Figure | None:
        """The kind of number, if it is known."""
        return figures().get(self.metric)

    def key(self) -> str:
        """Return the key of the value."""
        return "_".join(filter(None, (self.metric, self.extractor, self.part)))

    def real_key(self) -> str:
        """Return the key of what real images reach."""
        word = "floor" if self.figure and self.figure.better == "lower" else "real"
        return "_".join(filter(None, (self.metric, word, self.extractor)))


def by_key(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Return all numbers by key: the values, then the intervals, then what real images reach."""
    intervals = {f"{each.key()}_{end}": getattr(each, end) for each in measurements for end in INTERVAL}
    reals = {each.real_key(): each.real for each in measurements}
    known = {key: value for key, value in (intervals | reals).items() if value is not None}
    return {each.key(): each.value for each in measurements} | known


def metric_keys(metrics: Sequence[str], extractor: str, num_classes: int) -> tuple[str, ...]:
    """Return the keys of the values of some metrics, without intervals and what real images reach.

    Args:
        metrics: Names of metrics.
        extractor: Name of the extractor.
        num_classes: Number of classes of figures by class.
    """
    keys = []
    for figure in (figure for name in metrics for figure in METRICS[name].figures):
        parts = ["", *map(str, range(num_classes))] if figure.by_class else [""]
        keys += [Measurement(figure.name, extractor, part=part).key() for part in parts]
    return tuple(keys)


def read_key(key: str) -> Measurement:
    """Return what a key says about its number; an unknown one is taken as the name of the metric."""
    name = _figure_name(key)
    extractor = key[len(name) + 1 :]
    if not name or extractor.partition("_")[0] in _REAL:
        return Measurement(key)
    return Measurement(name, extractor)


def read(
    values: Mapping[str, Any], protocol: Mapping[str, Any] | None = None, class_names: Sequence[str] = ()
) -> list[Measurement]:
    """Return the numbers in a summary or an evaluation; no key is lost.

    Args:
        values: Numbers by key.
        protocol: What they depend on, by extractor or name.
        class_names: One name per class; a class without one is called by its number.
    """
    protocol = protocol or {}
    reals = {key: real for key in values if (real := _find_real(key, values, protocol))}
    hidden = {*reals.values(), *(f"{key}_{end}" for key in values for end in (*INTERVAL, "biased"))}
    found = []
    for key in (key for key in values if key not in hidden):
        part = _class_of(key, values)
        whole = read_key(key.removesuffix(f"_{part}") if part else key)
        name = _protocol_of(whole, protocol)
        interval = {end: number for end in INTERVAL if is_number(number := values.get(f"{key}_{end}"))}
        found.append(
            dataclasses.replace(
                whole,
                value=values[key],
                part=part,
                **interval,
                real=values.get(reals.get(key, "")),
                protocol=name,
                biased=values.get(f"{key}_biased") is True or _is_biased(whole.figure, protocol.get(name)),
                label=class_names[int(part)] if part and int(part) < len(class_names) else part,
            )
        )
    return found


def panels(curves: Mapping[str, Curve]) -> dict[str, dict[str, Curve]]:
    """Sort curves into panels: training losses, other training values by name, metrics by figure (``fid``, ``is``).

    Args:
        curves: As `lit_aigc.loggers.csv.read_metrics` returns them.

    Returns:
        The curves by short name, by title of the panel, losses first; curves without values and the clock are left out.
    """
    groups: dict[str, dict[str, Curve]] = {"training losses": {}}
    for name, (steps, values) in curves.items():
        if not steps or name == "train_seconds":
            continue
        short = name.removeprefix("train/")
        if short == name:
            title = _figure_name(name) or name.partition("_")[0].partition("/")[0]
        elif "loss" in short:
            title = "training losses"
        else:
            title = f"training: {short.rpartition('_')[2]}"
        groups.setdefault(title, {})[short] = (steps, values)
    return {title: group for title, group in groups.items() if group}


def is_real(key: str) -> bool:
    """Return whether a key is of what real images reach."""
    return not set(_REAL).isdisjoint(key.split("_")[1:])


def is_number(value: Any) -> bool:
    """Return whether a value is a number, finite or not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _figure_name(key: str) -> str:
    """Return the longest name of a figure that the key begins with, or an empty string."""
    return max((name for name in figures() if f"{key}_".startswith(f"{name}_")), key=len, default="")


def _find_real(key: str, values: Mapping[str, Any], protocol: Iterable[str]) -> str | None:
    """Return the key of what real images reach, such as ``fid_floor_inception`` for ``fid_inception``.

    The word stands after the figure, or before the name of a protocol, or at the end, in place of ``score`` too.
    """
    read = read_key(key)
    stems = [(key, ""), (key.removesuffix("_score"), "")]
    stems += [(read.metric, f"_{read.extractor}")] if read.extractor else []
    stems += [(key.removesuffix(f"_{name}"), f"_{name}") for name in protocol if key.endswith(f"_{name}")]
    names = [f"{stem}_{word}{end}" for stem, end in stems for word in _REAL]
    return next((name for name in names if name != key and is_number(values.get(name))), None)


def _class_of(key: str, values: Mapping[str, Any]) -> str:
    """Return the class at the end of a key, if there is a mean over the classes; else an empty string."""
    match = re.fullmatch(r"(.+)_([0-9]{1,9})", key)
    return match[2] if match and is_number(values.get(match[1])) else ""


def _protocol_of(measurement: Measurement, protocol: Mapping[str, Any]) -> str:
    """Return the name of the part of the protocol that a number depends on, or an empty string."""
    own = measurement.figure.protocol if measurement.figure else ""
    names = [name for name, facts in protocol.items() if isinstance(facts, Mapping)]
    fitting = [name for name in names if name == own or f"_{name}_" in f"_{measurement.key()}_"]
    return max(fitting, key=len, default="")


def _is_biased(figure: Figure | None, facts: Any) -> bool:
    """Return whether a number that minds had fewer images than features."""
    return bool(figure and figure.biased) and isinstance(facts, Mapping) and facts.get("biased") is True
