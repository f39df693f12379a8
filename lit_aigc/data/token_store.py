"""Token ids in memory-mapped files in the user's cache folder: made once, and as large as the disk allows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lit_aigc.data import store
from lit_aigc.data.store import Store

_BLOCK = 1 << 24


class TokenStore(Store):
    """A store of token files."""

    def tokens(self, name: str) -> np.ndarray:
        """Return ids ``(n,)`` uint16 or uint32 that `write_tokens` wrote, read from the disk on access."""
        kind = next(kind for kind in ("uint16", "uint32") if (self.folder / f"{name}.{kind}").is_file())
        return np.asarray(np.memmap(self.folder / f"{name}.{kind}", dtype=kind, mode="r"))


def open_store(key: str, build: Callable[[Path], dict[str, Any]]) -> TokenStore:
    """Return the store of this key, made if it isn't there: see `lit_aigc.data.store.open_store`."""
    return store.open_store(f"text/{key}", key, build, TokenStore)


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
