"""Image files of any kind to clean uint8 images of one size: decoding, channels, resizing."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lit_aigc.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")


class UnreadableImageError(Exception):
    """A file that can't be decoded; the message is the reason."""


class AnimatedImageError(Exception):
    """A file of several frames, of which none is the image."""


@dataclasses.dataclass(frozen=True)
class DecodedImage:
    """A decoded file.

    Attributes:
        pixels: uint8 ``(C, H, W)``, C is 1 or 3.
        opaque: False if it had transparent pixels, which are white now.
    """

    pixels: Tensor
    opaque: bool

    def digest(self) -> bytes:
        """Hash of size and pixels: equal for files that decode alike, whatever their format."""
        shape = "x".join(map(str, self.pixels.shape))
        return hashlib.blake2b(self.pixels.numpy(), digest_size=16, person=shape.encode()[:16]).digest()


def decode(content: bytes) -> DecodedImage:
    """Decode the bytes of an image file, turned upright as its EXIF data say, 16 bits a pixel brought down to 8.

    Raises:
        UnreadableImageError: Not an image of a known format, cut short, or damaged.
        AnimatedImageError: Several frames.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                if image.format in ("GIF", "PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
                    raise AnimatedImageError
                image.load()
                return _to_tensor(ImageOps.exif_transpose(image))
    except AnimatedImageError:
        raise
    except Image.UnidentifiedImageError:
        raise UnreadableImageError("not an image" if content else "empty file") from None
    except Exception as error:  # Pillow's plugins raise whatever they like on damaged files
        raise UnreadableImageError(str(error) or type(error).__name__) from None


def probe(content: bytes) -> tuple[int, int, int]:
    """``(channels, height, width)`` of an image as its header says; raises `UnreadableImageError`."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            warnings.simplefilter("ignore")
            width, height = image.size
            if image.getexif().get(0x0112, 1) >= 5:  # the EXIF orientations that lie on their side
                width, height = height, width
            return 1 if _is_grey(image) else 3, height, width
    except Exception as error:
        raise UnreadableImageError(str(error) or type(error).__name__) from None


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA", "La") or image.mode.startswith(("I", "F"))


def _to_tensor(image: Image.Image) -> DecodedImage:
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits a pixel
        values = np.asarray(image).astype(np.float64)
        values = np.clip(np.rint(values / 257), 0, 255).astype(np.uint8)
        return DecodedImage(torch.from_numpy(values)[None], True)
    grey, opaque = _is_grey(image), True
    if image.has_transparency_data:
        image = image.convert("RGBA")
        opaque = image.getextrema()[3][0] == 255
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    values = np.array(image.convert("L" if grey else "RGB"))
    pixels = torch.from_numpy(values)
    return DecodedImage(pixels[None] if grey else pixels.permute(2, 0, 1).contiguous(), opaque)


def to_channels(images: Tensor, channels: int) -> Tensor:
    """uint8 ``(N, C, H, W)`` with 1 or 3 channels to `channels`; grey is the luma of ITU-R BT.601, as in Pillow."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    red, green, blue = images.to(torch.int32).unbind(1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).to(torch.uint8)[:, None]


def to_size(images: Tensor, size: int) -> Tensor:
    """uint8 ``(N, C, H, W)`` to ``(N, C, size, size)``: shorter side resized (antialiased bilinear), centre cropped."""
    height, width = images.shape[-2:]
    if height == width == size:
        return images
    shorter = min(height, width)
    target = (max(size, round(height * size / shorter)), max(size, round(width * size / shorter)))
    if target != (height, width):
        images = torch.cat(
            [
                torch.nn.functional.interpolate(part, size=target, mode="bilinear", antialias=True)
                for part in images.split(4096)
            ]
        )
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    return images[:, :, top : top + size, left : left + size]


def prepare(images: Tensor, image_size: int | None, channels: int | None) -> Tensor:
    """uint8 ``(N, C, H, W)`` to the asked size and channels (None leaves them), as contiguous ``(N, H, W, C)``."""
    if channels == 1:  # fewer to resize
        images = to_channels(images, 1)
    if image_size is not None:
        images = to_size(images, image_size)
    if channels == 3:
        images = to_channels(images, 3)
    return images.permute(0, 2, 3, 1).contiguous()


def read_folder(folder: str | Path, shape: tuple[int, ...]) -> tuple[Tensor, list[str]]:
    """All images of a folder and of the folders in it, made as large as a model's; what is hidden is left out.

    Args:
        folder: The folder.
        shape: ``(C, H, W)`` of the model's images.

    Returns:
        uint8 ``(n, C, H, W)``, and their names in the folder, with forward slashes and in the order of the alphabet.

    Raises:
        InputError: There is no such folder, no image in it, or one that can't be read.
    """
    root, (channels, height, width) = Path(folder), shape
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: expected one of image files ({', '.join(SUFFIXES)}).")
    found = {file.relative_to(root).as_posix(): file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES}
    names = sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")))
    if not names:
        raise InputError(f"There are no images in {root}: expected files that end in {', '.join(SUFFIXES)}.")
    images = []
    for name in names:
        try:
            pixels = decode(found[name].read_bytes()).pixels
        except AnimatedImageError:
            raise InputError(f"{root / name} is animated: expected one image a file.") from None
        except (UnreadableImageError, OSError) as error:
            raise InputError(f"{root / name} can't be read as an image: {error}. Mend or remove it.") from None
        if pixels.shape[1:] != (height, width) and height != width:
            raise InputError(f"{root / name} is not {height}x{width} (HxW), as the images of the model are.")
        fits = pixels.shape[1:] == (height, width)
        images.append(prepare(pixels[None], None if fits else height, channels)[0].permute(2, 0, 1))
    return torch.stack(images), names
