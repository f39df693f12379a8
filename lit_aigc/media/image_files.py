"""Image files of any kind as clean uint8 images of one size: decoding, channels, resizing."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import os
import warnings
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from lit_aigc.errors import InputError
from lit_aigc.media.sample_folder import MANIFEST, overview_of

# Pillow's warnings about odd files: our own messages say what is wrong. catch_warnings around each file, used in
# threads, could leave all warnings of the process switched off.
warnings.filterwarnings("ignore", module=r"PIL\.")

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")
_LARGEST_FILE = 1 << 28  # bytes; more in one image file is a mistake or an attack
_In, _Out = TypeVar("_In"), TypeVar("_Out")


class UnreadableImageError(Exception):
    """A file that can't be decoded; the message is the reason."""


class AnimatedImageError(Exception):
    """A file of several frames or pages, none of which is the image."""


@dataclasses.dataclass(frozen=True)
class DecodedImage:
    """A decoded file.

    Attributes:
        pixels: uint8 ``(C, H, W)``, C is 1 or 3.
        opaque: False if it had transparent pixels, which are now white.
        converted: True if it had more than 8 bits per channel, or colors other than gray and RGB, such as CMYK.
    """

    pixels: Tensor
    opaque: bool
    converted: bool = False

    def digest(self) -> bytes:
        """Return a hash of size and pixels: equal for files that decode alike, whatever their format."""
        shape = "x".join(map(str, self.pixels.shape))
        return hashlib.blake2b(self.pixels.numpy(), digest_size=16, person=shape.encode()[:16]).digest()


class FolderContents(NamedTuple):
    """The contents of a folder or a zip, by relative names with forward slashes, each sorted.

    Attributes:
        images: Files that end in one of `SUFFIXES`, except overviews that `lit_aigc.generate` drew of its samples.
        others: All other files.
        empty: Folders without an image in or below them, except those inside of another one.
    """

    images: list[str]
    others: list[str]
    empty: list[str]


class ImageFiles:
    """The image files of a folder or a zip, by their names in it. Members of a zip are never written to disk.

    Args:
        root: The folder or the zip.
        called: The key that it was given as, for messages.
    """

    def __init__(self, root: str | Path, called: str):
        self.root, self.called = str(root), f"{called}={root}"
        self._zip: zipfile.ZipFile | None = None
        self._process = 0

    def contents(self) -> FolderContents:
        """Return everything except hidden files, and unsafe names in a zip.

        Raises:
            InputError: If it doesn't exist, is neither a folder nor a zip, or has no images.
        """
        root = Path(self.root)
        if not root.exists():
            raise InputError(f"{self.called} does not exist. Expected a folder or a .zip of images.")
        try:
            if root.is_dir():
                files, folders = _walk(root)
            else:
                members = self._archive().infolist()
                files = [member.filename for member in members if not member.is_dir()]
                folders = [member.filename.rstrip("/") for member in members if member.is_dir()]
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{self.called} can't be read ({error}). Expected a folder or a .zip.") from None
        shown = sorted(name for name in set(files) if _is_shown(name))
        overviews = self._overviews(shown)
        images = [n for n in shown if PurePosixPath(n).suffix.lower() in SUFFIXES and n not in overviews]
        if not images:
            raise InputError(f"{self.called}: there are no images in it, no files that end in {', '.join(SUFFIXES)}.")
        filled = {parent for name in images for parent in PurePosixPath(name).parents}
        found = {PurePosixPath(name) for name in folders if _is_shown(name)}
        found |= {parent for name in shown for parent in PurePosixPath(name).parents}
        empty = sorted(str(folder) for folder in found - filled if folder.parent in filled)
        return FolderContents(images, sorted(set(shown) - set(images)), empty)

    def _overviews(self, names: Iterable[str]) -> set[str]:
        """Return the overviews of samples that ``samples.json`` files name."""
        found = set()
        for name in names:
            if PurePosixPath(name).name == MANIFEST:
                with contextlib.suppress(UnreadableImageError):
                    if overview := overview_of(self.content(name)):
                        found.add(str(PurePosixPath(name).with_name(overview)))
        return found

    def stamps(self, names: list[str]) -> Iterator[str]:
        """Yield a string per file that changes when the file does."""
        in_folder = Path(self.root).is_dir()
        for name in names:
            if in_folder:
                status = os.stat(os.path.join(self.root, name))
                yield f"{name}:{status.st_size}:{status.st_mtime_ns}"
            else:
                info = self._archive().getinfo(name)
                yield f"{name}:{info.file_size}:{info.CRC}"

    def content(self, name: str) -> bytes:
        """Return the bytes of a file; raises `UnreadableImageError`."""
        path = Path(self.root, name) if Path(self.root).is_dir() else None
        try:
            size = path.stat().st_size if path else self._archive().getinfo(name).file_size
            if size <= _LARGEST_FILE:
                return path.read_bytes() if path else self._archive().read(name)
        except Exception as error:  # zipfile and zlib raise many kinds
            raise UnreadableImageError(str(error) or type(error).__name__) from None
        raise UnreadableImageError(f"{size >> 20} MiB is too large")

    def _archive(self) -> zipfile.ZipFile:
        """Return the open zip; each process opens its own, since a forked one would share the position in the file."""
        if self._zip is None or self._process != os.getpid():
            self._zip, self._process = zipfile.ZipFile(self.root), os.getpid()
        return self._zip

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_zip": None}


def _walk(root: Path) -> tuple[list[str], list[str]]:
    """Return the names of the files and of the folders below a folder, except in hidden folders."""
    all_files, all_folders = [], []
    for place, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = Path(place).relative_to(root)
        all_files += [(here / name).as_posix() for name in files]
        all_folders += [(here / name).as_posix() for name in folders]
    return all_files, all_folders


def _is_shown(name: str) -> bool:
    """Return whether a name is neither hidden nor unsafe."""
    path = PurePosixPath(name)
    unsafe = path.is_absolute() or "\\" in name
    return not unsafe and not any(part.startswith(".") or part == "__MACOSX" for part in path.parts)  # ".." too


def map_in_threads(function: Callable[[_In], _Out], items: Iterable[_In], chunk: int = 256) -> Iterator[_Out]:
    """Yield results in order; at most `chunk` of them are in memory at a time."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        remaining = iter(items)
        begun = deque(pool.submit(function, item) for item in itertools.islice(remaining, chunk))
        while begun:
            yield begun.popleft().result()
            begun.extend(pool.submit(function, item) for item in itertools.islice(remaining, 1))


def decode(content: bytes) -> DecodedImage:
    """Decode the bytes of an image file to 8-bit gray or RGB, turned upright according to its EXIF data.

    Training and evaluation both use this, so that they read images alike.

    Raises:
        UnreadableImageError: Not an image of a known format, cut short, or damaged.
        AnimatedImageError: Several frames.
    """
    with _opened(content) as image:
        _refuse(image)
        converted = _needs_conversion(image, content)
        image.load()
        return dataclasses.replace(_to_tensor(ImageOps.exif_transpose(image)), converted=converted)


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """Open an image; inside, anything that Pillow raises becomes an `UnreadableImageError`."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            yield image
    except (AnimatedImageError, UnreadableImageError):
        raise
    except Image.UnidentifiedImageError:
        raise UnreadableImageError("not an image" if content else "empty file") from None
    except Exception as error:  # Pillow's plugins raise anything on damaged files
        raise UnreadableImageError(str(error) or type(error).__name__) from None


def _refuse(image: Image.Image) -> None:
    """Refuse several frames, and pixels of unknown range."""
    if image.format in ("GIF", "PNG", "WEBP", "TIFF") and getattr(image, "n_frames", 1) > 1:
        raise AnimatedImageError
    if image.format == "TIFF" and image.mode in ("I", "F"):
        raise UnreadableImageError("32 bits per pixel, of unknown range: save it with 8 or 16")


def _needs_conversion(image: Image.Image, content: bytes) -> bool:
    """Return whether it is anything but 8-bit gray or RGB, with or without a palette and transparency."""
    deep_png = image.format == "PNG" and content[24:25] == b"\x10"  # Pillow reduces RGB to 8 bits by itself
    return deep_png or image.mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX")


def probe(content: bytes, *, strict: bool = False) -> tuple[int, int, int]:
    """Return the ``(channels, height, width)`` of an image by its header, without decoding its pixels.

    Args:
        content: The bytes of the file.
        strict: Refuse what `decode` would refuse, as far as the header shows; damaged pixels are found only in a PNG.

    Raises:
        UnreadableImageError: Not an image of a known format, or refused.
        AnimatedImageError: Several frames, and `strict`.
    """
    with _opened(content) as image:
        if strict:
            _refuse(image)
        width, height = image.size
        if image.format == "TIFF":
            pass  # Pillow has already turned its size
        elif image.format != "PNG" or b"eXIf" in content:  # Pillow would decode a PNG to find EXIF data at its end
            if image.getexif().get(0x0112, 1) >= 5:  # the orientations on their side
                width, height = height, width
        elif strict:
            image.verify()  # checksums
        return 1 if _is_gray(image) else 3, height, width


def _is_gray(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA", "La") or image.mode.startswith(("I", "F"))


def _to_tensor(image: Image.Image) -> DecodedImage:
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits per pixel
        values = np.asarray(image).astype(np.float64)
        values = np.clip(np.rint(values / 257), 0, 255).astype(np.uint8)
        return DecodedImage(torch.from_numpy(values)[None], True)
    gray, opaque = _is_gray(image), True
    if image.has_transparency_data:
        image = image.convert("RGBA")
        opaque = image.getextrema()[3][0] == 255
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    values = np.array(image.convert("L" if gray else "RGB"))
    pixels = torch.from_numpy(values)
    return DecodedImage(pixels[None] if gray else pixels.permute(2, 0, 1).contiguous(), opaque)


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Convert uint8 ``(N, 1|3, H, W)`` to `channels` channels; gray is the luma of ITU-R BT.601, as in Pillow."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    red, green, blue = images.to(torch.int32).unbind(1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).to(torch.uint8)[:, None]


def to_size(images: Tensor, size: int) -> Tensor:
    """Resize the shorter side of uint8 ``(N, C, H, W)`` to `size` (antialiased bilinear), and crop the center."""
    height, width = images.shape[-2:]
    if height == width == size:
        return images
    shorter = min(height, width)
    target = (max(size, round(height * size / shorter)), max(size, round(width * size / shorter)))
    if target != (height, width):
        resize = functools.partial(F.interpolate, size=target, mode="bilinear", antialias=True)
        images = torch.cat([resize(part) for part in images.split(4096)])
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    return images[:, :, top : top + size, left : left + size]


def prepare(images: Tensor, image_size: int | None, channels: int | None) -> Tensor:
    """Convert uint8 ``(N, C, H, W)`` to a size and channels (None: unchanged), as contiguous ``(N, H, W, C)``."""
    if channels == 1:  # fewer to resize
        images = to_channels(images, 1)
    if image_size is not None:
        images = to_size(images, image_size)
    if channels == 3:
        images = to_channels(images, 3)
    return images.permute(0, 2, 3, 1).contiguous()


def read_folder(folder: str | Path, shape: tuple[int, ...]) -> tuple[Tensor, list[str]]:
    """Read all images of a folder and its subfolders in the shape of a model's; hidden ones are skipped.

    Args:
        folder: The folder.
        shape: ``(C, H, W)`` of the model's images.

    Returns:
        uint8 ``(n, C, H, W)``, and their names in the folder, with forward slashes and in alphabetical order.

    Raises:
        InputError: If the folder doesn't exist, has no images, or has one that can't be read.
    """
    root, (channels, height, width) = Path(folder), shape
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: expected one of image files ({', '.join(SUFFIXES)}).")
    files = ImageFiles(root, "encode")
    names = files.contents().images
    images = []
    for name in names:
        try:
            pixels = decode(files.content(name)).pixels
        except AnimatedImageError:
            raise InputError(f"{root / name} is animated: expected one image per file.") from None
        except UnreadableImageError as error:
            raise InputError(f"{root / name} can't be read as an image: {error}. Fix or remove it.") from None
        if pixels.shape[1:] != (height, width) and height != width:
            raise InputError(f"{root / name} is not {height}x{width} (HxW), as the images of the model are.")
        fits = pixels.shape[1:] == (height, width)
        images.append(prepare(pixels[None], None if fits else height, channels)[0].permute(2, 0, 1))
    return torch.stack(images), names
