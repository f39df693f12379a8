"""The signals that ask a process to stop at the next good moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

# From schedulers and `kill`, from SLURM before the time limit (Windows has none), and from Ctrl-C.
STOP = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))


class StopSignals:
    """Notes SIGTERM, SIGUSR1 and Ctrl-C, so that a program can stop at a boundary of its own.

    Args:
        act: Called at the first signal.
        patient: Whether a second Ctrl-C changes nothing; else it raises KeyboardInterrupt.

    Attributes:
        received: Name of the latest signal, or None.
    """

    def __init__(self, act: Callable[[], None] = lambda: None, patient: bool = False) -> None:
        self.received: str | None = None
        self._act = act
        self._patient = patient
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Handle the signals from now on, in place of whoever handled them before (Lightning's handlers broadcast)."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in STOP:
            before = signal.signal(number, self._handle)
            self._before.setdefault(number, before)

    def uninstall(self) -> None:
        """Restore the handlers from before the first `install`."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(self, *error: object) -> None:
        self.uninstall()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == "SIGINT" and not self._patient:
            raise KeyboardInterrupt
        first = self.received is None
        self.received = signal.Signals(number).name
        if first:
            self._act()
