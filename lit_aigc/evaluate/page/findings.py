"""An evaluation, sorted for people: each number with its interval, the figure of real images and its protocol."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lit_aigc.media.console import decimals, number
from lit_aigc.metrics.bootstrap import LEVEL
from lit_aigc.metrics.measurement import Measurement, is_number, read
from lit_aigc.metrics.table import figures

_RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


@dataclasses.dataclass(frozen=True)
class Findings:
    """An evaluation, sorted.

    Attributes:
        facts: What was measured: the values that are text.
        measurements: The numbers, in the order of the file.
        differences: From a baseline, by key, as `lit_aigc.evaluate.baseline.differences` returns them.
        protocol: As in the file.
    """

    facts: dict[str, str]
    measurements: list[Measurement]
    differences: dict[str, Mapping[str, Any]]
    protocol: Mapping[str, Any]

    def headlines(self) -> list[Measurement]:
        """Return the numbers and verdicts of the known kinds, in their order."""
        known = [each for each in self.measurements if not each.part and isinstance(each.value, int | float)]
        return [each for kind in figures() for each in known if each.metric == kind]

    def classes(self) -> list[tuple[Measurement, list[Measurement]]]:
        """Return each mean over classes with the numbers of two or more classes."""
        groups: dict[tuple[str, str], list[Measurement]] = {}
        for each in self.measurements:
            if each.part and is_number(each.value):
                groups.setdefault((each.metric, each.extractor), []).append(each)
        means = [each for each in self.measurements if not each.part]
        found = [(mean, groups.get((mean.metric, mean.extractor), [])) for mean in means]
        return [(mean, classes) for mean, classes in found if len(classes) > 1]

    def by_protocol(self) -> dict[str, list[Measurement]]:
        """Return the numbers by the part of the protocol that they depend on."""
        found: dict[str, list[Measurement]] = {}
        for measurement in self.measurements:
            found.setdefault(measurement.protocol, []).append(measurement)
        return found

    def facts_of(self, name: str) -> Mapping[str, Any]:
        """Return a part of the protocol; an empty one if there is none of this name."""
        facts = self.protocol.get(name)
        return facts if isinstance(facts, Mapping) else {}

    def level(self, measurement: Measurement) -> str:
        """Return the level of its interval: ``95 %``."""
        drawn = self.facts_of(measurement.protocol).get("bootstrap")
        return percent(drawn.get("level", LEVEL) if isinstance(drawn, Mapping) else LEVEL)


def read_findings(results: Mapping[str, Any], class_names: Sequence[str] = ()) -> Findings:
    """Sort the content of an ``evaluation.json``; an unknown key becomes a number under its own name.

    Args:
        results: Numbers by key, text that says what was measured, ``protocol``, and maybe ``comparison``.
        class_names: One name per class; a class without one is shown by its number.
    """
    protocol, compared = results.get("protocol"), results.get("comparison")
    protocol = protocol if isinstance(protocol, Mapping) else {}
    differences = {k: v for k, v in compared.items() if isinstance(v, Mapping)} if isinstance(compared, Mapping) else {}
    apart = ("protocol", "options", "comparison") if differences else ("protocol", "options")
    values = dict(_flat({key: value for key, value in results.items() if key not in apart}))
    facts = {key: value for key, value in values.items() if isinstance(value, str)}
    numbers = {key: value for key, value in values.items() if key not in facts}
    return Findings(facts, read(numbers, protocol, class_names), differences, protocol)


def percent(share: float) -> str:
    """Return ``95 %`` of 0.95."""
    return f"{100 * share:g}\u00a0%"


def name(measurement: Measurement) -> str:
    """Return the name of a number for people, with a capital."""
    return capital(measurement.figure.label) if measurement.figure else measurement.key()


def capital(text: str) -> str:
    """Return the text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def plain(measurement: Measurement, value: Any) -> str:
    """Return a value with two digits of the measurement's standard error if there is one, else with four in all."""
    if is_number(value) and math.isfinite(value) and measurement.standard_error:
        return f"{value:,.{decimals(measurement.standard_error, 2)}f}"
    return number(value)


def shown(measurement: Measurement, value: Any = None) -> str:
    """Return its value, or another figure of it, typeset."""
    value = measurement.value if value is None else value
    return typeset(plain(measurement, value)) if is_number(value) and math.isfinite(value) else figure(value)


def interval(measurement: Measurement) -> str:
    """Return ``7.24 to 8.07``, or an empty string."""
    if measurement.low is None or measurement.high is None:
        return ""
    return f"{shown(measurement, measurement.low)} to {shown(measurement, measurement.high)}"


def figure(value: Any) -> str:
    """Return any value for people: numbers with four digits and a proper minus sign, and words for other values."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite" if value > 0 else "minus infinite"
    if isinstance(value, list | tuple):
        same = len(value) > 2 and all(each == value[0] for each in value)
        return f"{figure(value[0])} each of {len(value):,}" if same else ", ".join(map(figure, value)) or "none"
    return typeset(number(value)) if is_number(value) else str(value)


def typeset(text: str) -> str:
    """Return a number's text with a minus sign in place of the hyphen, and the exponent as a power of ten."""
    mantissa, _, exponent = text.partition("e")
    power = f"\u202f\u00d7\u202f10{str(int(exponent)).translate(_RAISED)}" if exponent else ""
    return mantissa.replace("-", "\u2212") + power


def _flat(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield keys and values, those of mappings inside as ``outer.inner``."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
