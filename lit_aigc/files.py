"""Files that no reader ever sees half-written, and YAML of plain types."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_aigc.errors import InputError, check


def write_atomically(path: str | Path, data: bytes | str) -> Path:
    """Write a whole file: to a temporary file in the same folder, then `os.replace`.

    After a crash at any moment the path holds either the old content or the new, never a part. A missing folder is
    created; text is written as UTF-8 with its line endings unchanged.

    Raises:
        OSError: The disk is full or the folder isn't writable; the old file stays and no temporary file remains.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)  # the error of a full disk has none
        raise
    return path


def check_writable(path: str | Path, key: str, *, folder: bool) -> None:
    """Check that a file, or files in a folder, can be written, before something long is computed for them.

    It creates and removes a temporary file in the nearest existing folder.

    Args:
        path: The file or the folder; it needn't exist.
        key: Name of the option, for the message.
        folder: Whether the path is a folder.

    Raises:
        InputError: If it can't be written.
    """
    path = Path(path)
    taken = not folder and os.path.isdir(path)
    if reason := "it is a folder" if taken else cannot_write(path if folder else path.parent):
        raise InputError(f"{key}={path} can't be written ({reason}): choose another path.")


def cannot_write(path: str | Path) -> str:
    """Return why no file can be made in a folder, or in the nearest one above it that exists; empty if one can."""
    try:
        with tempfile.TemporaryFile(dir=nearest(path)):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def nearest(path: str | Path) -> Path:
    """Return the absolute path, or the nearest folder above it that exists."""
    path = Path(path).absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def name_at(samples_seen: int, suffix: str) -> str:
    """Return the name of a file about a moment of a run, such as ``0000064000.png``."""
    return f"{samples_seen:010d}{suffix}"


def check_keep(keep: int) -> None:
    """Raise `InputError` if this is no valid number of files to keep."""
    check(("keep", keep, keep >= 2, "at least 2, the first and the last"))


def thin_out(folder: str | Path, suffix: str, keep: int) -> None:
    """Delete files of `name_at` until `keep` remain, spread evenly over the run, including the first and the last.

    It repeatedly deletes the file whose neighbors are closest to each other.
    """
    files = {
        int(file.name[:10]): file
        for file in Path(folder).iterdir()
        if re.fullmatch(r"\d{10}" + re.escape(suffix), file.name)
    }
    moments = sorted(files)
    while len(moments) > keep:
        i = min(range(1, len(moments) - 1), key=lambda i: moments[i + 1] - moments[i - 1])
        files[moments.pop(i)].unlink(missing_ok=True)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of plain types."""
    import yaml

    try:
        config = yaml.safe_load(Path(path).read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} can't be read: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} is empty or damaged: expected a config, which maps keys to values.")
    return config


def write_yaml(config: Mapping[str, Any], path: str | Path) -> None:
    """Write plain types as YAML, with the keys in their order."""
    import yaml

    write_atomically(path, yaml.safe_dump(dict(config), sort_keys=False))
