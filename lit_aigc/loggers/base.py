"""What all loggers have in common: plain values from rank 0, with samples_seen as the x-axis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers.logger import Logger

if TYPE_CHECKING:
    import numpy as np


class RunLogger(Logger):
    """A logger of Lightning's that also takes pictures, texts and results; each method does nothing unless overridden.

    Attributes:
        name: The kind of logger.
        version: Unused, since each run has its own folder; W&B's is the id of its run.
        save_dir: The folder of the log; None if there is none.
    """

    name: str = ""
    version: str | None = ""
    save_dir: str | None = None

    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Record the config."""

    def log_picture(self, key: str, picture: np.ndarray, step: int) -> None:
        """Log a picture, uint8 ``(H, W, 1|3)``, at samples_seen = `step`."""

    def log_texts(self, key: str, texts: Sequence[str], step: int) -> None:
        """Log texts at samples_seen = `step`."""

    def log_bundle(self, directory: str | Path, name: str, metadata: Mapping[str, Any] | None = None) -> None:
        """Keep the bundle of a finished run."""

    def log_summary(self, summary: Mapping[str, Any]) -> None:
        """Record the final numbers."""

    def truncate(self, samples_seen: int) -> None:
        """Forget whatever was logged after this step: a resumed run continues from there."""

    def close(self, exit_code: int) -> None:
        """End the log: 0 done, 75 paused, anything else failed."""


class _Adapted(RunLogger):
    """A logger of Lightning's or of the user's own: methods that it has are its own, the others do what they can."""

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self._logger = logger
        for name in ("log_picture", "log_texts", "log_bundle", "log_summary", "truncate", "close"):
            if hasattr(logger, name):
                setattr(self, name, getattr(logger, name))

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self._logger.log_metrics(metrics, step)

    def log_picture(self, key: str, picture: np.ndarray, step: int) -> None:
        if hasattr(self._logger, "log_image"):  # Lightning's W&B logger
            self._logger.log_image(key, [picture], step=step)
        elif hasattr(getattr(self._logger, "experiment", None), "add_image"):  # Lightning's TensorBoard logger
            self._logger.experiment.add_image(key, picture, step, dataformats="HWC")

    def log_texts(self, key: str, texts: Sequence[str], step: int) -> None:
        if hasattr(self._logger, "log_text"):  # Lightning's W&B logger
            self._logger.log_text(key, columns=["text"], data=[[text] for text in texts], step=step)
        elif hasattr(getattr(self._logger, "experiment", None), "add_text"):  # Lightning's TensorBoard logger
            self._logger.experiment.add_text(key, as_markdown(texts), step)


def run_logger(logger: Logger) -> RunLogger:
    """Return a logger as a `RunLogger`: one of ours as it is, any other one adapted."""
    return logger if isinstance(logger, RunLogger) else _Adapted(logger)


def log_picture(loggers: Iterable[Logger], key: str, picture: np.ndarray, step: int) -> None:
    """Send a picture to every logger that can take one.

    Args:
        loggers: Those of the trainer, including Lightning's own.
        key: Name of the picture, such as ``"samples"``.
        picture: uint8 ``(H, W, 1)`` or ``(H, W, 3)``.
        step: The value of samples_seen.
    """
    for logger in loggers:
        run_logger(logger).log_picture(key, picture, step)


def log_texts(loggers: Iterable[Logger], key: str, texts: Sequence[str], step: int) -> None:
    """Send texts to every logger that can take them.

    Args:
        loggers: Those of the trainer, including Lightning's own.
        key: Name of the texts, such as ``"samples"``.
        texts: The texts.
        step: The value of samples_seen.
    """
    for logger in loggers:
        run_logger(logger).log_texts(key, texts, step)


def as_markdown(texts: Sequence[str]) -> str:
    """Return Markdown that shows texts verbatim, one below the other."""
    blocks = ("\n".join(f"    {line}" for line in text.splitlines()) for text in texts)
    return "\n\n---\n\n".join(blocks)


def number(value: Any) -> Any:
    """Return a one-element tensor as a Python number, anything else as it is."""
    return value.item() if hasattr(value, "item") else value
