"""Text on pictures in any script: in DejaVu Sans, else in fonts of the system, else as code points."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import logging
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import ImageDraw, ImageFont

log = logging.getLogger(__name__)

_FIRST = (
    "notosanscjk", "sourcehansans", "notosans", "wqy", "droidsansfallback", "pingfang", "hiragino", "msyh", "malgun",
)  # fmt: skip
_NEVER = ("color", "colour", "lastresort", "adobeblank")  # bitmaps of one size, and fonts of placeholder boxes
_STYLES = ("bold", "black", "medium", "light", "thin", "italic", "oblique", "condensed", "mono", "serif")
_PACKAGES = {
    True: "apt install fonts-noto-cjk (Debian, Ubuntu), dnf install google-noto-sans-cjk-fonts (Fedora)",
    False: "apt install fonts-noto-core (Debian, Ubuntu), dnf install google-noto-sans-fonts (Fedora)",
}

_EAST_ASIAN = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "FULLWIDTH", "IDEOGRAPHIC"}

_advised: set[str] = set()
_font_of: dict[str, str | None] = {}  # the font file that has a character; None: none has it


class Typeface:
    """Text in one size, each character in a font that has it.

    Args:
        size: Pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def length(self, text: str) -> float:
        """Return the width of a line of text in pixels."""
        return sum(_loaded(font, self.size).getlength(part) for font, part in _runs(text))

    def draw(
        self, page: ImageDraw.ImageDraw, place: tuple[float, float], text: str, fill: tuple[int, int, int], anchor: str
    ) -> None:
        """Draw a line of text.

        Args:
            page: The page to draw on.
            place: Pixel of the anchor.
            text: The line.
            fill: Its color.
            anchor: As in Pillow: ``l``, ``m`` or ``r``, then ``a`` (top), ``m`` (middle) or ``s`` (baseline).
        """
        x, y = place
        ascent, descent = _loaded(_dejavu(), self.size).getmetrics()
        x -= {"l": 0, "m": 0.5, "r": 1}[anchor[0]] * self.length(text)
        y += {"s": 0, "m": (ascent - descent) / 2, "a": ascent}[anchor[1]]
        for font, part in _runs(text):
            page.text((x, y), part, font=_loaded(font, self.size), fill=fill, anchor="ls")
            x += _loaded(font, self.size).getlength(part)


def readable(text: str) -> str:
    """Replace each character that no font on this machine has by its code point, such as ``U+732B``."""
    _find_fonts(text)
    parts = []
    for missing, group in itertools.groupby(text, key=lambda character: _font_of[character] is None):
        drawn = [character for character in group if not missing or unicodedata.category(character) not in ("Mn", "Cf")]
        parts.append(" ".join(f"U+{ord(character):04X}" for character in drawn) if missing else "".join(drawn))
    return "".join(parts)


def families(texts: Iterable[str]) -> list[str]:
    """Return the names of fonts that have all readable characters of these texts, as matplotlib takes them."""
    from matplotlib import font_manager

    found = dict.fromkeys(font for text in texts for font, _ in _runs(text))
    for font in found:
        font_manager.fontManager.addfont(font)
    names = [font_manager.get_font(font).family_name for font in found]
    return list(dict.fromkeys(["DejaVu Sans", *names]))


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """Yield fonts, and the parts of the readable text that they draw."""
    text = readable(text)
    _find_fonts(text)
    for font, group in itertools.groupby(text, key=_font_of.__getitem__):
        yield font, "".join(group)


def _find_fonts(text: str) -> None:
    """Add the characters of a text to `_font_of`."""
    unknown = set(text) - set(_font_of)
    plain = {character for character in unknown if " " <= character <= "~"}
    _font_of.update(dict.fromkeys(plain, _dejavu()))
    unknown -= plain
    for font in itertools.chain([_dejavu()], _system_fonts()) if unknown else ():
        found = _drawn_by(font, unknown)
        _font_of.update(dict.fromkeys(found, font))
        unknown -= found
        if not unknown:
            return
    _font_of.update(dict.fromkeys(unknown))
    visible = sorted(character for character in unknown if unicodedata.category(character) not in ("Mn", "Cf"))
    if visible:
        scripts = {unicodedata.name(character, "").split(" ")[0] for character in visible}
        _advise(_PACKAGES[bool(scripts & _EAST_ASIAN)], visible[0])


def _advise(package: str, character: str) -> None:
    if package not in _advised:
        _advised.add(package)
        log.warning(
            f"No font on this machine has {character}: pictures show U+{ord(character):04X} instead, and so on. "
            f"Install a font: {package}."
        )


def _drawn_by(font: str, characters: Iterable[str]) -> set[str]:
    from matplotlib.ft2font import FT2Font

    try:
        opened = FT2Font(font)
    except (OSError, RuntimeError):  # a format that FreeType can't read
        return set()
    return {character for character in characters if opened.get_char_index(ord(character))}


@functools.cache
def _dejavu() -> str:
    """Return the font that comes with matplotlib."""
    package = importlib.util.find_spec("matplotlib")
    return str(Path(package.submodule_search_locations[0], "mpl-data", "fonts", "ttf", "DejaVuSans.ttf"))


@functools.cache
def _system_fonts() -> tuple[str, ...]:
    """Return the files of installed fonts, plain ones with many characters first."""
    from matplotlib.font_manager import findSystemFonts

    def rank(font: str) -> tuple[int, bool, str]:
        name = Path(font).stem.lower().replace("-", "").replace("_", "")
        known = next((place for place, start in enumerate(_FIRST) if name.startswith(start)), len(_FIRST))
        return known, any(style in name for style in _STYLES), font

    fonts = findSystemFonts()
    return tuple(sorted((font for font in fonts if not any(n in Path(font).stem.lower() for n in _NEVER)), key=rank))


@functools.cache
def _loaded(font: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font, size)
