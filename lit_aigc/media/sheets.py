"""Contact sheets: images in captioned panels on a white page, for people to look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from lit_aigc.media.fonts import Typeface, readable
from lit_aigc.media.images import make_grid, to_pil, upscale

MARGIN = 18
GAP = 18  # between panels
PADDING = 2  # between images
SMALLEST_SIDE = 48  # smaller images are enlarged by a whole factor
CAPTION_SIZE = 13
TITLE_SIZE = 16
LONGEST_NAME = 16
DARK, LIGHT = (38, 38, 38), (110, 110, 110)


@dataclasses.dataclass(frozen=True)
class Panel:
    """A block of images with a caption above.

    Attributes:
        images: ``(rows * columns, C, H, W)`` uint8, row by row; C is 1 or 3.
        columns: Images per row.
        caption: A word or two.
        row_names: A name for each row, written to its left; empty for none.
        column_names: A name for each column, written above it; empty for none.
    """

    images: Tensor
    columns: int
    caption: str = ""
    row_names: Sequence[str] = ()
    column_names: Sequence[str] = ()

    def picture(self) -> Image.Image:
        """Return the images alone, enlarged by a whole factor if they are tiny."""
        factor = max(1, -(-SMALLEST_SIDE // max(self.images.shape[-2:])))
        return to_pil(make_grid(upscale(self.images, factor), self.columns, PADDING)).convert("RGB")


def draw_sheet(bands: Sequence[Sequence[Panel]], title: str = "", attribution: str = "") -> Image.Image:
    """Draw bands of panels: panels of a band side by side, bands below each other, all left-aligned.

    Args:
        bands: The panels; those without images are omitted.
        title: A line at the top.
        attribution: Attribution of the data, which is added to the title; empty if the license requires none.

    Returns:
        The page, mode "RGB".
    """
    title += f"; data: {attribution}" if attribution else ""
    captions, titles = Typeface(CAPTION_SIZE), Typeface(TITLE_SIZE)
    bands = [[panel for panel in band if len(panel.images)] for band in bands]
    row_names = [name for band in bands for panel in band for name in panel.row_names]
    names_width = max((captions.length(_short(name)) for name in row_names), default=0)
    left = MARGIN + (round(names_width) + 8 if names_width else 0)
    pictures = [[panel.picture() for panel in band] for band in bands]
    tops = [(CAPTION_SIZE + 7) * _lines(band) for band in bands]
    heights = [max((picture.height for picture in band), default=0) for band in pictures]
    widths = [sum(picture.width + GAP for picture in band) - GAP for band in pictures if band]
    title_height = TITLE_SIZE + 12 if title else 0
    title_width = round(titles.length(title))
    width = max(left + max(widths, default=0), MARGIN + title_width) + MARGIN
    height = 2 * MARGIN + title_height + sum(top + h + GAP for top, h in zip(tops, heights, strict=True) if h) - GAP

    page = Image.new("RGB", (width, max(height, 2 * MARGIN)), "white")
    draw = ImageDraw.Draw(page)
    titles.draw(draw, (MARGIN, MARGIN), title, DARK, "la")
    y = MARGIN + title_height
    for band, band_pictures, top, band_height in zip(bands, pictures, tops, heights, strict=True):
        x = left
        for panel, picture in zip(band, band_pictures, strict=True):
            captions.draw(draw, (x, y + CAPTION_SIZE + 1), panel.caption, LIGHT, "ls")
            page.paste(picture, (x, y + top))
            pitch = (picture.width + PADDING) / panel.columns
            for column, name in enumerate(panel.column_names):
                middle = x + round(column * pitch + (pitch - PADDING) / 2)
                captions.draw(draw, (middle, y + top - 6), _short(name), LIGHT, "ms")
            rows = len(panel.images) // panel.columns
            pitch = (picture.height + PADDING) / max(rows, 1)
            for row, name in enumerate(panel.row_names):
                middle = y + top + round(row * pitch + (pitch - PADDING) / 2)
                captions.draw(draw, (x - 8, middle), _short(name), LIGHT, "rm")
            x += picture.width + GAP
        y += top + band_height + GAP if band else 0
    return page


def _lines(band: Sequence[Panel]) -> int:
    """Return the number of lines of text above the images: captions, names of columns, or both."""
    named = any(panel.column_names for panel in band)
    return named + (not named or any(panel.caption for panel in band))


def _short(name: str) -> str:
    name = readable(name)
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
