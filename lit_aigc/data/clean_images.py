"""Cleaning of image files in one pass: each is decoded once, resized, compared with the others, and stored."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from lit_aigc.data.cleaning import CleaningReport
from lit_aigc.data.sources import CLEANING_ORDER
from lit_aigc.errors import InputError
from lit_aigc.media.image_files import (
    AnimatedImageError,
    DecodedImage,
    ImageFiles,
    UnreadableImageError,
    decode,
    map_in_threads,
    prepare,
)

_ODD = 4
"""Images that are enlarged by more than this factor, or whose sides differ by more, are reported."""

_STRIPE = 100
"""Images whose sides differ by more than this factor are skipped if they would have to be resized."""


class PreparedFiles:
    """Reads a file by name as a prepared image; called in worker processes too."""

    def __init__(self, files: ImageFiles, image_size: int | None, channels: int):
        self.files, self.image_size, self.channels = files, image_size, channels

    def __call__(self, name: str) -> Tensor:
        """Return uint8 ``(C, H, W)``; raises InputError if the file was removed or changed since it was checked."""
        try:
            return self.prepared(decode(self.files.content(name)))
        except (UnreadableImageError, AnimatedImageError) as error:
            raise InputError(
                f"image_folder: {name} in {self.files.root} was readable before and is no longer: {error}"
            ) from None

    def prepared(self, image: DecodedImage) -> Tensor:
        """Return the image as uint8 ``(C, H, W)`` of the size and channels wanted."""
        return prepare(image.pixels[None], self.image_size, self.channels)[0].permute(2, 0, 1)


def clean_images(
    reader: PreparedFiles, splits: Mapping[str, Sequence[str]], pixels_folder: Path | None
) -> dict[str, Any]:
    """Decode all files, and drop those that can't be used.

    Args:
        reader: Reads the files.
        splits: Names by split.
        pixels_folder: Folder for the pixels of each split, uint8 ``(N, H, W, C)`` in a file named like the split; None:
            not stored.

    Returns:
        The ``names`` kept and ``digests`` of their pixels by split, and the ``report``, as plain JSON types.
    """
    report = CleaningReport(files=sum(map(len, splits.values())))
    found: dict[str, Any] = {"names": {}, "digests": {}}
    seen: set[bytes] = set()
    with _progress(report.files, reader.files.root) as advance:
        for split in CLEANING_ORDER:
            with (pixels_folder / split).open("wb") if pixels_folder else contextlib.nullcontext() as file:
                kept, digest = _clean(reader, splits[split], seen, report, file, advance)
            found["names"][split], found["digests"][split] = kept, digest
    return found | {"report": dataclasses.asdict(report)}


def _clean(
    reader: PreparedFiles,
    names: Sequence[str],
    seen: set[bytes],
    report: CleaningReport,
    file: BinaryIO | None,
    advance: Callable[[], None],
) -> tuple[list[str], str]:
    """Return the names kept, and the hash of their pixels, which are also written to the file."""
    digest = hashlib.blake2b(digest_size=16)
    kept: list[str] = []

    def load(name: str) -> tuple[str, DecodedImage | Exception, bytes, Tensor | None]:
        try:
            image = decode(reader.files.content(name))
            _refuse_stripe(image, reader.image_size)
            return name, image, image.digest(), reader.prepared(image)
        except (UnreadableImageError, AnimatedImageError) as error:
            return name, error, b"", None

    for name, image, content, prepared in map_in_threads(load, names):
        advance()
        if isinstance(image, AnimatedImageError):
            report.add("animated", name)
        elif isinstance(image, Exception):
            report.add("unreadable", f"{name} ({image})")
        elif content in seen:
            report.duplicates += 1
        else:
            seen.add(content)
            kept.append(name)
            report.kept += 1
            _note(report, name, image, prepared)
            pixels = prepared.permute(1, 2, 0).numpy()
            digest.update(pixels)
            if file:
                file.write(pixels)
    return kept, digest.hexdigest()


def _refuse_stripe(image: DecodedImage, image_size: int | None) -> None:
    """Refuse a stripe: resizing its short side would make the long one too large for memory, only to be cropped."""
    height, width = image.pixels.shape[1:]
    if image_size and max(height, width) > _STRIPE * min(height, width):
        raise UnreadableImageError(f"{width}x{height}, more than {_STRIPE} times as long as wide")


def _note(report: CleaningReport, name: str, image: DecodedImage, prepared: Tensor) -> None:
    """Count what was done to prepare an image that is kept."""
    height, width = image.pixels.shape[1:]
    report.converted += image.pixels.shape[0] != prepared.shape[0] or not image.opaque
    if image.pixels.shape[1:] == prepared.shape[1:]:
        return
    report.resized += 1
    if prepared.shape[1] > _ODD * min(height, width):
        report.add("enlarged", f"{name} ({width}x{height})")
    if max(height, width) > _ODD * min(height, width):
        report.add("cropped", f"{name} ({width}x{height})")


@contextlib.contextmanager
def _progress(files: int, root: str) -> Iterator[Callable[[], None]]:
    """Show a bar on a terminal, one line elsewhere; yields a function to call after each file."""
    what = f"image_folder: decoding {files:,} files of {root}"
    console = Console(stderr=True)
    if not console.is_terminal:
        print(what, file=sys.stderr)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=files)
        yield lambda: progress.advance(task)
