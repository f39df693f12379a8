"""An evaluation as one self-contained HTML page: without scripts, fonts or pictures from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from lit_aigc.evaluate.page import charts, findings
from lit_aigc.evaluate.page.embedding import embed
from lit_aigc.evaluate.page.findings import Findings, capital, figure, interval, percent, read_findings, shown
from lit_aigc.metrics.bootstrap import LEVEL
from lit_aigc.metrics.measurement import Curve, Measurement, is_number, is_real, panels
from lit_aigc.metrics.table import figures

if TYPE_CHECKING:
    from PIL import Image

SECTIONS = {
    "headlines": "Results",
    "baseline": "Against the baseline",
    "pictures": "Pictures",
    "classes": "Classes",
    "training": "Training",
    "numbers": "All numbers",
    "protocol": "Protocol",
}
CAPTIONS = {
    "samples": "Samples",
    "memorisation": "The most suspicious samples, and test images, next to the training images nearest to them",
    "reconstructions": "Images and their reconstructions",
}
MOST_CLASSES = 40  # with more, the bars show the worst
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # nothing is loaded, whatever a text may say
# Control characters have no place in HTML, and half a surrogate pair, as in a file name that is not UTF-8, no encoding.
_CONTROLS = (*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), *range(0x7F, 0xA0))
_FORBIDDEN = dict.fromkeys((*_CONTROLS, *range(0xD800, 0xE000)), "\ufffd")


def page(
    results: Mapping[str, Any],
    pictures: Mapping[str, Image.Image | bytes] | None = None,
    curves: Mapping[str, Curve] | None = None,
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    class_names: Sequence[str] = (),
    command: str = "",
) -> str:
    """Write the page.

    Args:
        results: The content of ``evaluation.json``. Unknown keys appear in the table of all numbers.
        pictures: By name (``samples``, ``memorisation``, or a caption): Pillow images, or bytes of image files. Small
            ones are enlarged, pixel by pixel; large ones are made smaller, so that the page stays below 3 MB.
        curves: Of the training: steps and values by name, as `lit_aigc.loggers.csv.read_metrics` returns them.
        title: At the top of the page.
        facts: More about what was measured, such as date and version, by a word for each.
        class_names: One name per class.
        command: The command that repeats the evaluation.

    Returns:
        HTML5, to be written as UTF-8.

    Raises:
        InputError: If a picture can't be read.
    """
    found = read_findings(results, class_names)
    cards, biased = found.headlines(), _biased(found)
    content = {
        "headlines": cards or biased,
        "baseline": _differences(found),
        "pictures": [(CAPTIONS.get(k, k), embed(each, k, len(pictures))) for k, each in (pictures or {}).items()],
        "classes": _classes(found),
        "training": _training(curves or {}),
        "numbers": _numbers(found),
        "protocol": command or found.protocol,
    }
    return _template().render(
        content,
        sections={key: name for key, name in SECTIONS.items() if content[key]},
        cards=cards,
        biased=biased,
        copies=results.get("memorised") is True,
        title=title,
        leads=[words for part in found.protocol if (words := in_words(found.facts_of(part)))],
        facts={**found.facts, **(facts or {})},
        found=found,
        command=command,
    )


def _template() -> Any:
    folder = files("lit_aigc.evaluate.page")
    environment = Environment(
        autoescape=True, finalize=_printable, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    helpers = (capital, figure, interval, shown, fact)
    environment.globals |= {function.__name__: function for function in helpers}
    environment.globals |= {"name": findings.name, "charts": charts, "policy": POLICY}
    environment.globals["css"] = Markup(folder.joinpath("page.css").read_text(encoding="utf-8"))
    return environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))


def _printable(value: Any) -> Any:
    """Return a value as text that HTML can hold; markup is left as it is."""
    if isinstance(value, Markup):
        return value
    return "" if value is None else str(value).translate(_FORBIDDEN)


def _biased(found: Findings) -> list[tuple[str, str, str]]:
    """Return names of figures of too few images, with the extractor and the numbers of images."""
    notes = []
    for part, measurements in found.by_protocol().items():
        names = ", ".join(dict.fromkeys(findings.name(each) for each in measurements if each.biased))
        facts = found.facts_of(part)
        counts = [(facts.get("n_fake"), "generated"), (facts.get("n_real"), "real")]
        images = " and ".join(f"{figure(count)} {word}" for count, word in counts if count)
        notes += [(names, part, images)] if names else []
    return notes


def _classes(found: Findings) -> list[tuple[Measurement, int, dict[str, Any]]]:
    """Return each number that every class has, the number of classes, and bars of all or the worst of them."""
    groups = []
    for mean, classes in found.classes():
        higher = bool(mean.figure) and mean.figure.better == "higher"
        worst = sorted(classes, key=lambda each: each.value, reverse=not higher)[:MOST_CLASSES]
        groups.append((mean, len(classes), charts.bars(mean, classes if len(classes) <= MOST_CLASSES else worst)))
    return groups


def _training(curves: Mapping[str, Curve]) -> dict[str, list[dict[str, Any]]]:
    """Return charts of losses and measured numbers as ``first``, and of whatever else was logged as ``more``.

    Each has a ``heading``, the ``lines``, and a ``legend``: sign, name and last value of each of them.
    """
    if not any(steps for steps, _ in curves.values()):
        return {}
    end = max(max(steps) for steps, _ in curves.values() if steps)
    groups = {"first": [], "more": []}
    for title, group in panels(curves).items():
        groups["more" if title.startswith("training: ") else "first"].append(_chart(title, group, end))
    return groups


def _chart(title: str, group: Mapping[str, Curve], end: float) -> dict[str, Any]:
    levels = {key: charts.last(curve) for key, curve in group.items() if is_real(key) and len(set(curve[1])) == 1}
    moving = {key: curve for key, curve in group.items() if key not in levels}
    if not moving:
        moving, levels = dict(group), {}
    legend = [(f"curve c{i % charts.COLORS}", key, charts.last(curve)) for i, (key, curve) in enumerate(moving.items())]
    legend += [("level", "real images" if len(levels) == 1 else key, value) for key, value in levels.items()]
    kind = figures().get(title)
    heading = capital(kind.label if kind else title.removeprefix("training: "))
    return {"heading": heading, "legend": legend, "lines": charts.lines(moving, levels, end)}


def _numbers(found: Findings) -> dict[str, Any]:
    """Return every number, by the part of the protocol that it depends on; empty columns are left out.

    Returns:
        ``heads`` of the columns, and ``groups`` of rows, each with a word and a text above it, both possibly empty. A
        row has a ``key``, the ``label`` of its class, whether it is ``biased``, and ``cells``: column, and a text with
        its padding.
    """
    numbers = found.measurements
    levels = {found.level(each) for each in numbers}
    columns = {
        "Value": [shown(each) for each in numbers],
        "Standard error": [_or_nothing(each.standard_error) for each in numbers],
        f"{levels.pop()} interval" if len(levels) == 1 else "Interval": [interval(each) for each in numbers],
        "Real images": [_or_nothing(each.real) for each in numbers],
    }
    columns = {head: aligned(texts) for head, texts in columns.items() if any(texts)}
    rows: dict[str, list[dict[str, Any]]] = {}
    for each, cells in zip(numbers, zip(*columns.values(), strict=True), strict=True):
        label = "" if each.label == each.part else each.label
        row = {
            "key": each.key(),
            "label": label,
            "biased": each.biased,
            "cells": list(zip(columns, cells, strict=True)),
        }
        rows.setdefault(each.protocol, []).append(row)
    words = {part: in_words(found.facts_of(part)).removesuffix(".") for part in rows}
    groups = [(part or "Other", words[part], group) for part, group in rows.items()]
    return {"heads": ["Number", *columns], "groups": groups} if groups else {}


def _differences(found: Findings) -> dict[str, Any]:
    """Return whether numbers differ from a baseline's by more than the noise, as a table like that of numbers."""
    verdicts = {None: "unknown", True: "larger than the noise", False: "within the noise"}
    heads = ["Number", "Difference", f"{percent(LEVEL)} interval", "Verdict"]
    rows = []
    for key, facts in found.differences.items():
        ends = {name: facts.get(name) for name in ("standard_error", "low", "high") if is_number(facts.get(name))}
        difference = Measurement(key, value=facts.get("difference"), **ends)
        texts = (shown(difference), interval(difference), verdicts[facts.get("beyond_noise")])
        cells = [(head, (text, "")) for head, text in zip(heads[1:], texts, strict=True)]
        rows.append({"key": key, "label": "", "biased": False, "cells": cells})
    return {"heads": heads, "groups": [("", "", rows)]} if rows else {}


def in_words(facts: Mapping[str, Any]) -> str:
    """Return ``2,000 samples against 4,000 real images (mnist5k/train), on features of mnist_classifier.``"""
    if not (is_number(facts.get("n_fake")) and isinstance(facts.get("extractor"), str)):
        return ""
    reference = facts.get("reference")
    split = f" ({reference['split']})" if isinstance(reference, Mapping) and reference.get("split") else ""
    real = f" against {figure(facts['n_real'])} real images{split}" if facts.get("n_real") else ""
    return f"{figure(facts['n_fake'])} samples{real}, on features of {facts['extractor']}."


def aligned(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return the texts of a column with blanks as wide as digits, which align the decimal points."""
    tails = [len(match[1] or "") if (match := re.fullmatch(r"[\u2212\d,]+(\.\d+)?", text)) else None for text in texts]
    longest = max((tail for tail in tails if tail is not None), default=0)

    def padding(tail: int | None) -> str:
        if tail is None or tail == longest:
            return ""
        return ("" if tail else "\u2008") + "\u2007" * (longest - (tail or 1))

    return [(text, padding(tail)) for text, tail in zip(texts, tails, strict=True)]


def fact(key: str, value: Any) -> str:
    """Return a fact as text; seeds have no commas, and shares such as 0.95 no more digits than they need."""
    if str(key).endswith("seed"):
        return str(value)
    if isinstance(value, Mapping):
        return "none"
    return f"{value:g}" if isinstance(value, float) else figure(value)


def _or_nothing(value: float | None) -> str:
    return "" if value is None else figure(value)
