"""Locks on open files, which the system lifts when the file is closed or the process ends, however it ends."""

from __future__ import annotations

import time
from pathlib import Path
from typing import IO, Any, TextIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

_NAME = ".lock"  # of the lock file of a folder
_SECONDS = 0.1  # between two tries, where the system can't wait


def hold(folder: Path) -> TextIO:
    """Hold a folder by the lock file in it, until the file that is returned is closed.

    Raises:
        BlockingIOError: If another process holds the folder.
        OSError: If the folder can't be written to.
    """
    file = (folder / _NAME).open("w")
    try:
        lock(file)
    except OSError:
        file.close()
        raise
    return file


def is_held(folder: Path) -> bool:
    """Return whether a process holds a folder."""
    try:
        with (folder / _NAME).open() as file:
            lock(file)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def lock(file: IO[Any], wait: bool = False) -> None:
    """Lock an open file against everyone else who opens and locks it.

    Args:
        file: The file, open; it may be empty.
        wait: Whether to wait while someone else has the lock.

    Raises:
        BlockingIOError: If someone else has the lock, and `wait` is false.
    """
    if fcntl:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return
    file.seek(0)
    while True:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            return
        except PermissionError as error:
            if not wait:
                raise BlockingIOError(error.errno, error.strerror) from error
        time.sleep(_SECONDS)
