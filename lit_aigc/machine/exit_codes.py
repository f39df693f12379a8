"""The exit codes of every command, which scripts, SLURM jobs and sweep agents rely on."""

from __future__ import annotations

DONE = 0
FAILED = 1  # anything that is none of the others
BAD_INPUT = 2  # one message, no traceback
PAUSED = 75  # resumable; EX_TEMPFAIL of sysexits.h
