"""Sets of images from elsewhere: a folder, a ``.zip``, or an ``.npz``, as a stream of batches in a fixed order.

Opening a set goes once through all of it, so that whatever is wrong with it is said before anything is computed. No
more than a few batches are in memory at a time, however many images there are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lit_aigc.errors import InputError
from lit_aigc.image_files import (
    AnimatedImageError,
    DecodedImage,
    ImageFiles,
    UnreadableImageError,
    decode,
    map_in_threads,
    to_channels,
)
from lit_aigc.metrics.frechet import SmallSampleWarning
from lit_aigc.spec import Batch

_AT_A_TIME = 32  # images, when a set is looked through
_ARRAYS = ("arr_0", "images")  # keys of an .npz that are taken where it has several


class Seen(NamedTuple):
    """What is to know about one image.

    Attributes:
        name: In its set.
        shape: ``(C, H, W)``, C is 1 or 3.
        digest: Hash of its size and of its pixels in RGB.
        coloured: Whether its channels differ anywhere.
        opaque: False if it had transparent pixels, which are white now.
    """

    name: str
    shape: tuple[int, ...]
    digest: bytes
    coloured: bool
    opaque: bool

    @classmethod
    def of(cls, name: str, image: DecodedImage) -> Seen:
        """The facts of a decoded image."""
        pixels = image.pixels
        coloured = len(pixels) == 3 and not (torch.equal(pixels[0], pixels[1]) and torch.equal(pixels[1], pixels[2]))
        digest = DecodedImage(to_channels(pixels[None], 3)[0].contiguous(), True).digest()
        return cls(name, tuple(pixels.shape), digest, coloured, image.opaque)


class Source(Protocol):
    """Where the images of a set are."""

    def look_through(self) -> Iterator[Seen | str]:
        """The facts of each image in order, or what is wrong with it."""

    def blocks(self, size: int, first: int, step: int) -> Iterator[tuple[int, list[Tensor]]]:
        """Images ``(C, H, W)`` in blocks of `size`, and the place of each block's first one.

        Begins with block number `first` and goes on with each `step`-th.
        """


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """A set of 8-bit images of one size.

    Attributes:
        path: Where it is, as the user gave it.
        called: What messages call it.
        shape: ``(C, H, W)`` of all images; in a set with colour images, grey ones are repeated over the channels.
        count: Number of images.
        distinct: Number of different ones.
        transparent: Number of those with transparent pixels, which count as white.
        coloured: Whether any pixel has a colour; false for grey images saved as RGB.
        fingerprint: Hash of the pixels of all images in order: the same for a folder, a zip and an array of them.
    """

    path: str
    called: str
    shape: tuple[int, int, int]
    count: int
    distinct: int
    transparent: int
    coloured: bool
    fingerprint: str
    source: Source = dataclasses.field(repr=False)

    def batches(self, size: int = 64, *, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """This process's share: uint8 ``(n, C, H, W)`` without labels, `start` the place of the first in the set.

        Raises:
            InputError: If the set has changed since it was opened.
        """
        for start, images in self.source.blocks(size, rank, world_size):
            if any(image.shape[1:] != self.shape[1:] for image in images) or start + len(images) > self.count:
                raise _changed(self.called)
            yield Batch(torch.cat([to_channels(image[None], self.shape[0]) for image in images]), None, start)

    def facts(self) -> dict[str, Any]:
        """What a protocol says about the set."""
        channels, height, width = self.shape
        facts = {"path": self.path, "n": self.count, "distinct": self.distinct, "fingerprint": self.fingerprint}
        facts |= {"size": f"{height}x{width}", "channels": channels}
        return facts | ({"transparent_on_white": self.transparent} if self.transparent else {})


def open_image_set(path: str | Path, key: str) -> ImageSet:
    """Open a set of images, and look through all of it.

    Warns if all its images are identical.

    Args:
        path: A folder (with the folders in it, in the order of the names), a ``.zip`` of images, or an ``.npz`` with a
            uint8 array ``(N, H, W, C)``, ``(N, C, H, W)`` or ``(N, H, W)`` as ``arr_0``, as ``images`` or alone.
        key: What it is given as, for messages: ``real`` or ``fake``.

    Raises:
        InputError: There is no such set, there are fewer than two images in it, images are unreadable, animated, of
            more than 8 bits, neither grey nor RGB, or of several sizes.
    """
    called = f"{key}={path}"
    suffix = Path(path).suffix.lower()
    if Path(path).is_file() and suffix not in (".zip", ".npz"):
        raise InputError(f"{called} is a file: expected a folder of images, a .zip of images, or an .npz.")
    source = ArrayFile(path, called) if suffix == ".npz" and not Path(path).is_dir() else Files(path, called)
    shapes: Counter[tuple[int, ...]] = Counter()
    examples: dict[tuple[int, ...], str] = {}
    digests: set[bytes] = set()
    whole = hashlib.blake2b(digest_size=16)
    problems, channels, coloured, transparent = [], 1, False, 0
    for seen in source.look_through():
        if isinstance(seen, str):
            problems.append(seen)
            continue
        shapes[seen.shape[1:]] += 1
        examples.setdefault(seen.shape[1:], seen.name)
        channels, coloured = max(channels, seen.shape[0]), coloured or seen.coloured
        transparent += not seen.opaque
        digests.add(seen.digest)
        whole.update(seen.digest)
    _refuse(called, problems, shapes, examples)
    if len(digests) == 1:
        warnings.warn(f"{called}: all {shapes.total()} images are identical; is this the right set?", stacklevel=2)
    whole.update(b"%d" % channels)
    return ImageSet(
        path=str(path),
        called=called,
        shape=(channels, *next(iter(shapes))),
        count=shapes.total(),
        distinct=len(digests),
        transparent=transparent,
        coloured=coloured,
        fingerprint=whole.hexdigest(),
        source=source,
    )


def _refuse(
    called: str, problems: list[str], shapes: Counter[tuple[int, ...]], examples: dict[tuple[int, ...], str]
) -> None:
    if problems:
        shown = "".join(f"\n  {problem}" for problem in problems[:5])
        more = f"\n  and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InputError(
            f"{called}: {len(problems)} of {len(problems) + shapes.total()} images can't be measured; mend or remove "
            f"them:{shown}{more}"
        )
    if len(shapes) > 1:
        common = ", ".join(f"{h}x{w} ({n}, such as {examples[h, w]})" for (h, w), n in shapes.most_common(3))
        raise InputError(
            f"{called}: images of {len(shapes)} sizes (height x width): {common}. Remove what doesn't belong to the "
            "set, or bring all to one size first: how that is done is part of the number."
        )
    if shapes.total() < 2:
        raise InputError(f"{called}: expected at least 2 images, better some thousands, got {shapes.total()}.")


def _changed(called: str) -> InputError:
    return InputError(f"{called} was changed while it was being measured: start again.")


def refuse_colours(image_set: ImageSet, extractor: nn.Module) -> None:
    """Refuses colour images for an extractor of grey ones: its features would be of other images.

    Grey images that were saved as RGB are none.

    Raises:
        InputError: If they don't go together.
    """
    if image_set.coloured and getattr(extractor, "shape", (3,))[0] == 1:
        raise InputError(
            f"{image_set.called} has colour images, and the extractor {extractor.name} sees grey only: choose "
            "extractor=inception or efficientnet_lite0, or make the images grey first."
        )


def check_pair(real: ImageSet, shape: tuple[int, ...], extractor: nn.Module) -> None:
    """Warns where a real set can't give a fair number: of another size or colour than the samples, or too small.

    Args:
        real: The real set.
        shape: ``(C, H, W)`` of the samples that are compared with it.
        extractor: The extractor.
    """
    if real.shape[1:] != tuple(shape[1:]):
        sizes = " and ".join("x".join(map(str, size)) for size in (real.shape[1:], shape[1:]))
        warnings.warn(
            f"{real.called} and the generated images have different sizes, {sizes} (height x width): each is resized "
            "by the extractor, and the number shows that difference too.",
            stacklevel=2,
        )
    if real.coloured and shape[0] == 1:
        warnings.warn(f"{real.called} has colour images, the generated ones are grey.", stacklevel=2)
    if real.count < extractor.num_features:
        warnings.warn(
            f"A Fréchet distance from {real.count} real images on {extractor.num_features} features is biased: give "
            f"{extractor.num_features} images or more in {real.called}, or look at KID, which is unbiased.",
            SmallSampleWarning,
            stacklevel=2,
        )


class Files:
    """The image files of a folder or a zip, in the order of their names."""

    def __init__(self, path: str | Path, called: str) -> None:
        self.called = called
        self.files = ImageFiles(path, called.partition("=")[0])
        self.names = self.files.names()

    def look_through(self) -> Iterator[Seen | str]:
        """See `Source`."""
        return map_in_threads(self._seen, self.names, _AT_A_TIME)

    def _seen(self, name: str) -> Seen | str:
        try:
            return Seen.of(name, decode(self.files.content(name), exact=True))
        except AnimatedImageError:
            return f"{name}: animated, expected one image a file"
        except UnreadableImageError as error:
            return f"{name}: {error}"

    def blocks(self, size: int, first: int, step: int) -> Iterator[tuple[int, list[Tensor]]]:
        """See `Source`. Decodes in threads, one block ahead."""
        starts = range(first * size, len(self.names), step * size)
        names = [name for start in starts for name in self.names[start : start + size]]
        pixels = map_in_threads(self._pixels, names, 2 * size)
        for start in starts:
            yield start, [next(pixels) for _ in self.names[start : start + size]]

    def _pixels(self, name: str) -> Tensor:
        try:
            return decode(self.files.content(name), exact=True).pixels
        except (AnimatedImageError, UnreadableImageError):
            raise _changed(self.called) from None


class ArrayFile:
    """A uint8 array of images in an ``.npz``, read as a stream: never whole, and nothing is unpickled.

    Args:
        path: The file.
        called: What messages call it.

    Raises:
        InputError: If it can't be read, or holds no such array.
    """

    def __init__(self, path: str | Path, called: str) -> None:
        self.path, self.called = path, called
        if not Path(path).exists():
            raise InputError(f"{called} does not exist. Expected a folder, a .zip of images, or an .npz.")
        try:
            with zipfile.ZipFile(path) as archive:
                self.member = f"{self._key([n.removesuffix('.npy') for n in archive.namelist()])}.npy"
                with archive.open(self.member) as stream:
                    version = np.lib.format.read_magic(stream)
                    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                    shape, fortran, dtype = read[version](stream)
                    self.offset = stream.tell()
        except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, KeyError, RuntimeError) as error:
            raise InputError(f"{called} can't be read ({error}): expected an .npz as numpy.savez writes it.") from None
        self.count, self.shape, self.channels_last = self._layout(shape, dtype)
        if fortran and self.count:
            raise InputError(f"{called}: its array is in Fortran's order: save numpy.ascontiguousarray of it.")

    def _key(self, keys: list[str]) -> str:
        found = [key for key in _ARRAYS if key in keys] or (keys if len(keys) == 1 else [])
        if found:
            return found[0]
        if {"mu", "sigma"} <= set(keys):
            raise InputError(
                f"{self.called} holds statistics (mu, sigma) and no images: which weights and which resizing they "
                "were made with is not known, so nothing can be compared with them. Give the images."
            )
        raise InputError(
            f"{self.called} has the arrays {', '.join(sorted(keys)[:8]) or 'none'}: expected arr_0 or images, or one."
        )

    def _layout(self, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, tuple[int, ...], bool]:
        """The number of images, ``(C, H, W)``, and whether channels come last in the file."""
        expected = "expected uint8 of shape (N, H, W, C) or (N, C, H, W), C 1 or 3"
        if dtype != np.uint8:
            raise InputError(
                f"{self.called}: {self.member} is {dtype}, {expected}; rounding is a choice that is made first."
            )
        if len(shape) == 3 and min(shape[1:]):
            return shape[0], (1, *shape[1:]), False
        first, last = (len(shape) == 4 and shape[i] in (1, 3) for i in (1, 3))
        if first == last or not min(shape[1:]):
            reason = " which can be read in two ways" if first else ""
            raise InputError(f"{self.called}: {self.member} has shape {shape}{reason}, {expected}.")
        return (shape[0], (shape[3], *shape[1:3]), True) if last else (shape[0], shape[1:], False)

    def look_through(self) -> Iterator[Seen | str]:
        """See `Source`."""
        for start, images in self.blocks(_AT_A_TIME, 0, 1):
            for i, image in enumerate(images, start):
                yield Seen.of(f"image {i}", DecodedImage(image, True))

    def blocks(self, size: int, first: int, step: int) -> Iterator[tuple[int, list[Tensor]]]:
        """See `Source`."""
        channels, height, width = self.shape
        stored = (height, width, channels) if self.channels_last else self.shape
        item = math.prod(stored)
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
                for start in range(first * size, self.count, step * size):
                    n = min(size, self.count - start)
                    stream.seek(self.offset + start * item)
                    content = stream.read(n * item)
                    if len(content) < n * item:
                        raise EOFError("cut short")
                    images = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(n, *stored)
                    yield start, list((images.permute(0, 3, 1, 2) if self.channels_last else images).contiguous())
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, RuntimeError) as error:
            raise InputError(f"{self.called} can't be read ({error}): it is damaged, get it again.") from None
