"""Folders and zips of images: layouts, splits, cleaning, streaming, and what is refused."""

from __future__ import annotations

import errno
import io
import os
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from lit_aigc.data import clean_images, folders
from lit_aigc.data.cleaning import CleaningReport
from lit_aigc.data.folders import ImageFolder
from lit_aigc.data.images import ImageData
from lit_aigc.data.sources import Preparation, SourceImages
from lit_aigc.errors import InputError

SMALL = Preparation(image_size=8, channels=3)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def png(seed: int, size: tuple[int, int] = (8, 8), grey: bool = False) -> bytes:
    shape = size if grey else (*size, 3)
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def make_folder(root: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(root)


def make_zip(root: Path, files: dict[str, bytes]) -> str:
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return str(root.with_suffix(".zip"))


both = pytest.mark.parametrize("make", [make_folder, make_zip], ids=["folder", "zip"])
Make = Callable[[Path, dict[str, bytes]], str]


def classes(count: int = 60, prefix: str = "") -> dict[str, bytes]:
    return {f"{prefix}{['cat', 'dog', 'eel'][n % 3]}/{n}.png": png(n) for n in range(count)}


def items(found: SourceImages) -> dict[bytes, tuple[str, str]]:
    """(split, class name) of each image by its hash."""
    names = found.class_names
    return {
        digest: (split, names[images.labels[number]] if names else "")
        for split, images in found.splits.items()
        for number, digest in enumerate(images.item_digests())
    }


@both
def test_class_folders(tmp_path: Path, make: Make) -> None:
    found = ImageFolder().read(make(tmp_path / "a", classes()), SMALL)
    assert found.class_names == ("cat", "dog", "eel")
    located = items(found)
    assert len(located) == 60
    for number in range(60):
        pixels = np.array(Image.open(io.BytesIO(png(number))))
        digest = folders.ResidentImages(torch.from_numpy(pixels)[None], None).item_digests()[0]
        assert located[digest][1] == ["cat", "dog", "eel"][number % 3]
    assert found.report == CleaningReport(files=60, kept=60)
    assert found.report.warnings() == []


def test_a_folder_and_its_zip_are_the_same_data(tmp_path: Path) -> None:
    found = [
        ImageFolder().read(make_folder(tmp_path / "a", classes()), SMALL),
        ImageFolder().read(make_zip(tmp_path / "b", classes()), SMALL),
        ImageFolder().read(make_zip(tmp_path / "c", classes(prefix="around/it/")), SMALL),
    ]
    digests = [{name: split.digest() for name, split in each.splits.items()} for each in found]
    assert digests[0] == digests[1] == digests[2]


def test_splits_are_by_name_and_adding_files_moves_none(tmp_path: Path) -> None:
    before = items(ImageFolder(val_fraction=0.2).read(make_folder(tmp_path / "a", classes(60)), SMALL))
    after = items(ImageFolder(val_fraction=0.2).read(make_folder(tmp_path / "a", classes(400)), SMALL))
    assert all(after[digest] == place for digest, place in before.items())
    sizes = [sum(place[0] == split for place in after.values()) for split in ("train", "val", "test")]
    assert sum(sizes) == 400
    assert abs(sizes[1] - 80) < 4 * (400 * 0.2 * 0.8) ** 0.5
    assert abs(sizes[2] - 40) < 4 * (400 * 0.1 * 0.9) ** 0.5


@both
def test_split_folders(tmp_path: Path, make: Make) -> None:
    files = {f"train/{'ab'[n % 2]}/{n}.png": png(n) for n in range(6)}
    files |= {f"valid/{'ab'[n % 2]}/{n}.png": png(n) for n in range(6, 9)}
    files |= {f"test/{'ab'[n % 2]}/{n}.png": png(n) for n in range(9, 13)}
    found = ImageFolder().read(make(tmp_path / "a", files), SMALL)
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 6, "val": 3, "test": 4}
    assert found.class_names == ("a", "b")
    assert found.splits["test"].labels.tolist() == [0, 0, 1, 1]  # 10, 12 | 11, 9


def test_a_missing_split_is_cut_from_train(tmp_path: Path) -> None:
    files = classes(60, "train/") | {f"test/cat/{n}.png": png(n) for n in range(100, 105)}
    found = ImageFolder().read(make_folder(tmp_path / "a", files), SMALL)
    assert len(found.splits["test"]) == 5
    assert len(found.splits["val"]) + len(found.splits["train"]) == 60
    assert 1 <= len(found.splits["val"]) < 20


@both
@pytest.mark.parametrize("prefix", ["", "images/"])
def test_images_without_class_folders_have_no_labels(tmp_path: Path, make: Make, prefix: str) -> None:
    data = ImageData(ImageFolder(), root=make(tmp_path / "a", {f"{prefix}{n}.png": png(n) for n in range(90)}))
    assert data.spec.num_classes == 0
    assert data.spec.class_names == ()
    assert next(iter(data.train_dataloader())).labels is None
    assert next(iter(data.real_batches("val"))).labels is None


def test_of_three_images_each_split_gets_one(tmp_path: Path) -> None:
    found = ImageFolder().read(make_folder(tmp_path / "a", {f"{n}.png": png(n) for n in range(3)}), SMALL)
    assert [len(split) for split in found.splits.values()] == [1, 1, 1]
    assert len(items(found)) == 3


def dirty() -> dict[str, bytes]:
    files = classes(30)
    files["cat/copy.png"] = png(4)  # of a dog
    files["dog/cut.png"] = png(99)[:60]
    files["dog/empty.jpg"] = b""
    files["eel/large.png"] = png(50, (20, 11))
    files["eel/grey.png"] = png(51, grey=True)
    frames = [Image.fromarray(np.full((8, 8), value, dtype=np.uint8)) for value in (0, 255)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:])
    files["cat/moving.gif"] = buffer.getvalue()
    files["cat/notes.txt"] = b"no image"
    files["__MACOSX/cat/._0.png"] = b"no image"
    files[".hidden/0.png"] = b"no image"
    return files


@both
def test_cleaning_counts_and_names(tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    data = ImageData(ImageFolder(), root=make(tmp_path / "a", dirty()), image_size=8, channels=3)
    data.setup()
    assert {kind: count for kind, count in data.report.items() if count} == {
        "files": 36, "kept": 32, "unreadable": 2, "animated": 1, "duplicates": 1, "resized": 1, "converted": 1,
        "other_files": 1,
    }  # fmt: skip
    assert "dog/cut.png" in caplog.text and "dog/empty.jpg (empty file)" in caplog.text
    assert "cat/moving.gif" in caplog.text
    assert "1 of 36 images are exact duplicates" in caplog.text
    assert sum(len(data.split(name)) for name in ("train", "val", "test")) == 32


def test_duplicates_go_over_formats_and_splits(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png(0))).save(buffer, "bmp")
    files = {f"train/{n}.png": png(n) for n in range(5)} | {f"val/{n}.png": png(n) for n in range(10, 12)}
    files |= {"test/first.bmp": buffer.getvalue(), "test/other.png": png(20)}
    found = ImageFolder().read(make_folder(tmp_path / "a", files), SMALL)
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 4, "val": 2, "test": 2}
    assert found.report.duplicates == 1


@both
def test_corrupt_images_can_be_refused(tmp_path: Path, make: Make) -> None:
    with pytest.raises(InputError) as caught:
        ImageFolder(corrupt="error").read(make(tmp_path / "a", dirty()), SMALL)
    message = str(caught.value)
    assert "2 of 36" in message and "dog/cut.png" in message and "corrupt=skip" in message


def test_a_zip_member_with_a_wrong_checksum_is_corrupt(tmp_path: Path) -> None:
    path = Path(make_zip(tmp_path / "a", classes(30)))
    content = bytearray(path.read_bytes())
    content[content.index(png(7)) + 40] ^= 255
    path.write_bytes(content)
    found = ImageFolder().read(str(path), SMALL)
    assert found.report.unreadable == 1
    assert "dog/7.png" in found.report.examples["unreadable"][0]


def test_hostile_names_in_a_zip_are_ignored_and_nothing_is_extracted(tmp_path: Path) -> None:
    files = classes(30) | {"../escaped.png": png(90), "/absolute.png": png(91), "cat/../../up.png": png(92)}
    path = make_zip(tmp_path / "inner", files)
    before = {file for file in tmp_path.rglob("*") if "cache" not in file.parts}
    assert ImageFolder().read(path, SMALL).report.files == 30
    assert {file for file in tmp_path.rglob("*") if "cache" not in file.parts} == before


def test_own_size_and_channels(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "a", {f"{n}.png": png(n, (6, 9), grey=n > 0) for n in range(10)})
    assert ImageFolder().read(root, Preparation()).splits["train"].shape == (3, 6, 9)
    assert ImageFolder().read(root, Preparation(channels=1)).splits["train"].shape == (1, 6, 9)
    make_folder(tmp_path / "a", {"other.png": png(20, (7, 9))})
    with pytest.raises(InputError, match=r"2 sizes.*6x9 \(10\).*data.image_size"):
        ImageFolder().read(root, Preparation())


@pytest.mark.parametrize("workers", [0, 2])
@both
def test_streaming_equals_residence(tmp_path: Path, make: Make, workers: int) -> None:
    root = make(tmp_path / "a", dirty())
    options = {"root": root, "image_size": 8, "channels": 3, "batch_size": 5, "eval_batch_size": 4, "seed": 2}
    resident = ImageData(ImageFolder(), **options)
    streamed = ImageData(ImageFolder(), **options, workers=workers, resident_gib=0)
    assert streamed.split("train").resident is False
    assert resident.split("train").resident is True
    assert streamed.spec == resident.spec
    assert streamed.report == resident.report
    pairs = list(zip(range(20), resident.train_dataloader(), streamed.train_dataloader(), strict=False))
    pairs += list(zip(range(99), resident.val_dataloader(), streamed.val_dataloader(), strict=False))
    pairs += list(zip(range(99), resident.real_batches("test"), streamed.real_batches("test"), strict=False))
    for _, expected, found in pairs:
        assert torch.equal(found.images, expected.images)
        assert torch.equal(found.labels, expected.labels)
        assert found.start == expected.start


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the files that were decoded."""
    sizes, decode = [], clean_images.decode
    monkeypatch.setattr(clean_images, "decode", lambda content: sizes.append(len(content)) or decode(content))
    return sizes


@pytest.mark.parametrize("resident_bytes", [0, 1 << 20], ids=["streamed", "resident"])
@both
def test_a_folder_is_decoded_once_and_again_when_it_changes(
    tmp_path: Path, make: Make, decoded: list[int], resident_bytes: int
) -> None:
    root = make(tmp_path / "a", dirty())
    preparation = Preparation(8, 3, resident_bytes)
    first = ImageFolder().read(root, preparation)
    assert len(decoded) == 36
    again = ImageFolder().read(root, preparation)
    assert len(decoded) == 36
    assert again.report == first.report
    for name, split in again.splits.items():
        assert torch.equal(split.labels, first.splits[name].labels)
        assert split.digest() == first.splits[name].digest()
        if resident_bytes:
            assert torch.equal(split.pixels, first.splits[name].pixels)
    with pytest.raises(InputError, match=r"dog/cut\.png"):
        ImageFolder(corrupt="error").read(root, preparation)
    make(tmp_path / "a", dirty() | {"dog/cut.png": png(99)})
    assert ImageFolder().read(root, preparation).report.unreadable == 1
    stores = [path for path in (tmp_path / "cache" / "lit_aigc" / "image_folder").iterdir() if path.is_dir()]
    assert len(decoded) == 72 and len(stores) == 1, "what was there is replaced"


def test_processes_at_once_decode_once(
    tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Threads stand for processes: the lock on a file keeps either apart, for each opens the file anew."""
    root, both_ask = make_folder(tmp_path / "a", classes(30)), threading.Barrier(2)
    layout = ImageFolder._layout

    def met(*arguments: object) -> object:
        both_ask.wait()
        return layout(*arguments)

    monkeypatch.setattr(ImageFolder, "_layout", met)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda source: source.read(root, SMALL), [ImageFolder(), ImageFolder()]))
    assert len(decoded) == 30
    assert torch.equal(found[0].splits["train"].pixels, found[1].splits["train"].pixels)
    assert capfd.readouterr().err == f"image_folder: decoding 30 files of {root}\n"


def test_a_terminal_shows_how_far_decoding_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, advanced = io.StringIO(), []
    terminal = Console(file=shown, force_terminal=True, width=200)
    monkeypatch.setattr(clean_images, "Console", lambda stderr: terminal)
    monkeypatch.setattr(clean_images.Progress, "advance", lambda self, task: advanced.append(task))
    ImageFolder().read(make_folder(tmp_path / "a", classes(30)), SMALL)
    assert len(advanced) == 30
    assert "image_folder: decoding 30 files of" in shown.getvalue()


def test_pixels_are_this_process_s_own_to_write_to(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "a", classes(30))
    first = ImageFolder().read(root, SMALL).splits["train"].pixels
    kept = first.clone()
    first.zero_()
    assert torch.equal(ImageFolder().read(root, SMALL).splits["train"].pixels, kept)


@both
def test_a_change_that_keeps_the_size_is_seen(tmp_path: Path, make: Make) -> None:
    def bmp(value: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (value, 0, 0)).save(buffer, "bmp")
        return buffer.getvalue()

    preparation, files = Preparation(8, 3, resident_bytes=0), {f"{n}.bmp": bmp(n) for n in range(20)}
    before = ImageFolder().read(make(tmp_path / "a", files), preparation)
    assert len(bmp(99)) == len(files["5.bmp"])
    root = make(tmp_path / "a", files | {"5.bmp": bmp(99)})
    if make is make_folder:
        os.utime(tmp_path / "a" / "5.bmp", (1, 1))  # two writes can fall into one tick of the clock
    after = ImageFolder().read(root, preparation)
    assert sum(after.splits[name].digest() != split.digest() for name, split in before.splits.items()) == 1


def test_a_cache_that_can_not_be_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    root = make_folder(tmp_path / "a", classes(30))
    assert ImageFolder().read(root, Preparation(8, 3, resident_bytes=0)).report.kept == 30
    assert len(items(ImageFolder().read(root, SMALL))) == 30


def test_a_cache_on_a_full_disk_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, clean = tmp_path / "cache" / "lit_aigc" / "image_folder", folders.clean_images

    def full(reader: object, splits: object, folder: Path) -> object:
        if folder.parent == home:
            raise OSError(errno.ENOSPC, "No space left on device")
        return clean(reader, splits, folder)

    monkeypatch.setattr(folders, "clean_images", full)
    assert len(items(ImageFolder().read(make_folder(tmp_path / "a", classes(30)), SMALL))) == 30
    assert [path.suffix for path in home.iterdir()] == [".lock"]


@both
def test_what_is_left_out_or_odd_is_counted_and_named(tmp_path: Path, make: Make) -> None:
    tiff = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 77, dtype=np.uint8)).save(tiff, "tiff")
    pages = io.BytesIO()
    Image.new("RGB", (8, 8)).save(pages, "tiff", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    files = classes(60, "train/")
    files |= {"train/fox/0.TIF": tiff.getvalue(), "train/fox/scan.tiff": pages.getvalue()}
    files |= {"train/cat/dot.png": png(70, (1, 1)), "train/b.heic": b"?"}
    files |= {"train/dog/strip.png": png(71, (2, 30)), "notes/deep/read.me": b"text", ".hidden/x.txt": b"text"}
    files |= {"train/dog/line.png": png(72, (101, 1))}
    files |= {"test/gnu/1.png": png(80), "train/cat/half.png": png(81, (3, 3)), "train/cat/wide.png": png(82, (8, 32))}
    root = make(tmp_path / "a", files)
    if make is make_folder:
        (tmp_path / "a" / "train" / "hen").mkdir()
    else:
        with zipfile.ZipFile(root, "a") as archive:
            archive.mkdir("train/hen")
    report = ImageFolder(test_fraction=0.1).read(root, SMALL).report
    assert (report.files, report.kept) == (68, 66)
    assert report.examples == {
        "animated": ["train/fox/scan.tiff"],
        "unreadable": ["train/dog/line.png (1x101, more than 100 times as long as wide)"],
        "enlarged": ["train/cat/dot.png (1x1)"],
        "cropped": ["train/dog/strip.png (30x2)"],
        "other_files": ["notes/deep/read.me", "train/b.heic"],
        "empty_folders": ["notes", "train/hen"],
        "empty_classes": ["fox", "gnu"],  # the only fox falls to val
    }
    told = "\n".join(report.warnings())
    assert "2 files of other types, left out: notes/deep/read.me, train/b.heic" in told
    assert "2 folders without images, left out: notes, train/hen" in told
    assert "1 of 68 images are tiny and were enlarged more than 4 times: train/cat/dot.png (1x1)" in told
    assert "30x2" in told and "gnu" in told


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no images"),
        ({"notes.txt": b"text"}, "no images"),
        ({"a/1.png": b"broken", "b/2.png": b"broken"}, "0 of 2 files usable; 2 of 2 files unreadable"),
        ({"a.png": png(1), "b.png": png(2)}, "no images left for"),
        ({"cat/1.png": png(1), "dog/2.png": png(2), "stray.png": png(3)}, r"outside the class folders \(stray\.png\)"),
        ({"train/1.png": png(1), "train/2.png": png(2), "val/1.png": b"broken", "test/1.png": png(3)}, "left for val"),
    ],
)
@both
def test_bad_folders_are_refused(tmp_path: Path, make: Make, files: dict[str, bytes], message: str) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match=message) as caught:
        ImageFolder().read(make(tmp_path / "a", files), SMALL)
    assert str(tmp_path) in str(caught.value) or "stray" in message


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        ImageFolder().read(str(tmp_path / "nowhere"), SMALL)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(InputError, match="can't be read"):
        ImageFolder().read(str(tmp_path / "text.zip"), SMALL)
    with pytest.raises(InputError, match=r"data\.root=PATH"):
        ImageData(ImageFolder())
    with pytest.raises(InputError, match=r"(?s)corrupt.*val_fraction"):
        ImageFolder(corrupt="maybe", val_fraction=0)


@pytest.mark.reference_data
@pytest.mark.slow
def test_the_real_cifar_zip(reference_data: Path) -> None:
    path = reference_data / "cifar10_jpeg_test.zip"
    if not path.is_file():
        pytest.skip("needs cifar10_jpeg_test.zip under LIT_AIGC_DATA")
    data = ImageData(ImageFolder(), root=str(path), image_size=32, channels=3)
    assert data.spec.shape == (3, 32, 32)
    assert data.spec.class_names[:2] == ("airplane", "automobile")
    assert data.report["files"] == 10_000
    assert data.report["kept"] == 10_000 - data.report["duplicates"] > 9_900
