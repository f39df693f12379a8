"""The images of a set in a folder, a ``.zip`` or an ``.npz``, read in blocks in a fixed order."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from lit_aigc.errors import InputError
from lit_aigc.media.image_files import (
    AnimatedImageError,
    DecodedImage,
    ImageFiles,
    UnreadableImageError,
    decode,
    map_in_threads,
    probe,
    to_channels,
)

_AT_A_TIME = 256  # headers
_ARRAYS = ("arr_0", "images")  # keys of an .npz that are preferred if it has several
_Read = TypeVar("_Read")


class Header(NamedTuple):
    """The name of an image in its set, and its shape ``(C, H, W)``, C 1 or 3; known without decoding it."""

    name: str
    shape: tuple[int, int, int]


class Seen(NamedTuple):
    """A decoded image, and facts about it.

    Attributes:
        image: The image.
        digest: Hash of its size and its pixels in RGB.
        colored: Whether its channels differ anywhere.
    """

    image: DecodedImage
    digest: bytes
    colored: bool

    @classmethod
    def of(cls, image: DecodedImage) -> Seen:
        """Gather the facts about a decoded image."""
        pixels = image.pixels
        colored = len(pixels) == 3 and not (torch.equal(pixels[0], pixels[1]) and torch.equal(pixels[1], pixels[2]))
        digest = DecodedImage(to_channels(pixels[None], 3)[0].contiguous(), True).digest()
        return cls(image, digest, colored)


class Files:
    """The image files of a folder or a zip, in the order of their names."""

    def __init__(self, path: str | Path, called: str) -> None:
        self.called = called
        self.files = ImageFiles(path, called.partition("=")[0])
        self.names = self.files.contents().images

    def headers(self) -> Iterator[Header | str]:
        """Yield the header of each image in order, or what is wrong with it."""
        return self._each(self.names, _AT_A_TIME, lambda name, content: Header(name, probe(content, strict=True)))

    def blocks(self, size: int, first: int, step: int) -> Iterator[tuple[int, list[Seen | str]]]:
        """Yield blocks of `size` images, or what is wrong with them, and the place of each block's first image.

        The blocks are number `first` and every `step`-th after it. Decodes in threads, one block ahead.
        """
        starts = range(first * size, len(self.names), step * size)
        names = [name for start in starts for name in self.names[start : start + size]]
        images = self._each(names, 2 * size, lambda _, content: Seen.of(decode(content)))
        for start in starts:
            yield start, [next(images) for _ in self.names[start : start + size]]

    def _each(self, names: list[str], chunk: int, read: Callable[[str, bytes], _Read]) -> Iterator[_Read | str]:
        """Yield what is read from each name and content, or why it can't be; `chunk` at a time, in threads."""

        def read_one(name: str) -> _Read | str:
            try:
                return read(name, self.files.content(name))
            except AnimatedImageError:
                return f"{name}: animated, expected one image per file"
            except UnreadableImageError as error:
                return f"{name}: {error}"

        return map_in_threads(read_one, names, chunk)


class ArrayFile:
    """A uint8 array of images in an ``.npz``, read as a stream: never as a whole, and without unpickling.

    Args:
        path: The file.
        called: Its name in messages.

    Raises:
        InputError: If it can't be read, or has no such array.
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
            raise InputError(f"{called}: its array is in Fortran order: save numpy.ascontiguousarray of it.")

    def _key(self, keys: list[str]) -> str:
        found = [key for key in _ARRAYS if key in keys] or (keys if len(keys) == 1 else [])
        if found:
            return found[0]
        if {"mu", "sigma"} <= set(keys):
            raise InputError(
                f"{self.called} has statistics (mu, sigma) and no images: the weights and the resizing behind them are "
                "unknown, so nothing can be compared with them. Give the images."
            )
        raise InputError(
            f"{self.called} has the arrays {', '.join(sorted(keys)[:8]) or 'none'}: expected arr_0 or images, or one."
        )

    def _layout(self, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, tuple[int, ...], bool]:
        """Return the number of images, their shape ``(C, H, W)``, and whether channels come last in the file."""
        expected = "expected uint8 of shape (N, H, W, C) or (N, C, H, W), C 1 or 3"
        if dtype != np.uint8:
            raise InputError(
                f"{self.called}: {self.member} is {dtype}, {expected}: round the values first, in the way you choose."
            )
        if len(shape) == 3 and min(shape[1:]):
            return shape[0], (1, *shape[1:]), False
        first, last = (len(shape) == 4 and shape[i] in (1, 3) for i in (1, 3))
        if first == last or not min(shape[1:]):
            reason = ", which is ambiguous" if first else ""
            raise InputError(f"{self.called}: {self.member} has shape {shape}{reason}, {expected}.")
        return (shape[0], (shape[3], *shape[1:3]), True) if last else (shape[0], shape[1:], False)

    def headers(self) -> Iterator[Header | str]:
        """See `Files`."""
        return (Header(f"image {i}", self.shape) for i in range(self.count))

    def blocks(self, size: int, first: int, step: int) -> Iterator[tuple[int, list[Seen | str]]]:
        """See `Files`."""
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
                    images = (images.permute(0, 3, 1, 2) if self.channels_last else images).contiguous()
                    yield start, [Seen.of(DecodedImage(image, True)) for image in images]
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, RuntimeError) as error:
            raise InputError(f"{self.called} can't be read ({error}): it is damaged; download it again.") from None
