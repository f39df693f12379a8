"""What all loggers have in common; their x-axis is samples_seen.

Each logger takes plain values from rank 0 and ignores the other ranks. Beside Lightning's Logger interface a logger may
have four methods, and is left alone where it hasn't:

* ``truncate(samples_seen)``: a resumed run goes on from there; forget what came after.
* ``log_picture(key, picture, step)``: a uint8 array ``(H, W, 1|3)``; see `log_picture`.
* ``log_texts(key, texts, step)``: a list of strings; see `log_texts`.
* ``close(exit_code)``: nothing more will come; 0 done, 75 paused, anything else failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers.logger import Logger

if TYPE_CHECKING:
    import numpy as np


def log_picture(loggers: Iterable[Logger], key: str, picture: np.ndarray, step: int) -> None:
    """Send a picture to every logger that can take one.

    Args:
        loggers: Those of the trainer, Lightning's own among them.
        key: Name of the picture, say ``"samples"``.
        picture: uint8 ``(H, W, 1)`` or ``(H, W, 3)``.
        step: The value of samples_seen.
    """
    for logger in loggers:
        if hasattr(logger, "log_picture"):
            logger.log_picture(key, picture, step)
        elif hasattr(logger, "log_image"):  # Lightning's W&B logger
            logger.log_image(key, [picture], step=step)
        elif hasattr(getattr(logger, "experiment", None), "add_image"):  # Lightning's TensorBoard logger
            logger.experiment.add_image(key, picture, step, dataformats="HWC")


def log_texts(loggers: Iterable[Logger], key: str, texts: Sequence[str], step: int) -> None:
    """Send texts to every logger that can take some.

    Args:
        loggers: Those of the trainer, Lightning's own among them.
        key: Name of the texts, say ``"samples"``.
        texts: The texts.
        step: The value of samples_seen.
    """
    for logger in loggers:
        if hasattr(logger, "log_texts"):
            logger.log_texts(key, texts, step)
        elif hasattr(logger, "log_text"):  # Lightning's W&B logger
            logger.log_text(key, columns=["text"], data=[[text] for text in texts], step=step)
        elif hasattr(getattr(logger, "experiment", None), "add_text"):  # Lightning's TensorBoard logger
            logger.experiment.add_text(key, as_markdown(texts), step)


def as_markdown(texts: Sequence[str]) -> str:
    """Markdown that shows texts as they are, one below the other."""
    blocks = ("\n".join(f"    {line}" for line in text.splitlines()) for text in texts)
    return "\n\n---\n\n".join(blocks)


def number(value: Any) -> Any:
    """A one-element tensor as a Python number, anything else as it is."""
    return value.item() if hasattr(value, "item") else value
