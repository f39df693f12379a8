"""The checkpoint files of a run: written whole or not at all, the newest intact one read."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.utils._pytree import tree_leaves

from lit_aigc.errors import InputError
from lit_aigc.modules.checkpoint import read_checkpoint

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file in the same folder, syncs it and puts it in place; reads with ``weights_only=True``.

    The file that ``last.ckpt`` replaces stays as ``previous.ckpt``.

    Args:
        loaded: A checkpoint's path and its content: the first request for this path gets the content, without reading
            the file again.
    """

    def __init__(self, loaded: tuple[Path, dict[str, Any]] | None = None) -> None:
        self._loaded = loaded

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            InputError: If the disk is full or read-only; the files that were there stay.
        """
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for left_by_a_kill in path.parent.glob(f".{path.name}.*.tmp"):
                left_by_a_kill.unlink()
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if path.name == LAST and path.exists():
                os.replace(path, path.with_name(PREVIOUS))
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except BaseException as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            reason = error.__cause__ or error.__context__ or error
            if not isinstance(error, OSError) and not (isinstance(error, RuntimeError) and isinstance(reason, OSError)):
                raise  # torch reports a failed write as a RuntimeError from the OSError
            raise InputError(
                f"The checkpoint {path} can't be written ({reason}). The checkpoints before it are kept. Free some "
                f"space (about {_mebibytes(checkpoint)} MiB per checkpoint, three are kept), then resume with "
                f"resume={path.parent.parent}"
            ) from error

    def load_checkpoint(self, path: str | Path, map_location: Any = None, **options: Any) -> dict[str, Any]:
        """Read a checkpoint, unless it is loaded; nothing in it is executed."""
        loaded, self._loaded = self._loaded, None
        return loaded[1] if loaded and loaded[0] == Path(path) else read_checkpoint(path)


def _sync_folder(folder: Path) -> None:
    """Put new names on the disk, so that a power cut doesn't take them back."""
    with contextlib.suppress(OSError):  # not all file systems can; the file itself is safe
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def latest_checkpoint(run_dir: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint of a run that can be read, and its content; None if the run has written none.

    A damaged ``last.ckpt`` is passed over for ``previous.ckpt``, with a warning.

    Raises:
        InputError: If there are checkpoints and none can be read.
    """
    paths = [Path(run_dir) / "checkpoints" / name for name in (LAST, PREVIOUS)]
    errors = []
    for path in (path for path in paths if path.exists()):
        try:
            checkpoint = read_checkpoint(path)
        except InputError as error:
            errors.append(str(error))
            continue
        if errors:
            warnings.warn(f"{errors[0]} Resuming from {path}.", stacklevel=2)
        return path, checkpoint
    if errors:
        raise InputError("\n".join([*errors, "Start a new run, or put an intact checkpoint there."]))
    return None


def _mebibytes(checkpoint: dict[str, Any]) -> int:
    """Return the size of all tensors in a checkpoint, rounded up."""
    sizes = (leaf.nbytes for leaf in tree_leaves(checkpoint) if isinstance(leaf, torch.Tensor))
    return math.ceil(sum(sizes) / 2**20)
