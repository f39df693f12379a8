"""Sets of images from elsewhere: the same stream from a folder, a zip and an array, and what is refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_aigc.errors import InputError
from lit_aigc.evaluate.checks import check_pair
from lit_aigc.media.image_files import decode
from lit_aigc.media.image_sets import open_image_set
from lit_aigc.metrics.frechet import SmallSampleWarning
from lit_aigc.metrics.generative import evaluate_samples
from lit_aigc.metrics.reference import compute_reference, extract
from lit_aigc.spec import Batch
from tests.metrics.toy import MeanColour

N = 23


def pixels(seed: int = 0, channels: int = 3, n: int = N, size: tuple[int, int] = (8, 6)) -> np.ndarray:
    """uint8 ``(n, H, W, C)``."""
    return np.random.default_rng(seed).integers(0, 256, (n, *size, channels), dtype=np.uint8)


def encoded(image: np.ndarray, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, kind)
    return buffer.getvalue()


def names(n: int) -> list[str]:
    """In the order of the alphabet, some in folders."""
    return [f"{'b/' if i >= n // 2 else ''}{i:03d}.png" for i in range(n)]


def write(kind: str, where: Path, images: np.ndarray) -> Path:
    """The images as a set of that kind."""
    where.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        (where / "set" / "b").mkdir(parents=True)
        for name, image in zip(names(len(images)), images, strict=True):
            (where / "set" / name).write_bytes(encoded(image))
        (where / "set" / "notes.txt").write_text("no image")
        return where / "set"
    if kind == "zip":
        with zipfile.ZipFile(where / "set.zip", "w") as archive:
            for name, image in reversed(list(zip(names(len(images)), images, strict=True))):
                archive.writestr(name, encoded(image))
        return where / "set.zip"
    path = where / "set.npz"
    arrays = {
        "npz": {"arr_0": images, "labels": np.arange(len(images))},
        "npz channels first": {"images": np.ascontiguousarray(images.transpose(0, 3, 1, 2))},
        "npz of one array": {"anything": images},
        "npz compressed": {"arr_0": images},
        "npz without channels": {"arr_0": images[..., 0]},
    }[kind]
    (np.savez_compressed if kind == "npz compressed" else np.savez)(path, **arrays)
    return path


KINDS = ("folder", "zip", "npz", "npz channels first", "npz of one array", "npz compressed")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_images_in_the_same_order_from_all_kinds(tmp_path, kind, channels):
    images = pixels(channels=channels)
    found = open_image_set(write(kind, tmp_path, images), "fake")
    assert (found.count, found.pixels.distinct, found.shape) == (N, N, (channels, 8, 6))
    assert found.pixels.colored is (channels == 3)
    for size in (1, 7, 64):
        batches = list(found.batches(size))
        assert [batch.start for batch in batches] == list(range(0, N, size))
        stream = torch.cat([batch.images for batch in batches])
        assert stream.dtype == torch.uint8
        assert np.array_equal(stream.permute(0, 2, 3, 1).numpy(), images)
    whole = open_image_set(write("npz", tmp_path / "other", images), "real")
    assert found.pixels.fingerprint == whole.pixels.fingerprint
    assert found.facts() == whole.facts() | {"path": found.path}


@pytest.mark.parametrize("kind", ["folder", "npz compressed"])
def test_shares_of_processes_make_up_the_set_without_padding(tmp_path, kind):
    images = pixels()
    found = open_image_set(write(kind, tmp_path, images), "fake")
    shares = [batch for rank in range(3) for batch in found.batches(4, rank=rank, world_size=3)]
    shares.sort(key=lambda batch: batch.start)
    assert [batch.start for batch in shares] == [0, 4, 8, 12, 16, 20]
    assert np.array_equal(torch.cat([batch.images for batch in shares]).permute(0, 2, 3, 1).numpy(), images)


def test_an_array_without_channels_is_grey(tmp_path):
    images = pixels(channels=1)
    found = open_image_set(write("npz without channels", tmp_path, images), "fake")
    assert np.array_equal(torch.cat([b.images for b in found.batches()])[:, 0].numpy(), images[..., 0])


def test_the_fingerprint_is_that_of_pixels_and_order(tmp_path):
    images = pixels()
    changed = images.copy()
    changed[-1, -1, -1, -1] ^= 1
    sets = (images, changed, images[::-1], images[:-1], images.reshape(N, 6, 8, 3), pixels(channels=1))
    found = [open_image_set(write("npz", tmp_path / str(i), x), "real").pixels.fingerprint for i, x in enumerate(sets)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("kind", ["folder", "zip", "npz"])
def test_numbers_are_those_of_the_images_in_memory(tmp_path, kind, size):
    extractor = MeanColour().double()
    real, fake = pixels(1, n=31), pixels(2) // 2
    in_memory = [Batch(torch.from_numpy(x).permute(0, 3, 1, 2), None, 0) for x in (real, fake)]
    expected, _ = evaluate_samples(
        in_memory[1:], extractor, compute_reference(in_memory[:1], extractor, split="real"), ("fid", "kid", "is")
    )
    sets = [open_image_set(write(kind, tmp_path / key, x), key) for key, x in (("real", real), ("fake", fake))]
    reference = compute_reference(sets[0].batches(size), extractor, split="real")
    values, protocol = evaluate_samples(sets[1].batches(size), extractor, reference, ("fid", "kid", "is"))
    assert values == pytest.approx(expected, rel=1e-9)
    assert (protocol["n_real"], protocol["n_fake"]) == (31, N)


def test_grey_images_among_colour_ones_are_repeated(tmp_path):
    images = pixels()
    folder = write("folder", tmp_path, images)
    (folder / "z.png").write_bytes(encoded(pixels(5, channels=1, n=1)[0]))
    found = open_image_set(folder, "fake")
    last = torch.cat([batch.images for batch in found.batches()])[-1]
    assert found.shape == (3, 8, 6)
    assert (last == last[:1]).all()


def test_transparent_images_are_on_white_and_told(tmp_path):
    folder = write("folder", tmp_path, pixels())
    Image.new("RGBA", (6, 8), (0, 0, 0, 0)).save(folder / "z.png")
    found = open_image_set(folder, "fake")
    assert found.facts()["transparent_on_white"] == 1
    assert (torch.cat([batch.images for batch in found.batches()])[-1] == 255).all()


def test_repeated_images_are_counted_and_identical_ones_warned_of(tmp_path):
    images = pixels()
    images[1:3] = images[0]
    assert open_image_set(write("npz", tmp_path, images), "fake").facts()["distinct"] == N - 2
    images[:] = images[0]
    found = open_image_set(write("npz", tmp_path, images), "fake")
    extractor = MeanColour()
    with pytest.warns(UserWarning, match=f"all {N} images are identical"):
        reference = compute_reference(found.batches(), extractor, split="itself")
    values, _ = evaluate_samples(found.batches(), extractor, reference, ("fid", "kid", "is"))
    assert values == pytest.approx({"fid_mean_colour": 0.0, "kid_mean_colour": 0.0, "is_mean_colour": 1.0}, abs=1e-9)


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_image_set(path, "real")
    assert f"real={path}" in str(caught.value)
    return str(caught.value)


def deep_rgb() -> bytes:
    """A PNG of one RGB pixel with 16 bits a channel, which Pillow can't write."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" + b"\1\2" * 3)) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


FRAMES = [Image.new("L", (6, 8), level) for level in (0, 255)]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.png", b"no image", "x.png: not an image"),
        ("x.png", b"", "x.png: empty file"),
        ("x.png", encoded(pixels()[0])[:60], "x.png: "),
        ("x.gif", saved(FRAMES[0], "gif", save_all=True, append_images=FRAMES[1:]), "x.gif: animated"),
        ("x.png", encoded(pixels(size=(5, 5))[0]), "images of 2 sizes (height x width): 8x6 (23, such as 000.png)"),
    ],
)
def test_images_that_are_refused(tmp_path, name, content, expected):
    folder = write("folder", tmp_path, pixels())
    (folder / name).write_bytes(content)
    message = refused(folder)
    assert expected in message
    assert "sizes" in expected or f"1 of {N + 1} images can't be measured" in message


def test_what_training_reads_is_read_alike_and_counted(tmp_path):
    """16 bits a channel and CMYK."""
    deep = saved(Image.fromarray(pixels(channels=1)[0, :, :, 0].astype(np.uint16) * 257), "png")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in (("a.png", deep), ("b.jpg", saved(Image.new("CMYK", (6, 8)), "jpeg")), ("c.png", FRAMES[0])):
        (folder / name).write_bytes(content if isinstance(content, bytes) else saved(content, "png"))
    found = open_image_set(folder, "real")
    (batch,) = found.batches(3)
    assert torch.equal(batch.images[0], torch.from_numpy(pixels(channels=1)[0, :, :, 0]).expand(3, -1, -1))
    assert found.facts()["converted_to_8_bits_or_rgb"] == 2
    assert decode(deep_rgb()).converted


def test_all_that_is_wrong_comes_in_one_message(tmp_path):
    folder = write("folder", tmp_path, pixels())
    for i in range(7):
        (folder / f"bad{i}.png").write_bytes(b"no image")
    message = refused(folder)
    assert message.count("not an image") == 5
    assert "and 2 more" in message


def test_sets_that_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("bad.zip", "bad.npz", "set.tar"):
        (tmp_path / name).write_bytes(b"nothing")
    assert "does not exist" in refused(tmp_path / "nowhere")
    assert "does not exist" in refused(tmp_path / "nowhere.npz")
    assert "there are no images in it" in refused(tmp_path / "empty")
    assert "can't be read" in refused(tmp_path / "bad.zip")
    assert "can't be read" in refused(tmp_path / "bad.npz")
    assert "is a file: expected a folder" in refused(tmp_path / "set.tar")
    assert "at least 2 images" in refused(write("folder", tmp_path / "one", pixels(n=1)))
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert "there are no images in it" in refused(tmp_path / "empty.zip")


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"mu": np.zeros(4), "sigma": np.zeros((4, 4))}, "(mu, sigma)"),
        ({"a": pixels(), "b": pixels()}, "has the arrays a, b: expected arr_0 or images"),
        ({"arr_0": pixels().astype(np.float32)}, "is float32, expected uint8"),
        ({"arr_0": np.array([object()])}, "is object, expected uint8"),
        ({"arr_0": pixels(channels=4)}, "has shape (23, 8, 6, 4), expected uint8"),
        ({"arr_0": pixels(size=(3, 8))}, "ambiguous"),
        ({"arr_0": pixels(size=(0, 8))}, "has shape (23, 0, 8, 3)"),
        ({"arr_0": pixels(n=0)}, "at least 2 images"),
        ({"arr_0": pixels().reshape(N, -1)}, "has shape (23, 144)"),
        ({"arr_0": np.asfortranarray(pixels())}, "Fortran"),
    ],
)
def test_arrays_that_are_refused(tmp_path, arrays, expected):
    np.savez(tmp_path / "set.npz", **arrays)
    assert expected in refused(tmp_path / "set.npz")


@pytest.mark.parametrize("kind", ["npz", "npz compressed"])
def test_a_damaged_array_is_refused(tmp_path, kind):
    path = write(kind, tmp_path, pixels())
    content = bytearray(path.read_bytes())
    content[1000:1100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(InputError, match="can't be read"):
        list(open_image_set(path, "real").batches())


def test_damaged_pixels_that_no_header_tells_of_are_all_named(tmp_path):
    folder = write("folder", tmp_path, pixels())
    whole = saved(Image.fromarray(pixels(size=(80, 60))[0]), "jpeg", quality=95)
    for path in folder.rglob("*.png"):
        path.unlink()
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        (folder / name).write_bytes(whole[: len(whole) // 2] if name in ("b.jpg", "d.jpg") else whole)
    found = open_image_set(folder, "fake")
    taken = []
    with pytest.raises(InputError, match=r"2 of 4 images can't be measured.*:\n  b.jpg: .*\n  d.jpg"):
        taken.extend(batch.start for batch in found.batches(1))
    assert taken == [0]  # nothing more is computed on


def test_pixels_are_decoded_once(tmp_path, monkeypatch):
    from lit_aigc.media import image_sources

    found = open_image_set(write("folder", tmp_path, pixels()), "fake")
    decoded, decode = [], image_sources.decode
    monkeypatch.setattr(image_sources, "decode", lambda *args, **kwargs: decoded.append(1) or decode(*args, **kwargs))
    assert sum(len(batch.images) for batch in found.batches(4)) == N
    assert (found.facts()["n"], len(decoded)) == (N, N)


def test_a_set_that_changes_meanwhile_is_refused(tmp_path):
    folder = write("folder", tmp_path, pixels())
    found = open_image_set(folder, "fake")
    (folder / "b" / "022.png").write_bytes(encoded(pixels(size=(5, 5))[0]))
    with pytest.raises(InputError, match="changed while it was being measured"):
        list(found.batches())
    (folder / "b" / "022.png").unlink()
    with pytest.raises(InputError, match=r"b/022.png: .*No such file"):
        list(found.batches())


def test_colours_are_refused_by_an_extractor_of_grey_images(tmp_path):
    class Grey(MeanColour):
        name = "grey"
        shape = (1, 8, 8)

    colour = open_image_set(write("npz", tmp_path / "colour", pixels()), "fake")
    with pytest.raises(InputError, match="color images, and the extractor grey "):
        next(colour.batches(extractor=Grey()))
    saved_as_rgb = pixels(channels=1).repeat(3, axis=3)
    grey = open_image_set(write("npz", tmp_path / "grey", pixels(channels=1)), "fake")
    grey_as_rgb = open_image_set(write("folder", tmp_path / "rgb", saved_as_rgb), "fake")
    for images, extractor in ((colour, MeanColour()), (grey, Grey()), (grey_as_rgb, Grey())):
        assert sum(len(batch.images) for batch in images.batches(extractor=extractor)) == N


def test_pairs_that_are_warned_of(tmp_path, recwarn):
    real = open_image_set(write("npz", tmp_path, pixels()), "real")
    check_pair(real, (3, 8, 6), MeanColour())
    assert not recwarn
    with pytest.warns(UserWarning, match=r"different sizes, 8x6 and 8x8"):
        check_pair(real, (3, 8, 8), MeanColour())
    with pytest.warns(UserWarning, match="the generated ones are gray"):
        check_pair(real, (1, 8, 6), MeanColour())
    wide = MeanColour()
    wide.num_features = N + 1
    with pytest.warns(SmallSampleWarning, match=f"from {N} real images on {N + 1} features is biased"):
        check_pair(real, (3, 8, 6), wide)


def test_features_that_are_not_finite_are_refused():
    class Broken(MeanColour):
        def forward(self, images):
            features, logits = super().forward(images)
            return features * float("nan"), logits

    with pytest.raises(InputError, match="mean_colour returns features that are not finite"):
        extract(Broken(), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "cpu")
