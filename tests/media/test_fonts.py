"""Text on pictures: accents are drawn, other scripts by a font that has them, the rest by their code points."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from lit_aigc.latents.codes import draw_map
from lit_aigc.media import fonts
from lit_aigc.media.fonts import Typeface, families, readable
from lit_aigc.media.sheets import Panel, draw_sheet

DEJAVU = fonts._dejavu()
STIX = str(Path(DEJAVU).with_name("STIXGeneral.ttf"))
CIRCLED = "\u24b6"  # in STIX, not in DejaVu
BOX = "\U0010fffe"  # in no font


@pytest.fixture(autouse=True)
def no_system_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test sees DejaVu alone, and nothing that another found."""
    monkeypatch.setattr(fonts, "_system_fonts", lambda: ())
    monkeypatch.setattr(fonts, "_font_of", {})
    monkeypatch.setattr(fonts, "_advised", set())


def drawn(text: str, font: str | None = None) -> np.ndarray:
    """The pixels of a text, as we draw it or as a font alone does."""
    page = Image.new("L", (200, 40))
    if font:
        ImageDraw.Draw(page).text((10, 30), text, 255, ImageFont.truetype(font, 20), anchor="ls")
    else:
        Typeface(20).draw(ImageDraw.Draw(page), (10, 30), text, 255, "ls")
    return np.asarray(page)


def test_accents_and_other_alphabets_are_drawn() -> None:
    for character in "éßøčğΩжא…\u2013":
        assert not np.array_equal(drawn(character), drawn(BOX, DEJAVU)), character
    for text in ("chat bébé", "e\u0301te\u0301", "кот"):
        assert readable(text) == text
        assert np.array_equal(drawn(text), drawn(text, DEJAVU))
    assert not np.array_equal(drawn("bébé"), drawn("bebe"))


def test_what_no_font_has_is_drawn_by_its_code_point(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert readable("猫") == "U+732B"
        assert readable("chat 猫犬\U000e0067!") == "chat U+732B U+72AC!"
        assert readable("\U0001e900") == "U+1E900"
    assert np.array_equal(drawn("猫"), drawn("U+732B", DEJAVU))
    first, second = caplog.messages
    assert "No font on this machine has 猫" in first and "fonts-noto-cjk" in first and "\n" not in first
    assert "fonts-noto-core" in second


def test_a_font_of_the_system_draws_what_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(fonts, "_system_fonts", lambda: (str(tmp_path / "broken.ttf"), STIX))
    assert readable(f"a{CIRCLED}") == f"a{CIRCLED}"
    assert np.array_equal(drawn(CIRCLED), drawn(CIRCLED, STIX))
    assert not np.array_equal(drawn(CIRCLED), drawn(BOX, DEJAVU))
    width = [ImageFont.truetype(font, 20).getlength(text) for font, text in ((DEJAVU, "a"), (STIX, CIRCLED))]
    assert Typeface(20).length(f"a{CIRCLED}") == sum(width)
    assert families(["a", CIRCLED]) == ["DejaVu Sans", "STIXGeneral"]


def test_sheets_and_maps_draw_names_in_any_script(recwarn: pytest.WarningsRecorder) -> None:
    def sheet(name: str) -> np.ndarray:
        images = torch.zeros(2, 1, 48, 48, dtype=torch.uint8)
        return np.asarray(draw_sheet([[Panel(images, 1, "real", [name, "b" * 9])]], name))

    assert np.array_equal(sheet("猫"), sheet("U+732B"))
    assert not np.array_equal(sheet("bébé"), sheet("bebe"))
    codes, labels = torch.randn(12, 3), torch.arange(12) % 2
    assert np.array_equal(draw_map(codes, labels, ["猫", "é"]), draw_map(codes, labels, ["U+732B", "é"]))
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_plain_fonts_with_much_in_them_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = [
        "/f/zz.ttf",
        "/f/NotoColorEmoji.ttf",
        "/f/NotoSansCJK-Bold.ttc",
        "/f/NotoSansCJK-Regular.ttc",
        "/f/wqy.ttc",
    ]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: found)
    assert fonts._system_fonts.__wrapped__() == (found[3], found[2], found[4], found[0])
