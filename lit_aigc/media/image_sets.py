"""Sets of images from elsewhere: a folder, a ``.zip``, or an ``.npz``, as a stream of batches in a fixed order.

Opening a set reads the header of each image, so that problems are reported before anything is computed. Pixels are
decoded when they are needed, once, and facts about them are known afterward: only a few batches are in memory at a
time, however many images there are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lit_aigc.errors import InputError
from lit_aigc.media.image_files import to_channels
from lit_aigc.media.image_sources import ArrayFile, Files, Seen
from lit_aigc.spec import Batch

_AT_A_TIME = 32  # images, when a set is read only for its facts


class PixelFacts:
    """Facts about the pixels of a set, collected image by image.

    Attributes:
        transparent: Number of images with transparent pixels, which count as white.
        converted: Number of images with more than 8 bits per channel, or colors other than gray and RGB.
        colored: Whether any pixel has a color; false for gray images saved as RGB.
    """

    def __init__(self, channels: int) -> None:
        self._digests, self._whole, self._channels = set(), hashlib.blake2b(digest_size=16), channels
        self.colored, self.transparent, self.converted = False, 0, 0

    def add(self, seen: Seen) -> None:
        """Add the next image."""
        self._digests.add(seen.digest)
        self._whole.update(seen.digest)
        self.colored |= seen.colored
        self.transparent += not seen.image.opaque
        self.converted += seen.image.converted

    @property
    def distinct(self) -> int:
        """Number of different images."""
        return len(self._digests)

    @property
    def fingerprint(self) -> str:
        """Hash of the pixels of all images in order: the same for a folder, a zip and an array of them."""
        whole = self._whole.copy()
        whole.update(b"%d" % self._channels)
        return whole.hexdigest()


@dataclasses.dataclass
class ImageSet:
    """A set of 8-bit images of one size.

    Attributes:
        path: Where it is, as the user gave it.
        called: Its name in messages.
        shape: ``(C, H, W)`` of all images; in a set with color images, gray ones are repeated over the channels.
        count: Number of images.
        source: Reads them.
    """

    path: str
    called: str
    shape: tuple[int, int, int]
    count: int
    source: Files | ArrayFile = dataclasses.field(repr=False)
    _pixels: PixelFacts | None = dataclasses.field(default=None, repr=False)

    @property
    def pixels(self) -> PixelFacts:
        """Facts about the pixels; the whole set is read for them, unless all `batches` were read before.

        Raises:
            InputError: As `batches`.
        """
        if self._pixels is None:
            for _ in self.batches(_AT_A_TIME):
                pass
        return self._pixels

    def batches(
        self, size: int = 64, *, extractor: nn.Module | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """Yield this process's share: uint8 ``(n, C, H, W)`` without labels; `start` is the place of the first.

        Warns at the end if all images are identical.

        Args:
            size: Images per batch.
            extractor: The extractor that the batches are for: colors are refused if it takes only gray images.
            rank: This process.
            world_size: Number of processes.

        Raises:
            InputError: If images can't be decoded (naming all of them), the set has changed since it was opened, or it
                has colors and the extractor takes only gray images.
        """
        gathering = PixelFacts(self.shape[0])
        problems: list[str] = []
        for start, found in self.source.blocks(size, rank, world_size):
            problems += [each for each in found if isinstance(each, str)]
            if problems:
                continue  # to name them all
            if any(each.image.pixels.shape[1:] != self.shape[1:] for each in found) or start + len(found) > self.count:
                raise InputError(f"{self.called} was changed while it was being measured: start again.")
            for each in found:
                gathering.add(each)
            if gathering.colored and extractor is not None:
                _refuse_colors(self, extractor)
            images = [to_channels(each.image.pixels[None], self.shape[0]) for each in found]
            yield Batch(torch.cat(images), None, start)
        _refuse_problems(self.called, problems, self.count)
        if world_size == 1 and self._pixels is None:
            self._pixels = gathering
            if self._pixels.distinct == 1:
                warnings.warn(
                    f"{self.called}: all {self.count} images are identical; is this the right set?", stacklevel=2
                )

    def facts(self) -> dict[str, Any]:
        """Return what a protocol says about the set."""
        (channels, height, width), pixels = self.shape, self.pixels
        facts = {"path": self.path, "n": self.count, "distinct": pixels.distinct, "fingerprint": pixels.fingerprint}
        facts |= {"size": f"{height}x{width}", "channels": channels}
        counts = {"transparent_on_white": pixels.transparent, "converted_to_8_bits_or_rgb": pixels.converted}
        return facts | {name: count for name, count in counts.items() if count}


def open_image_set(path: str | Path, key: str) -> ImageSet:
    """Open a set of images, and read all their headers.

    Args:
        path: A folder (with the folders in it, in the order of the names), a ``.zip`` of images, or an ``.npz`` with a
            uint8 array ``(N, H, W, C)``, ``(N, C, H, W)`` or ``(N, H, W)`` as ``arr_0``, as ``images`` or alone.
        key: The key that it is given as, for messages: ``real`` or ``fake``.

    Raises:
        InputError: If there is no such set, it has fewer than two images, or images are unreadable, animated, or of
            several sizes.
    """
    called = f"{key}={path}"
    suffix = Path(path).suffix.lower()
    if Path(path).is_file() and suffix not in (".zip", ".npz"):
        raise InputError(f"{called} is a file: expected a folder of images, a .zip of images, or an .npz.")
    source = ArrayFile(path, called) if suffix == ".npz" and not Path(path).is_dir() else Files(path, called)
    sizes: Counter[tuple[int, int]] = Counter()
    examples: dict[tuple[int, int], str] = {}
    problems, channels = [], 1
    for header in source.headers():
        if isinstance(header, str):
            problems.append(header)
            continue
        size = header.shape[1:]
        sizes[size] += 1
        examples.setdefault(size, header.name)
        channels = max(channels, header.shape[0])
    _refuse_problems(called, problems, len(problems) + sizes.total())
    if len(sizes) > 1:
        common = ", ".join(f"{h}x{w} ({n}, such as {examples[h, w]})" for (h, w), n in sizes.most_common(3))
        raise InputError(
            f"{called}: images of {len(sizes)} sizes (height x width): {common}. Remove those that don't belong "
            "to the set, or resize all to one size first: the way of resizing affects the metrics."
        )
    if sizes.total() < 2:
        raise InputError(f"{called}: expected at least 2 images, better some thousands, got {sizes.total()}.")
    return ImageSet(str(path), called, (channels, *next(iter(sizes))), sizes.total(), source)


def _refuse_problems(called: str, problems: list[str], count: int) -> None:
    if problems:
        shown = "".join(f"\n  {problem}" for problem in problems[:5])
        more = f"\n  and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InputError(
            f"{called}: {len(problems)} of {count} images can't be measured; fix or remove them:{shown}{more}"
        )


def _refuse_colors(image_set: ImageSet, extractor: nn.Module) -> None:
    """Refuse color images for an extractor of gray ones: its features would be of other images."""
    if getattr(extractor, "shape", (3,))[0] == 1:
        raise InputError(
            f"{image_set.called} has color images, and the extractor {extractor.name} takes only gray ones: choose "
            "extractor=inception or efficientnet_lite0, or convert the images to gray first."
        )
