"""Tables and definition lists of the page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lit_aigc.evaluate.page.entries import Entry, Findings, figure, is_number
from lit_aigc.evaluate.page.markup import Markup, join, tag

LEVEL = "95\u00a0% interval"  # of `lit_aigc.metrics.bootstrap.Difference`


def all_numbers(found: Findings) -> Markup | None:
    """Every number, by the part of the protocol that it depends on; a column that nothing stands in is left out."""
    levels = {found.level(entry) for entry in found.entries}
    columns = {
        "Value": [entry.shown() for entry in found.entries],
        "Standard error": [_or_nothing(entry.standard_error) for entry in found.entries],
        f"{levels.pop()} interval" if len(levels) == 1 else "Interval": [interval(entry) for entry in found.entries],
        "Real images": [_or_nothing(entry.real) for entry in found.entries],
    }
    columns = {head: texts for head, texts in columns.items() if any(texts)}
    keys = [entry.key for entry in found.entries]
    cells = dict(zip(keys, zip(*map(aligned, columns.values()), strict=True), strict=True))
    bodies = []
    for part, entries in found.by_protocol().items():
        words = f" {in_words(found.facts_of(part)).removesuffix('.')}"
        group = tag(
            "th", tag("b", part or "Other"), words, colspan=len(columns) + 1, scope="rowgroup", role="rowheader"
        )
        rows = [tag("tr", group, class_="group", role="row")]
        for entry in entries:
            named = entry.label is not None and not entry.key.endswith(f"_{entry.label}")
            flag = tag("span", "biased", class_="flag") if entry.biased else None
            name = join(tag("code", entry.key), f" {entry.label}" if named else None, flag)
            rows.append(_row(name, zip(columns, cells[entry.key], strict=True)))
        bodies.append(tag("tbody", rows, role="rowgroup"))
    return _table(["Number", *columns], bodies) if bodies else None


def differences(found: Findings) -> Markup | None:
    """Whether numbers differ from those of a baseline by more than the noise."""
    rows = []
    for key, difference in found.differences.items():
        beyond = difference.get("beyond_noise")
        verdict = "unknown" if beyond is None else "larger than the noise" if beyond else "within the noise"
        entry = Entry(
            key,
            difference.get("difference"),
            **{
                name: difference.get(name)
                for name in ("standard_error", "low", "high")
                if is_number(difference.get(name))
            },
        )
        cells = {"Difference": entry.shown(), LEVEL: interval(entry), "Verdict": verdict}
        rows.append(_row(tag("code", key), cells.items()))
    return _table(["Number", "Difference", LEVEL, "Verdict"], [tag("tbody", rows, role="rowgroup")]) if rows else None


def definitions(facts: Mapping[str, Any], class_: str) -> Markup:
    """A definition list; a mapping inside is a list inside."""
    pairs = []
    for key, value in facts.items():
        inner = definitions(value, class_) if isinstance(value, Mapping) and value else _fact(str(key), value)
        pairs.append(tag("div", tag("dt", str(key).replace("_", " ")), tag("dd", inner)))
    return tag("dl", pairs, class_=class_)


def in_words(facts: Mapping[str, Any]) -> str:
    """``2,000 samples against 4,000 real images (mnist5k/train), on features of mnist_classifier.``"""
    if not (is_number(facts.get("n_fake")) and isinstance(facts.get("extractor"), str)):
        return ""
    reference = facts.get("reference")
    split = f" ({reference['split']})" if isinstance(reference, Mapping) and reference.get("split") else ""
    real = f" against {figure(facts['n_real'])} real images{split}" if facts.get("n_real") else ""
    return f"{figure(facts['n_fake'])} samples{real}, on features of {facts['extractor']}."


def interval(entry: Entry) -> str:
    """``7.24 to 8.07``, or nothing."""
    if entry.low is None or entry.high is None:
        return ""
    return f"{entry.shown(entry.low)} to {entry.shown(entry.high)}"


def aligned(texts: Sequence[str]) -> list[Any]:
    """The texts of a column with blanks as wide as digits behind them: decimal points stand below each other."""
    tails = [len(found[1] or "") if (found := re.fullmatch(r"[\u2212\d,]+(\.\d+)?", text)) else None for text in texts]
    longest = max((tail for tail in tails if tail is not None), default=0)
    return [
        join(
            text,
            tag(
                "span",
                ("" if tail else "\u2008") + "\u2007" * (longest - (tail or 1)),
                class_="pad",
                aria_hidden="true",
            ),
        )
        if tail is not None and tail < longest
        else text
        for text, tail in zip(texts, tails, strict=True)
    ]


def _table(heads: Sequence[str], bodies: Sequence[Markup]) -> Markup:
    """A table that becomes a list on a narrow screen; the roles keep it a table for those who hear it."""
    cells = [tag("th", head, scope="col", role="columnheader") for head in heads]
    head = tag("thead", tag("tr", cells, role="row"), role="rowgroup")
    return tag("table", head, bodies, class_="numbers", role="table")


def _row(name: Markup, cells: Iterable[tuple[str, Any]]) -> Markup:
    written = [tag("td", text, data_label=head, class_=None if text else "empty", role="cell") for head, text in cells]
    return tag("tr", tag("th", name, scope="row", role="rowheader"), written, role="row")


def _or_nothing(value: float | None) -> str:
    return "" if value is None else figure(value)


def _fact(key: str, value: Any) -> str:
    """A fact as text; seeds have no commas, and shares such as 0.95 no more digits than they need."""
    if key.endswith("seed"):
        return str(value)
    if isinstance(value, Mapping):
        return "none"
    return f"{value:g}" if isinstance(value, float) else figure(value)
