"""Files that take long to make, kept in the user's cache folder: one process makes them while the others wait."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_aigc.data import cache
from lit_aigc.data.sources import locked

_FACTS = "facts.json"


class Store:
    """A folder of files that is either complete or absent.

    Attributes:
        folder: The folder.
        facts: Returned by `build` when it made the files.
    """

    def __init__(self, folder: Path, key: str):
        """Raises OSError or ValueError if the folder is missing, incomplete, or was made for another key."""
        self.folder = folder
        stored = json.loads((folder / _FACTS).read_text())
        self.facts: dict[str, Any] = stored["facts"]
        sizes = {name: (folder / name).stat().st_size for name in stored["sizes"]}
        if (stored["key"], stored["sizes"]) != (key, sizes):
            raise ValueError(f"{folder} was made for other data, or is damaged")

    def pixels(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return a file of bytes as a uint8 tensor, memory-mapped: processes on one machine share its memory.

        Writing to the tensor changes neither the file nor the tensors of other processes.
        """
        if 0 in shape:  # an empty file can't be mapped
            return torch.empty(shape, dtype=torch.uint8)
        with (self.folder / name).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        if hasattr(mapped, "madvise"):
            mapped.madvise(mmap.MADV_WILLNEED)  # read ahead in order, since training will read the pages at random
        return torch.frombuffer(mapped, dtype=torch.uint8).view(shape)

    def tokens(self, name: str) -> np.ndarray:
        """Return the ids ``(n,)`` uint16 or uint32 of `lit_aigc.data.token_store.write_tokens`, read on access."""
        (file,) = self.folder.glob(f"{name}.uint*")
        return np.asarray(np.memmap(file, dtype=file.suffix[1:], mode="r"))


def open_store(place: str, key: str, build: Callable[[Path], dict[str, Any]]) -> Store:
    """Open a store, or make it if it isn't there or was made for another key.

    Of several processes, one makes it and the others wait. If the cache folder can't be written to, or its disk is
    full, each process makes its own, which lasts as long as the store that is returned.

    Args:
        place: Folder of the store in the cache folder, with forward slashes. A store with another key is replaced.
        key: Equal for inputs that make equal files.
        build: Fills an empty folder and returns facts to keep with the files, of plain JSON types.
    """
    try:
        folder = cache.folder() / place
        folder.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder.parent).close()
    except (OSError, RuntimeError):
        return _private(key, build)
    with contextlib.suppress(OSError, ValueError, KeyError):
        return Store(folder, key)
    with locked(folder.with_name(f"{folder.name}.lock")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            return Store(folder, key)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}.", suffix=".part"))
        try:
            _fill(part, key, build)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(part, folder)
        except OSError:  # the disk is full
            shutil.rmtree(part, ignore_errors=True)
            return _private(key, build)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return Store(folder, key)


def _private(key: str, build: Callable[[Path], dict[str, Any]]) -> Store:
    temporary = tempfile.TemporaryDirectory(prefix="lit_aigc_")
    _fill(Path(temporary.name), key, build)
    store = Store(Path(temporary.name), key)
    store.temporary = temporary  # removed with the store
    return store


def _fill(folder: Path, key: str, build: Callable[[Path], dict[str, Any]]) -> None:
    facts = build(folder)
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    (folder / _FACTS).write_text(json.dumps({"key": key, "facts": facts, "sizes": sizes}))
