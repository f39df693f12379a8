"""The folder of a run: its name, its lock, and the summary in it."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TextIO

from lit_aigc.errors import InputError
from lit_aigc.files import write_atomically
from lit_aigc.machine.lock import hold

# For each variable with the id of a job the id of a run in it; the first that is set counts.
_IDS = {
    "SLURM_ARRAY_JOB_ID": "slurm-{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}",
    "SLURM_JOB_ID": "slurm-{SLURM_JOB_ID}",
    "WANDB_RUN_ID": "{WANDB_RUN_ID}",
    "TORCHELASTIC_RUN_ID": "torchelastic-{TORCHELASTIC_RUN_ID}",
}


def in_sweep() -> bool:
    """Return whether a W&B sweep agent started this process."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def run_id(named: bool = False) -> tuple[str, bool]:
    """Return the id of this run, and whether a later start of the same job has the same id.

    It is the id of the SLURM job, the W&B run or the torchelastic run, else the time. Inside a sweep agent W&B's comes
    first: one SLURM job has many trials.

    Args:
        named: Whether the user named the run folder, so that processes needn't know its id to find it.

    Raises:
        InputError: If torchrun started several processes and gave them nothing to agree on a folder by.
    """
    names = sorted(_IDS, key=lambda name: name != "WANDB_RUN_ID") if in_sweep() else _IDS
    for name in names:
        if os.environ.get(name, "none") != "none":
            return _IDS[name].format_map(os.environ), True
    if "TORCHELASTIC_RUN_ID" in os.environ and not named:
        raise InputError(
            "torchrun gave this run no id: start it with --rdzv-backend=c10d --rdzv-id=NAME, or give run_dir=PATH."
        )
    return datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3], False


_IMPORTED = time.monotonic()


class HeldFolder:
    """A folder that one process holds at a time.

    Args:
        path: The folder; made by `claim`.

    Attributes:
        kind: What the folder is, for messages.
        option: The option that names it, for messages.
    """

    kind: ClassVar[str]
    option: ClassVar[str]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock: TextIO | None = None
        self._new_folders: list[Path] = []
        self._there_before: set[Path] = set()

    def claim(self) -> None:
        """Make the folder and hold it until the process ends.

        Raises:
            InputError: If another process holds it, or it can't be written to.
        """
        try:
            self._new_folders = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._there_before = set(self.path.iterdir())
            self._lock = hold(self.path)
        except BlockingIOError as error:
            message = f"{self.kind} {self.path} is in use by another process: wait for it"
            raise InputError(f"{message}, or give another {self.option}=.") from error
        except OSError as error:
            message = f"{self.kind} {self.path} can't be written to ({error})"
            raise InputError(f"{message}: give another {self.option}=.") from error

    def release(self) -> None:
        """Release the folder."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def abandon(self) -> None:
        """Undo `claim` and everything written since."""
        if not self._lock:
            return
        for new in set(self.path.iterdir()) - self._there_before:
            if new.is_dir() and not new.is_symlink():
                shutil.rmtree(new, ignore_errors=True)
            else:
                new.unlink(missing_ok=True)
        self.release()
        for folder in self._new_folders:
            with contextlib.suppress(OSError):  # another run may have been started next to it
                folder.rmdir()


class RunFolder(HeldFolder):
    """The folder of a run.

    Args:
        path: The folder; made by `claim`.
        identity: The run's id, for a new folder.

    Attributes:
        identity: The id of the run that the folder holds.
    """

    kind, option = "The run folder", "run_dir"

    def __init__(self, path: str | Path, identity: str = "") -> None:
        super().__init__(path)
        self.identity = self.read_summary().get("run_id") or identity or self.path.name

    def exists(self) -> bool:
        """Return whether a run has started in this folder."""
        return (self.path / "config.yaml").exists()

    def has_results(self) -> bool:
        """Return whether training has left anything worth keeping."""
        return any((self.path / name).exists() for name in ("checkpoints", "metrics.csv", "samples"))

    def read_summary(self) -> dict[str, Any]:
        """Return the summary as last written; empty for a new folder."""
        try:
            return json.loads((self.path / "summary.json").read_text())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except ValueError as error:
            raise InputError(
                f"{self.path / 'summary.json'} is damaged ({error}): delete it, then try again."
            ) from error

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json``."""
        write_atomically(self.path / "summary.json", json.dumps(summary, indent=2) + "\n")


def process_seconds() -> float:
    """Return the seconds since this process started, or since this module's import if the system doesn't say."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, ValueError, AttributeError):  # not on Linux
        return time.monotonic() - _IMPORTED
