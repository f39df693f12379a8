"""A lock on an open file, which the system lifts when the file is closed or the process ends, however it ends."""

from __future__ import annotations

import time
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

_SECONDS = 0.1  # between two tries, where the system can't wait


def lock(file: IO[Any], wait: bool = False) -> None:
    """Lock an open file against everybody else who opens and locks it.

    Args:
        file: The file; an open one without content will do.
        wait: Whether to wait while somebody else has the lock.

    Raises:
        BlockingIOError: Somebody else has the lock, and `wait` is false.
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
