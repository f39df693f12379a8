"""An evaluation as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from lit_aigc.evaluate.page.charts import Curve, bar_chart, is_level, last, line_chart, range_chart
from lit_aigc.evaluate.page.embedding import embed
from lit_aigc.evaluate.page.entries import KINDS, Entry, Findings, figure, read_findings
from lit_aigc.evaluate.page.markup import Markup, join, tag
from lit_aigc.evaluate.page.tables import all_numbers, definitions, differences, in_words, interval

if TYPE_CHECKING:
    from PIL import Image

BETTER = {"lower": "lower is better", "higher": "higher is better", "": ""}
CAPTIONS = {
    "samples": "Samples",
    "memorisation": "The most suspicious samples, and test images, beside the training images that are nearest",
    "reconstructions": "Images and their reconstructions",
}
MOST_CLASSES = 40  # with more, the bars show the worst
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # nothing is loaded, whatever a text may say


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
        results: The content of ``evaluation.json``. Keys that are not known stand in the table of all numbers.
        pictures: By name (``samples``, ``memorisation``, or a caption): Pillow images, or bytes of image files. Small
            ones are shown enlarged, pixel by pixel; large ones are made smaller, so that the page stays below 3 MB.
        curves: Of the training: steps and values by name, as `lit_aigc.loggers.csv.read_metrics` gives them.
        title: At the head of the page.
        facts: More of what was measured, such as data, date and version, by a word for each.
        class_names: One a label.
        command: What repeats the evaluation.

    Returns:
        HTML5, to be written as UTF-8.

    Raises:
        InputError: If a picture can't be read.
    """
    found = read_findings(results, class_names)
    sections = [
        ("headlines", "Results", join(_warnings(found), _cards(found))),
        ("baseline", "Against the baseline", differences(found)),
        ("pictures", "Pictures", _pictures(pictures or {})),
        ("classes", "Classes", _classes(found)),
        ("training", "Training", _training(curves or {})),
        ("numbers", "All numbers", all_numbers(found)),
        ("protocol", "Protocol", _protocol(found, command)),
    ]
    sections = [section for section in sections if section[2]]
    links = [tag("li", tag("a", name, href=f"#{key}")) for key, name, _ in sections]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(files("lit_aigc.evaluate.page").joinpath("page.css").read_text(encoding="utf-8"))),
    )
    body = tag(
        "body",
        tag("header", tag("p", "Evaluation", class_="kicker"), tag("h1", title), _measured(found, facts or {})),
        tag("nav", tag("ul", links), aria_label="Sections") if len(links) > 1 else None,
        tag("main", [_section(*section) for section in sections]),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _section(key: str, name: str, content: Markup) -> Markup:
    return tag("section", tag("h2", name, id=key), content, aria_labelledby=key)


def _measured(found: Findings, facts: Mapping[str, str]) -> Markup:
    """What was compared with what, in a sentence, and the facts."""
    lines = [tag("p", line, class_="lead") for part in found.protocol if (line := in_words(found.facts_of(part)))]
    pairs = {**found.facts, **facts}
    return join(lines, definitions(pairs, "facts") if pairs else None)


def _warnings(found: Findings) -> Markup:
    """What nobody may overlook: numbers of too few images, and samples that are copies."""
    notes = []
    for part, entries in found.by_protocol().items():
        names = list(dict.fromkeys(entry.name for entry in entries if entry.biased))
        if not names:
            continue
        facts = found.facts_of(part)
        counts = [(facts.get("n_fake"), "generated"), (facts.get("n_real"), "real")]
        images = " and ".join(f"{figure(count)} {word}" for count, word in counts if count) or "see the protocol"
        text = (
            f"There are fewer images ({images}) than features of {part or 'the extractor'}, so the Fréchet distance "
            "comes out too high, the more so the fewer the images. Compare it with none of another number of images; "
            "take more images, or look at KID, which has no such bias."
        )
        notes.append(tag("p", tag("strong", f"Biased: {', '.join(names)}. "), text, class_="warning", role="note"))
    if any(entry.key == "memorised" and entry.value is True for entry in found.entries):
        text = "The audit finds more samples that repeat training images than real test images would give by chance."
        notes.append(tag("p", tag("strong", "Memorised. "), text, class_="warning", role="note"))
    return join(notes)


def _cards(found: Findings) -> Markup | None:
    cards = [_card(entry, found.level(entry)) for entry in found.headlines()]
    return tag("ul", cards, class_="cards") if cards else None


def _card(entry: Entry, level: str) -> Markup:
    variant = entry.variant if entry.variant == entry.protocol else entry.variant.replace("_", " ")
    lines = []
    if entry.low is not None and entry.high is not None:
        lines.append(tag("li", tag("span", class_="sign interval"), f"{level} interval ", tag("b", interval(entry))))
    elif entry.standard_error is not None:
        lines.append(tag("li", "standard error ", tag("b", figure(entry.standard_error))))
    if entry.real is not None:
        lines.append(tag("li", tag("span", class_="sign real"), "real images ", tag("b", figure(entry.real))))
    return tag(
        "li",
        tag(
            "p",
            tag("span", entry.name, class_="name"),
            tag("span", "biased", class_="flag") if entry.biased else None,
            tag("span", variant, class_="variant") if variant else None,
        ),
        tag("p", entry.shown(), class_="figure"),
        range_chart(entry),
        tag("ul", lines, class_="beside") if lines else None,
        tag("p", _capital("; ".join(filter(None, (entry.kind.meaning, BETTER[entry.kind.better])))), class_="note"),
        class_="card biased" if entry.biased else "card",
    )


def _pictures(pictures: Mapping[str, Image.Image | bytes]) -> Markup | None:
    """Each picture with its caption."""
    figures = []
    for name, picture in pictures.items():
        embedded, caption = embed(picture, name, len(pictures)), CAPTIONS.get(name, name)
        image = tag(
            "img",
            src=embedded.source,
            alt=f"{caption}, {embedded.width} by {embedded.height} pixels",
            width=embedded.width * embedded.factor,
            height=embedded.height * embedded.factor,
            class_="pixels" if embedded.factor > 1 else None,
        )
        figures.append(tag("figure", tag("figcaption", caption), image))
    return join(figures) if figures else None


def _classes(found: Findings) -> Markup | None:
    """Bars of each number that there is for every class."""
    figures = []
    for mean, classes in found.classes().items():
        shown, of = classes, f"{len(classes)} classes"
        if len(classes) > MOST_CLASSES:
            shown = sorted(
                classes, key=lambda each: each.value, reverse=mean.kind is None or mean.kind.better != "higher"
            )
            shown, of = shown[:MOST_CLASSES], f"the worst {MOST_CLASSES} of {len(classes):,} classes"
        better = BETTER[mean.kind.better] if mean.kind else ""
        parts = [f"{of}", *([better] if better else []), f"the line is the mean, {mean.shown()}"]
        flag = tag("span", "biased", class_="flag") if mean.biased else None
        caption = tag(
            "figcaption", tag("b", mean.name), flag, f" {'; '.join(parts)}", mean.variant and f" ({mean.variant})"
        )
        figures.append(tag("figure", caption, bar_chart(mean, shown)))
    return tag("div", figures, class_="groups") if figures else None


def _training(curves: Mapping[str, Curve]) -> Markup | None:
    """Losses and measured numbers over samples seen; behind a click whatever else was logged."""
    if not any(steps for steps, _ in curves.values()):
        return None
    from lit_aigc.callbacks.curves import panels

    end = max(max(steps) for steps, _ in curves.values() if steps)
    groups = panels(curves)
    more = [name for name in groups if name.startswith("training: ")]
    first = [_curves(name, group, end) for name, group in groups.items() if name not in more]
    rest = [_curves(name, groups[name], end) for name in more]
    behind = (
        tag("details", tag("summary", "Other values of the training"), tag("div", rest, class_="charts"))
        if rest
        else None
    )
    return join(tag("div", first, class_="charts") if first else None, behind)


def _curves(name: str, group: Mapping[str, Curve], end: float) -> Markup:
    levels = {key: last(curve) for key, curve in group.items() if is_level(key) and len(set(curve[1])) == 1}
    moving = {key: curve for key, curve in group.items() if key not in levels}
    if not moving:
        moving, levels = dict(group), {}
    signs = [f"sign curve c{place % 7}" for place in range(len(moving))] + ["sign level"] * len(levels)
    ends = [(key, last(curve)) for key, curve in moving.items()]
    ends += [("real images" if len(levels) == 1 else key, value) for key, value in levels.items()]
    legend = [
        tag("li", tag("span", class_=sign), f"{key} ", tag("b", figure(value)))
        for sign, (key, value) in zip(signs, ends, strict=True)
    ]
    heading = KINDS[name].name if name in KINDS else _capital(name.removeprefix("training: "))
    return tag("figure", tag("figcaption", tag("b", heading), tag("ul", legend)), line_chart(moving, levels, end))


def _protocol(found: Findings, command: str) -> Markup | None:
    """The command, and behind a click all that the numbers depend on."""
    repeat = join(tag("p", "The same numbers again:"), tag("pre", tag("code", command))) if command else None
    parts = {name: facts for name, facts in found.protocol.items() if isinstance(facts, Mapping)}
    rest = {name: facts for name, facts in found.protocol.items() if name not in parts}
    lists = [join(tag("h3", name), definitions(facts, "protocol")) for name, facts in parts.items()]
    lists += [definitions(rest, "protocol")] if rest else []
    details = tag("details", tag("summary", "What the numbers depend on"), lists) if lists else None
    return join(repeat, details) if repeat or details else None


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
