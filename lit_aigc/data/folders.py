"""Images from a folder or a zip file: its contents, and how they are split."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from lit_aigc.data.clean_images import PreparedFiles, clean_images
from lit_aigc.data.cleaning import CleaningReport
from lit_aigc.data.loaders import Images, ResidentImages, StreamedImages
from lit_aigc.data.sources import SPLITS, ImageSource, Preparation, SourceImages
from lit_aigc.data.store import Store, open_store
from lit_aigc.errors import InputError, check
from lit_aigc.media.image_files import ImageFiles, UnreadableImageError, probe

SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_FORMAT = 2


class ImageFolder(ImageSource):
    """Images in a folder or a .zip file: png, jpg, bmp, webp, gif, tif.

    Folders inside are classes, in alphabetical order; deeper folders belong to the class above. Images without
    folders, or all in one folder, have no labels. A single folder around all others is ignored.

    Splits: top-level folders `train`, `val` (`valid`, `validation`) and `test` are the splits. Without them, or for a
    missing one, an image goes to a split by the hash of its name (folders included): `val_fraction` and
    `test_fraction` of them. So adding files moves none from one split to another.

    Cleaning: exact duplicates across all splits are dropped (the first of the splits test, val, train keeps the image,
    and within a split the first name). Unreadable files are skipped with a warning (``corrupt="skip"``) or refused
    (``corrupt="error"``), animated ones are always skipped with a warning. Whatever else is skipped or looks odd is in
    the report: see `CleaningReport`.
    """

    name = "image_folder"

    def __init__(self, corrupt: str = "skip", val_fraction: float = 0.1, test_fraction: float = 0.1):
        together = val_fraction + test_fraction
        check(
            ("ImageFolder: corrupt", corrupt, corrupt in ("skip", "error"), "skip or error"),
            ("ImageFolder: val_fraction", val_fraction, val_fraction > 0, "above 0"),
            ("ImageFolder: test_fraction", test_fraction, test_fraction > 0, "above 0"),
            ("ImageFolder: val_fraction + test_fraction", together, together < 1, "below 1"),
        )
        self.corrupt, self.val_fraction, self.test_fraction = corrupt, val_fraction, test_fraction

    def problems(self, root: str | None) -> list[str]:
        """See `ImageSource`."""
        return [] if root else ["image_folder needs a folder or .zip of images: set data.root=PATH."]

    def read(self, root: str | None, preparation: Preparation) -> SourceImages:
        """See `ImageSource`; holds the pixels in memory if all fit in `resident_bytes`.

        Every file is decoded once, by one process; the pixels, or only the list of kept files, are reused from the
        user's cache folder as long as no file changes.
        """
        files = ImageFiles(str(root), "image_folder: data.root")
        contents = files.contents()
        splits, classes = self._layout(contents.images)
        found = self._cleaned(files, splits, preparation)
        report, shape = CleaningReport(**found.facts["report"]), tuple(found.facts["shape"])
        channels, height, width = shape
        reader = PreparedFiles(files, found.facts["image_size"], channels)
        class_names = tuple(sorted(set(classes.values()) - {""}))
        result: dict[str, Images] = {}
        for split in SPLITS:
            kept, digest = found.facts["names"][split], found.facts["digests"][split]
            labels = _labels(kept, classes, class_names)
            if found.facts["resident"]:
                pixels = found.pixels(split, (len(kept), height, width, channels))
                result[split] = ResidentImages(pixels, labels, digest)
            else:
                result[split] = StreamedImages(reader, kept, labels, shape, digest)
        trained = {classes[name] for name in found.facts["names"]["train"]}
        report.add("other_files", *contents.others)
        report.add("empty_folders", *contents.empty)
        report.add("empty_classes", *(name for name in class_names if name not in trained))
        self._check(root, result, report)
        return SourceImages(result, class_names, report)

    def _cleaned(self, files: ImageFiles, splits: dict[str, list[str]], preparation: Preparation) -> Store:
        """Return the result of cleaning all files, reused or made now."""
        place = repr((os.path.abspath(files.root), preparation, self.val_fraction, self.test_fraction))
        key = hashlib.blake2b(str(_FORMAT).encode(), digest_size=16)
        for split in SPLITS:
            for stamp in itertools.chain([split], files.stamps(splits[split])):
                key.update(stamp.encode("utf-8", "surrogateescape") + b"\0")

        def build(folder: Path) -> dict[str, Any]:
            names = list(itertools.chain.from_iterable(splits.values()))
            (channels, height, width), resize = self._geometry(files, names, preparation)
            resident = len(names) * channels * height * width <= preparation.resident_bytes
            image_size = height if resize else None
            reader = PreparedFiles(files, image_size, channels)
            facts = {"shape": [channels, height, width], "image_size": image_size, "resident": resident}
            return facts | clean_images(reader, splits, folder if resident else None)

        name = hashlib.blake2b(place.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        return open_store(f"image_folder/{name}", key.hexdigest(), build)

    def _check(self, root: str | None, result: dict[str, Images], report: CleaningReport) -> None:
        if self.corrupt == "error" and report.unreadable:
            raise InputError(
                f"image_folder: {report.warnings()[0].replace(', left out', '')} in data.root={root}. "
                "Fix or remove them, or skip them with data.source.corrupt=skip."
            )
        empty = [split for split in SPLITS if len(result[split]) == 0]
        if empty:
            found = "; ".join([f"{report.kept} of {report.files} files usable", *report.warnings()])
            raise InputError(
                f"image_folder: no images left for {' and '.join(empty)} in data.root={root}: {found}. "
                "Expected at least 3 different images, and some in each folder of a split."
            )

    def _layout(self, names: list[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
        """Return the names by split, and the class of each name ("" without labels)."""
        parts = {name: PurePosixPath(name).parts for name in names}
        while _inside_one_folder(parts.values()):
            parts = {name: path[1:] for name, path in parts.items()}
        splits: dict[str, list[str]] = {split: [] for split in SPLITS}
        if _are_splits(parts.values()):
            for name, path in parts.items():
                splits[SPLIT_FOLDERS[path[0].lower()]].append(name)
            given = {split for split, members in splits.items() if members}
            parts = {name: path[1:] for name, path in parts.items()}
        else:
            given = {"train"}
            splits["train"] = list(names)
        position = {name: hash_fraction("/".join(parts[name])) for name in splits["train"]}
        fractions = {"val": self.val_fraction, "test": self.test_fraction}
        splits |= split_by_position(position, {split: fractions[split] for split in fractions if split not in given})

        outside = [name for name, path in parts.items() if len(path) == 1]
        if outside and len(outside) < len(names):
            raise InputError(
                f"image_folder: {len(outside)} images are outside the class folders ({', '.join(outside[:5])}). "
                "Put every image into the folder of its class, or all into one folder for data without labels."
            )
        labelled = len({path[0] for path in parts.values() if len(path) > 1}) > 1
        return splits, {name: path[0] if labelled else "" for name, path in parts.items()}

    def _geometry(
        self, files: ImageFiles, names: list[str], preparation: Preparation
    ) -> tuple[tuple[int, int, int], bool]:
        """Return the channels, height and width that all images get, and whether that takes resizing."""
        size, channels = preparation.image_size, preparation.channels
        if size is not None and channels is not None:
            return (channels, size, size), True
        sizes: Counter[tuple[int, int]] = Counter()
        most_channels = 0
        for name in names:
            with contextlib.suppress(UnreadableImageError):
                own, *height_width = probe(files.content(name))
                sizes[tuple(height_width)] += 1
                most_channels = max(most_channels, own)
        if not sizes:
            raise InputError(
                f"image_folder: none of the {len(names)} image files in data.root={files.root} can be read."
            )
        channels = channels or most_channels
        if size is not None:
            return (channels, size, size), True
        if len(sizes) > 1:
            common = ", ".join(f"{height}x{width} ({count})" for (height, width), count in sizes.most_common(3))
            raise InputError(
                f"image_folder: images of {len(sizes)} sizes in data.root={files.root}, most of {common}. "
                "Give one size for all, such as data.image_size=64."
            )
        return (channels, *next(iter(sizes))), False


def _labels(names: list[str], classes: dict[str, str], class_names: tuple[str, ...]) -> Tensor | None:
    if not class_names:
        return None
    number = {name: index for index, name in enumerate(class_names)}
    return torch.tensor([number[classes[name]] for name in names], dtype=torch.int64)


def _are_splits(paths: Iterable[tuple[str, ...]]) -> bool:
    """Return whether the top-level folders are splits that include train, with everything inside."""
    tops = {path[0].lower() if len(path) > 1 else "" for path in paths}
    return tops <= set(SPLIT_FOLDERS) and "train" in {SPLIT_FOLDERS[top] for top in tops}


def _inside_one_folder(paths: Iterable[tuple[str, ...]]) -> bool:
    """Return whether one folder holds everything, and is neither class nor split: it holds folders and no images."""
    paths = list(paths)
    return len({path[0] for path in paths}) == 1 and all(len(path) > 2 for path in paths)


def split_by_position(position: Mapping[str, float], fractions: Mapping[str, float]) -> dict[str, list[str]]:
    """Hold out names by their position in [0, 1); the others are ``train``.

    Args:
        position: Each name's position.
        fractions: The share of each held-out split; as long as there are names, it gets one or more.
    """
    splits, low = {}, 0.0
    for split, fraction in fractions.items():
        splits[split] = [name for name, place in position.items() if low <= place < low + fraction]
        low += fraction
    for split in splits:
        rest = set(position).difference(*splits.values())
        if not splits[split] and len(rest) > 1:
            splits[split] = [min(rest, key=position.__getitem__)]
    held_out = {name for members in splits.values() for name in members}
    return {"train": [name for name in position if name not in held_out], **splits}


def hash_fraction(name: str) -> float:
    """Return a number in [0, 1) from a name, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "little") / 2**56
