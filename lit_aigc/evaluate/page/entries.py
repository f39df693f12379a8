"""What an evaluation found, sorted for people: each number with its interval, the figure of real images, its protocol.

Nothing is lost: a key that is not known here becomes an entry too, under its own name.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lit_aigc.media.console import number


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of number that is known.

    Attributes:
        name: For people.
        meaning: In a few words.
        better: ``lower``, ``higher``, or nothing.
        share: Whether it lies between 0 and 1.
        protocol: Name of its protocol, where the key doesn't have it.
    """

    name: str
    meaning: str
    better: str = ""
    share: bool = False
    protocol: str = ""


AUDIT = "memorisation"  # name of the protocol of the audit
# In the order of the headlines. A key is of the longest kind that it begins with.
KINDS = {
    "fid": Kind("FID", "Fréchet distance of the features", "lower"),
    "kid": Kind("KID", "kernel distance of the features, unbiased", "lower"),
    "is": Kind("Inception score", "on the classes of the extractor", "higher"),
    "accuracy": Kind("Accuracy", "samples taken for the class asked for", "higher", share=True),
    "precision": Kind("Precision", "samples among the real images", "higher", share=True),
    "recall": Kind("Recall", "real images among the samples", "higher", share=True),
    "class_fid": Kind("FID by class", "mean over the classes", "lower"),
    "classification_accuracy_score": Kind(
        "Classification accuracy score", "of a classifier trained on samples alone", "higher", share=True
    ),
    "nll": Kind("NLL", "nats an image, at most", "lower", protocol="likelihood"),
    "elbo": Kind("ELBO", "nats an image", "higher", protocol="likelihood"),
    "nll_bits_per_dim": Kind("Bits per dimension", "of the NLL", "lower", protocol="likelihood"),
    "memorised": Kind("Memorised", "verdict of the audit", protocol=AUDIT),
    "memorised_share": Kind(
        "Memorised share", "samples closer to training images than nearly all real ones are", "lower", True, AUDIT
    ),
    "authenticity": Kind("Authenticity", "samples that are no copies", "higher", True, AUDIT),
    "duplicates": Kind("Duplicates", "samples that are as good as equal", "lower", protocol=AUDIT),
    "copying_z": Kind("Copying", "standard score; far below 0: copies", protocol=AUDIT),
    "nearest_distance": Kind("Distance to training images", "median, in grey levels", protocol=AUDIT),
    "perplexity": Kind("Perplexity", "of a token", "lower"),
    "nats_per_char": Kind("Nats per character", "of the test text", "lower"),
    "bits_per_byte": Kind("Bits per byte", "of the test text", "lower"),
    "bleu": Kind("BLEU", "of the translations", "higher"),
}
LEVEL = 0.95
_SATELLITES = ("standard_error", "low", "high", "biased")
_RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
_REAL = ("floor", "real")  # in the keys of what real images reach


@dataclasses.dataclass(frozen=True)
class Entry:
    """A number, and all that belongs to it.

    Attributes:
        key: In ``evaluation.json``.
        value: The number; of an unknown key it can be anything.
        kind: What sort of number, if that is known.
        variant: Rest of the key after its kind: the extractor, or ``pixels``.
        protocol: Name of the part of the protocol that it depends on, or nothing.
        standard_error: Of the bootstrap, or None.
        low: Lower end of the interval, or None.
        high: Upper end, or None.
        real: What real images reach, or None.
        biased: Whether there are too few images for it.
        label: The class that it is of, or None.
    """

    key: str
    value: Any
    kind: Kind | None = None
    variant: str = ""
    protocol: str = ""
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    real: float | None = None
    biased: bool = False
    label: str | None = None

    @property
    def name(self) -> str:
        """For people."""
        return self.kind.name if self.kind else self.key

    def shown(self, value: Any = None) -> str:
        """The value, or another figure with as many decimals: two digits of the standard error, else four digits."""
        value = self.value if value is None else value
        if not (is_number(value) and self.standard_error and math.isfinite(value)):
            return figure(value)
        return typeset(f"{value:,.{decimals(self.standard_error, 2)}f}")


@dataclasses.dataclass(frozen=True)
class Findings:
    """An evaluation, sorted.

    Attributes:
        facts: What was measured: the values that are text.
        entries: The numbers, in the order of the file, those of classes behind their mean.
        differences: From a baseline, by key, as `lit_aigc.evaluate.baseline.differences` tells them.
        protocol: As in the file.
    """

    facts: dict[str, str]
    entries: list[Entry]
    differences: dict[str, Mapping[str, Any]]
    protocol: Mapping[str, Any]

    def headlines(self) -> list[Entry]:
        """The numbers of the known kinds, in their order."""
        order = list(KINDS.values())
        chosen = [each for each in self.entries if each.kind and each.label is None and _in_a_word(each.value)]
        return sorted(chosen, key=lambda entry: order.index(entry.kind))

    def classes(self) -> dict[Entry, list[Entry]]:
        """Each mean over classes, and the numbers of these classes."""
        means = {entry.key: entry for entry in self.entries if entry.label is None}
        found: dict[Entry, list[Entry]] = {}
        for entry in self.entries:
            if entry.label is not None and is_number(entry.value):
                found.setdefault(means[entry.key.rpartition("_")[0]], []).append(entry)
        return {mean: each for mean, each in found.items() if len(each) > 1}

    def by_protocol(self) -> dict[str, list[Entry]]:
        """The entries by the part of the protocol that they depend on."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.protocol, []).append(entry)
        return found

    def facts_of(self, name: str) -> Mapping[str, Any]:
        """A part of the protocol; nothing where there is none of this name."""
        facts = self.protocol.get(name)
        return facts if isinstance(facts, Mapping) else {}

    def level(self, entry: Entry) -> str:
        """Of its interval: ``95 %``."""
        drawn = self.facts_of(entry.protocol).get("bootstrap")
        level = drawn.get("level", LEVEL) if isinstance(drawn, Mapping) else LEVEL
        return f"{100 * level:g}\u00a0%"


def read_findings(results: Mapping[str, Any], class_names: Sequence[str] = ()) -> Findings:
    """Sort the content of an ``evaluation.json``.

    Args:
        results: Numbers by key, text that says what was measured, ``protocol``, and maybe ``comparison``.
        class_names: One name a label; a label without one is shown as it is.
    """
    protocol, compared = results.get("protocol"), results.get("comparison")
    protocol = protocol if isinstance(protocol, Mapping) else {}
    differences = {k: v for k, v in compared.items() if isinstance(v, Mapping)} if isinstance(compared, Mapping) else {}
    left = {
        key: value
        for key, value in results.items()
        if key not in ("protocol", "options") and not (key == "comparison" and differences)
    }
    values = dict(_flat(left))
    facts = {key: value for key, value in values.items() if isinstance(value, str)}
    reals = {key: real for key in values if (real := _real_key(key, values, protocol))}
    hidden = {*facts, *reals.values(), *(f"{key}_{part}" for key in values for part in _SATELLITES)}
    entries = []
    for key in values:
        if key in hidden:
            continue
        kind, variant = _kind(key)
        label = _label(key, values)
        mean = key.rpartition("_")[0] if label is not None else key
        part = _protocol(mean, kind, protocol)
        satellites = {name: values.get(f"{key}_{name}") for name in _SATELLITES[:3]}
        entries.append(
            Entry(
                key,
                values[key],
                KINDS.get(kind),
                variant.rpartition("_")[0] if label is not None and kind else variant,
                part,
                **{name: value if is_number(value) else None for name, value in satellites.items()},
                real=values.get(reals.get(key, "")),
                biased=values.get(f"{key}_biased") is True or _biased(kind, protocol.get(part)),
                label=class_names[int(label)] if label is not None and int(label) < len(class_names) else label,
            )
        )
    return Findings(facts, entries, differences, protocol)


def is_number(value: Any) -> bool:
    """Whether a value is a number, finite or not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_a_word(value: Any) -> bool:
    return isinstance(value, int | float)  # a verdict too


def decimals(value: float, digits: int) -> int:
    """How many decimals show so many digits of a value."""
    if not value or not math.isfinite(value):
        return 0
    return min(max(0, digits - 1 - math.floor(math.log10(abs(value)))), 12)


def figure(value: Any) -> str:
    """Any value for people: numbers with four digits, a proper minus, and words for what is none."""
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
    """A number's text with a minus sign in place of the hyphen, and an exponent as a power of ten."""
    mantissa, _, exponent = text.partition("e")
    power = f"\u202f\u00d7\u202f10{str(int(exponent)).translate(_RAISED)}" if exponent else ""
    return mantissa.replace("-", "\u2212") + power


def _flat(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys and values, those of mappings inside as ``outer.inner``."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _kind(key: str) -> tuple[str, str]:
    """The kind's name and the rest of the key; nothing for an unknown key and for a figure of real images."""
    fitting = [name for name in KINDS if key == name or key.startswith(f"{name}_")]
    name = max(fitting, key=len, default="")
    variant = key[len(name) + 1 :]
    return (name, variant) if name and variant.partition("_")[0] not in _REAL else ("", "")


def _real_key(key: str, values: Mapping[str, Any], protocol: Mapping[str, Any]) -> str | None:
    """The key of what real images reach, such as ``fid_floor_inception`` of ``fid_inception``."""
    kind, variant = _kind(key)
    endings = [("", key), ("", key.removesuffix("_score"))]
    endings += [(f"_{variant}", kind)] if kind and variant else []
    endings += [(f"_{name}", key.removesuffix(f"_{name}")) for name in protocol if key.endswith(f"_{name}")]
    names = [f"{stem}_{word}{ending}" for ending, stem in endings for word in _REAL]
    return next((name for name in names if name != key and is_number(values.get(name))), None)


def _label(key: str, values: Mapping[str, Any]) -> str | None:
    """The label, where a key is of one class and the mean over the classes is there too."""
    found = re.fullmatch(r"(.+)_([0-9]{1,9})", key)
    return found[2] if found and is_number(values.get(found[1])) else None


def _protocol(key: str, kind: str, protocol: Mapping[str, Any]) -> str:
    """Name of the part of the protocol that a key depends on."""
    own = KINDS[kind].protocol if kind else ""
    parts = [name for name, facts in protocol.items() if isinstance(facts, Mapping)]
    fitting = [name for name in parts if name == own or f"_{name}_" in f"_{key}_"]
    return max(fitting, key=len, default="")


def _biased(kind: str, facts: Any) -> bool:
    """Whether a Fréchet distance had fewer images than features; the other numbers don't mind."""
    return kind in ("fid", "class_fid") and isinstance(facts, Mapping) and facts.get("biased") is True
