"""Token ids in files that `lit_aigc.data.store.Store` maps into memory, as large as the disk allows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_BLOCK = 1 << 24


def write_tokens(folder: Path, name: str, parts: Iterable[np.ndarray], vocab_size: int) -> str:
    """Write parts of ids one after another, two bytes each if they fit, else four, and return their hash."""
    kind = "uint16" if vocab_size <= 1 << 16 else "uint32"
    digest = hashlib.blake2b(digest_size=16)
    with (folder / f"{name}.{kind}").open("wb") as file:
        for part in parts:
            ids = np.ascontiguousarray(part, dtype=kind)
            digest.update(ids)
            file.write(ids)
    return digest.hexdigest()


def boundaries(tokens: np.ndarray) -> np.ndarray:
    """Return the places ``(m,)`` int64 of the boundary 0; reads the tokens block by block."""
    starts = range(0, len(tokens), _BLOCK)
    return np.concatenate([np.flatnonzero(tokens[start : start + _BLOCK] == 0) + start for start in starts])
