"""Token ids in memory-mapped files of the user's cache folder: made once, and as large as the disk allows."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lit_aigc.data import cache
from lit_aigc.data.sources import locked

_FACTS = "tokens.json"
_BLOCK = 1 << 24


class TokenStore:
    """A folder of token files, complete or not there at all.

    Attributes:
        folder: Where they lie.
        facts: What `build` returned when they were made.
    """

    def __init__(self, folder: Path):
        """Raises OSError or ValueError if something in the folder is missing or damaged."""
        self.folder = folder
        stored = json.loads((folder / _FACTS).read_text())
        self.facts: dict[str, Any] = stored["facts"]
        for name, size in stored["sizes"].items():
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{folder / name} is not of {size} bytes")

    def tokens(self, name: str) -> np.ndarray:
        """``(n,)`` uint16 or uint32: what `write_tokens` wrote, read from the disk where it is touched."""
        kind = next(kind for kind in ("uint16", "uint32") if (self.folder / f"{name}.{kind}").is_file())
        return np.asarray(np.memmap(self.folder / f"{name}.{kind}", dtype=kind, mode="r"))


def open_store(key: str, build: Callable[[Path], dict[str, Any]]) -> TokenStore:
    """The store of this key, made if it isn't there; of processes that ask at once, one makes it and the others wait.

    Args:
        key: Equal for what makes equal files.
        build: Fills an empty folder, and returns facts to keep beside the files: plain JSON types.
    """
    try:
        home = cache.folder() / "text"
        home.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=home).close()
    except (OSError, RuntimeError):  # nothing can be kept: for this process only
        temporary = tempfile.TemporaryDirectory(prefix="lit_aigc_text_")
        store = _built(Path(temporary.name), build)
        store.temporary = temporary  # removed with it
        return store
    place = home / key
    with contextlib.suppress(OSError, ValueError):
        return TokenStore(place)
    with locked(home / f"{key}.lock"):
        with contextlib.suppress(OSError, ValueError):
            return TokenStore(place)
        folder = Path(tempfile.mkdtemp(dir=home, prefix=f"{key}.", suffix=".part"))
        try:
            _built(folder, build)
            shutil.rmtree(place, ignore_errors=True)  # damaged
            os.replace(folder, place)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return TokenStore(place)


def _built(folder: Path, build: Callable[[Path], dict[str, Any]]) -> TokenStore:
    facts = build(folder)
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    (folder / _FACTS).write_text(json.dumps({"facts": facts, "sizes": sizes}))
    return TokenStore(folder)


def write_tokens(folder: Path, name: str, parts: Iterable[np.ndarray], vocab_size: int) -> str:
    """Write ids one part after the other, two bytes each if they fit, else four; returns the hash of all of them."""
    kind = "uint16" if vocab_size <= 1 << 16 else "uint32"
    digest = hashlib.blake2b(digest_size=16)
    with (folder / f"{name}.{kind}").open("wb") as file:
        for part in parts:
            ids = np.ascontiguousarray(part, dtype=kind)
            digest.update(ids)
            file.write(ids)
    return digest.hexdigest()


def boundaries(tokens: np.ndarray) -> np.ndarray:
    """``(m,)`` int64: where the boundary 0 stands; reads the tokens block by block."""
    starts = range(0, len(tokens), _BLOCK)
    return np.concatenate([np.flatnonzero(tokens[start : start + _BLOCK] == 0) + start for start in starts])
