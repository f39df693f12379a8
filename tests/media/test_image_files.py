"""Decoding, channels and sizes, against Pillow."""

from __future__ import annotations

import functools
import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from lit_aigc.errors import InputError
from lit_aigc.media.image_files import (
    AnimatedImageError,
    UnreadableImageError,
    decode,
    map_in_threads,
    prepare,
    probe,
    read_folder,
    to_channels,
    to_size,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "options"), [("png", {}), ("bmp", {}), ("webp", {"lossless": True}), ("tiff", {})])
def test_lossless_formats_decode_to_the_same_pixels(kind: str, options: dict) -> None:
    image = decode(encoded(Image.fromarray(PIXELS), kind, **options))
    assert np.array_equal(image.pixels.permute(1, 2, 0).numpy(), PIXELS)
    assert image.opaque
    assert image.digest() == decode(encoded(Image.fromarray(PIXELS), "png")).digest()


def test_jpeg_and_gif_decode_as_pillow_does() -> None:
    for kind in ("jpeg", "gif"):
        content = encoded(Image.fromarray(PIXELS), kind)
        expected = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
        assert np.array_equal(decode(content).pixels.permute(1, 2, 0).numpy(), expected)


def test_grey_stays_one_channel() -> None:
    grey = Image.fromarray(PIXELS[:, :, 0])
    assert np.array_equal(decode(encoded(grey, "png")).pixels.numpy(), PIXELS[None, :, :, 0])
    assert probe(encoded(grey, "png")) == (1, 10, 14)
    assert probe(encoded(Image.fromarray(PIXELS), "png")) == (3, 10, 14)


def test_sixteen_bits_come_down_to_eight() -> None:
    deep = PIXELS[:, :, 0].astype(np.uint16) * 257
    assert np.array_equal(decode(encoded(Image.fromarray(deep), "png")).pixels[0].numpy(), PIXELS[:, :, 0])


def test_tiff_of_unknown_range_is_unreadable() -> None:
    deep = PIXELS[:, :, 0].astype(np.uint16) * 257
    assert np.array_equal(decode(encoded(Image.fromarray(deep), "tiff")).pixels[0].numpy(), PIXELS[:, :, 0])
    for kind in (np.float32, np.int32):
        content = encoded(Image.fromarray(PIXELS[:, :, 0].astype(kind)), "tiff")
        for refuse in (decode, functools.partial(probe, strict=True)):
            with pytest.raises(UnreadableImageError, match="32 bits per pixel"):
                refuse(content)


def test_what_had_to_be_converted_is_marked() -> None:
    deep = encoded(Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257), "png")
    cmyk = encoded(Image.fromarray(PIXELS).convert("CMYK"), "jpeg")
    assert decode(deep).converted and decode(cmyk).converted
    for image in (Image.fromarray(PIXELS), Image.fromarray(PIXELS).convert("P"), Image.fromarray(PIXELS[:, :, 0])):
        assert not decode(encoded(image, "png")).converted


def test_decoding_in_threads_leaves_the_warnings_of_the_process_alone(monkeypatch) -> None:
    monkeypatch.setattr(warnings, "catch_warnings", None)  # it is for one thread at a time
    contents = [encoded(Image.fromarray(PIXELS), "png")] * 5
    assert len(list(map_in_threads(decode, contents, 2))) == 5
    assert probe(contents[0]) == (3, 10, 14)


def test_transparent_pixels_become_white() -> None:
    values = np.zeros((2, 2, 4), dtype=np.uint8)
    values[0, 0] = (10, 20, 30, 255)
    image = decode(encoded(Image.fromarray(values), "png"))
    assert not image.opaque
    assert image.pixels[:, 0, 0].tolist() == [10, 20, 30]
    assert (image.pixels[:, 1] == 255).all()
    values[:, :, 3] = 255
    assert decode(encoded(Image.fromarray(values), "png")).opaque


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_photographs_are_turned_upright(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    content = encoded(Image.fromarray(PIXELS), kind, exif=exif)
    assert np.array_equal(decode(content).pixels.permute(1, 2, 0).numpy(), np.rot90(PIXELS, -1))
    assert probe(content) == (3, 14, 10)


@pytest.mark.parametrize("content", [b"", b"no image", encoded(Image.fromarray(PIXELS), "png")[:150]])
def test_what_is_no_whole_image_is_unreadable(content: bytes) -> None:
    with pytest.raises(UnreadableImageError, match=r"\w"):
        decode(content)


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "tiff"])
def test_animations_are_told_apart(kind: str) -> None:
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1].copy())]
    with pytest.raises(AnimatedImageError):
        decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))


def test_formats_that_are_not_listed_are_refused() -> None:
    with pytest.raises(UnreadableImageError):
        decode(encoded(Image.fromarray(PIXELS), "ppm"))


def test_grey_and_colour_as_pillow_has_them() -> None:
    colour = torch.from_numpy(PIXELS).permute(2, 0, 1)[None]
    grey = to_channels(colour, 1)
    assert np.array_equal(grey[0, 0].numpy(), np.array(Image.fromarray(PIXELS).convert("L")))
    assert torch.equal(to_channels(grey, 3), grey.repeat(1, 3, 1, 1))


@pytest.mark.parametrize(("height", "width", "size"), [(10, 14, 5), (10, 14, 20), (14, 10, 10), (9, 9, 4), (30, 7, 11)])
def test_resizing_is_pillows_antialiased_bilinear_and_a_centre_crop(height: int, width: int, size: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    resized = to_size(torch.from_numpy(pixels).permute(2, 0, 1)[None], size)
    shorter = min(height, width)
    target = (round(width * size / shorter), round(height * size / shorter))
    left, top = (target[0] - size) // 2, (target[1] - size) // 2
    expected = (
        Image.fromarray(pixels).resize(target, Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    )
    difference = resized[0].permute(1, 2, 0).int() - torch.from_numpy(np.array(expected)).int()
    assert resized.shape == (1, 3, size, size)
    assert difference.abs().max() <= 1


def test_prepare_gives_contiguous_pixels_of_the_asked_shape() -> None:
    colour = torch.from_numpy(PIXELS).permute(2, 0, 1)[None]
    assert prepare(colour, None, None).shape == (1, 10, 14, 3)
    assert prepare(colour, 8, 1).shape == (1, 8, 8, 1)
    assert prepare(to_channels(colour, 1), 8, 3).shape == (1, 8, 8, 3)
    assert prepare(colour, 8, 3).is_contiguous()


def write(path, image: Image.Image, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def test_a_folder_is_read_in_the_order_of_its_names_and_as_the_model_needs_it(tmp_path) -> None:
    write(tmp_path / "b.png", Image.fromarray(PIXELS))
    write(tmp_path / "a" / "z.jpg", Image.fromarray(np.full((8, 8), 100, dtype=np.uint8)))
    write(tmp_path / ".hidden" / "c.png", Image.fromarray(PIXELS))
    (tmp_path / "notes.txt").write_text("no image")
    for channels in (1, 3):
        images, names = read_folder(tmp_path, (channels, 8, 8))
        assert names == ["a/z.jpg", "b.png"]
        assert (images.dtype, tuple(images.shape)) == (torch.uint8, (2, channels, 8, 8))
        assert (images[0] == 100).all()
        expected = prepare(torch.from_numpy(PIXELS).permute(2, 0, 1)[None], 8, channels)[0].permute(2, 0, 1)
        assert torch.equal(images[1], expected)


def test_images_that_are_no_squares_must_have_the_models_size(tmp_path) -> None:
    write(tmp_path / "a.png", Image.fromarray(PIXELS))
    assert np.array_equal(read_folder(tmp_path, (3, 10, 14))[0][0].permute(1, 2, 0).numpy(), PIXELS)
    with pytest.raises(InputError, match=r"a\.png is not 14x10"):
        read_folder(tmp_path, (3, 14, 10))


def test_folders_that_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        read_folder(tmp_path / "nowhere", (1, 8, 8))
    with pytest.raises(InputError, match="no images in"):
        read_folder(tmp_path, (1, 8, 8))
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    write(tmp_path / "b.gif", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"b\.gif is animated"):
        read_folder(tmp_path, (1, 8, 8))
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a\.png can't be read as an image: not an image"):
        read_folder(tmp_path, (1, 8, 8))
