"""The signals that ask for an end."""

from __future__ import annotations

import signal

# From schedulers and `kill`, from SLURM before the time limit (Windows has none), and from Ctrl-C.
STOP = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))
