"""Pictures embedded in a page."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

from lit_aigc.errors import InputError

LIMIT = 1_600_000  # bytes of all pictures together; a third more as base64
SMALL = 320  # pixels; narrower pictures are enlarged
WIDEST = 640  # pixels, up to about this width


def embed(picture: Image.Image | bytes, name: str, among: int = 1) -> dict[str, Any]:
    """Embed a picture as a PNG, made smaller until it takes no more than its share of `LIMIT`.

    Args:
        picture: A Pillow image, or the bytes of an image file.
        name: For the message.
        among: Number of pictures that share the limit.

    Returns:
        ``source``, a ``data:`` address; ``width`` and ``height`` in pixels; and ``factor``, how much to enlarge it.

    Raises:
        InputError: If the bytes are not an image.
    """
    try:
        image = Image.open(io.BytesIO(picture)) if isinstance(picture, bytes) else picture
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"The picture {name} can't be read ({error}): expected a PNG or another image file."
        ) from error
    data = picture if isinstance(picture, bytes) and image.format == "PNG" else _png(image)
    while len(data) > LIMIT / among and max(image.size) > 64:
        image = image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB")
        half = (max(1, image.width // 2), max(1, image.height // 2))
        image = image.resize(half, Image.Resampling.LANCZOS)
        data = _png(image)
    factor = max(1, WIDEST // image.width) if image.width < SMALL else 1
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return {"source": source, "width": image.width, "height": image.height, "factor": factor}


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image = image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA") else image.convert("RGB")
    image.save(buffer, format="PNG")
    return buffer.getvalue()
