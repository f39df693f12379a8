"""Writing files that a reader never sees half-written."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: str | Path, data: bytes | str) -> Path:
    """Write a whole file: to a temporary file in the same folder, then `os.replace`.

    After a crash at any moment the path holds the old content or the new, never a part. Makes the folder when it is
    missing; text is written as UTF-8 with its line ends as they are.

    Raises:
        OSError: The disk is full or the folder can't be written to; the old file stays and no temporary file is left.
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
            error.filename = error.filename or str(path)  # a full disk doesn't say
        raise
    return path
