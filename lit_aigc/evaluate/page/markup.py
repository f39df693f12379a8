"""HTML and SVG as nested calls: whatever is not markup already is escaped, so no text can become markup."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

VOID = ("br", "img", "meta")  # elements without an end
LINES = ("div", "figure", "figcaption", "header", "li", "meta", "nav", "p", "section", "style", "svg", "title", "tr")
# Control characters have no place in HTML, and half a surrogate pair, as in a file name that is no UTF-8, no encoding.
_CONTROLS = (*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), *range(0x7F, 0xA0))
_FORBIDDEN = dict.fromkeys((*_CONTROLS, *range(0xD800, 0xE000)), "\ufffd")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def join(*children: Any) -> Markup:
    """One after the other; lists are taken apart, None is left out, and text is escaped."""
    return Markup("".join(_pieces(children)))


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """An element, such as ``tag("td", "a < b", class_="name", data_label="Key")``.

    Args:
        name: Of the element.
        children: As `join` takes them.
        attributes: By name, with ``_`` for ``-``, and at the end where Python has the word for itself. None and False
            leave an attribute out, True gives it without a value.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_escaped(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    end = "" if name in VOID else f"{join(*children)}</{name}>"
    return Markup(f"<{name}{written}>{end}" + ("\n" if name in LINES else ""))


def _pieces(children: Iterable[Any]) -> Iterable[str]:
    for child in children:
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, list | tuple):
            yield from _pieces(child)
        elif child is not None:
            yield _escaped(child)


def _escaped(value: Any) -> str:
    return html.escape(str(value).translate(_FORBIDDEN))
