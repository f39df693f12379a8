"""Known ways in which a run fails, with advice."""

from __future__ import annotations

import torch

_OUT_OF_MEMORY = (
    "Out of memory. In a new run lower data.batch_size, or keep it and split each batch with model.recipe.accumulate=2 "
    "or more, or take trainer.precision=bf16-mixed."
)
_WORKER_GONE = (
    "A process that reads data was killed, often for want of memory. Lower data.workers; data.workers=0 reads without "
    "such processes."
)
_SIGNS = {
    "out of memory": _OUT_OF_MEMORY,  # CUDA
    "can't allocate memory": _OUT_OF_MEMORY,  # the allocator of the CPU
    "DataLoader worker (pid": _WORKER_GONE,
}


class TrainingFailed(RuntimeError):
    """Training ended for a known reason: the message says which, what helps, and how to resume."""


def advice(error: BaseException) -> str | None:
    """Return what the user can do about an error, or None if its reason is not a known one."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return _OUT_OF_MEMORY
    if not isinstance(error, RuntimeError):
        return None
    return next((words for sign, words in _SIGNS.items() if sign in str(error)), None)
