"""Tensors that are costly to compute again, in the user's cache folder; where there is none, nothing is kept."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from lit_aigc.files import write_atomically


def folder() -> Path:
    """Return the cache folder; raises RuntimeError if there is no home."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "lit_aigc"


def load_tensors(key: str) -> dict[str, Tensor] | None:
    """Return the tensors stored under this key, or None."""
    try:
        return load_safetensors(_file(key).read_bytes())
    except (OSError, SafetensorError, RuntimeError):
        return None


def store_tensors(key: str, tensors: dict[str, Tensor]) -> None:
    """Store tensors by name under a key, if the cache folder can be written to."""
    with contextlib.suppress(OSError, RuntimeError):
        write_atomically(_file(key), save_safetensors(tensors))


def _file(key: str) -> Path:
    return folder() / f"{key}.safetensors"
