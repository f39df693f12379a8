"""Results that are costly to find again, in the user's cache folder; without one, nothing is kept."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor


def folder() -> Path:
    """Where it all lies; RuntimeError if there is no home."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "lit_aigc"


def load_tensors(key: str) -> dict[str, Tensor] | None:
    """The tensors that were stored under this key, or None."""
    try:
        return load_safetensors(_file(key, ".safetensors").read_bytes())
    except (OSError, SafetensorError, RuntimeError):
        return None


def store_tensors(key: str, tensors: dict[str, Tensor]) -> None:
    """As `store`, tensors by name."""
    _write(key, ".safetensors", save_safetensors(tensors))


def _write(key: str, suffix: str, content: bytes) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        file = _file(key, suffix)
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("wb", dir=file.parent, suffix=".part", delete=False) as part:
            part.write(content)
        os.replace(part.name, file)


def _file(key: str, suffix: str) -> Path:
    return folder() / f"{key}{suffix}"
