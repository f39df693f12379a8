"""Loggers, with samples_seen as their x-axis: TensorBoard here, `lit_aigc.wandb_logger`, `lit_aigc.metrics_csv`.

Each logger takes plain values from rank 0 and ignores the other ranks. Beside Lightning's Logger interface a logger may
have four methods, and is left alone where it hasn't:

* ``truncate(samples_seen)``: a resumed run goes on from there; forget what came after.
* ``log_picture(key, picture, step)``: a uint8 array ``(H, W, 1|3)``; see `log_picture`.
* ``log_texts(key, texts, step)``: a list of strings; see `log_texts`.
* ``close(exit_code)``: nothing more will come; 0 done, 75 paused, anything else failed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from lit_aigc.errors import InputError

if TYPE_CHECKING:
    import numpy as np

PAUSED = 75


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
            logger.experiment.add_text(key, _as_it_is(texts), step)


def _as_it_is(texts: Sequence[str]) -> str:
    """Markdown that shows texts as they are, one below the other."""
    blocks = ("\n".join(f"    {line}" for line in text.splitlines()) for text in texts)
    return "\n\n---\n\n".join(blocks)


class TensorBoardLogger(Logger):
    """Numbers, pictures and the config for TensorBoard, in ``tensorboard/`` of the run folder.

    Args:
        run_dir: The run folder.

    Raises:
        InputError: The package tensorboard isn't installed.
    """

    def __init__(self, run_dir: str) -> None:
        super().__init__()
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise InputError(
                "logger=tensorboard needs the package tensorboard, which isn't installed: "
                "pip install 'lit-aigc[tensorboard]', or leave this logger out"
            ) from error
        self._directory = str(Path(run_dir) / "tensorboard")
        self._writer: Any = None
        self._purge_step: int | None = None

    @property
    def name(self) -> str:
        """The kind of logger."""
        return "tensorboard"

    @property
    def version(self) -> str:
        """Unused: the run folder tells runs apart."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder of the event files."""
        return self._directory

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `torch.utils.tensorboard.SummaryWriter`, opened at first use."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self._directory, purge_step=self._purge_step)
        return self._writer

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Show the config as JSON text."""
        text = json.dumps(dict(params), indent=2, default=str)
        self.experiment.add_text("config", _as_it_is([text]), 0)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write scalars at samples_seen = `step`."""
        for key, value in metrics.items():
            self.experiment.add_scalar(key, number(value), step)

    @rank_zero_only
    def log_picture(self, key: str, picture: np.ndarray, step: int) -> None:
        """Write a uint8 picture ``(H, W, 1|3)``."""
        self.experiment.add_image(key, picture, step, dataformats="HWC")

    @rank_zero_only
    def log_texts(self, key: str, texts: Sequence[str], step: int) -> None:
        """Write texts, one below the other."""
        self.experiment.add_text(key, _as_it_is(texts), step)

    @rank_zero_only
    def truncate(self, samples_seen: int) -> None:
        """Have TensorBoard drop what an earlier start wrote after this step."""
        self.close(PAUSED)
        self._purge_step = samples_seen + 1

    @rank_zero_only
    def save(self) -> None:
        """Flush the event file."""
        if self._writer is not None:
            self._writer.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Flush the event file."""
        self.save()

    @rank_zero_only
    def close(self, exit_code: int) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def number(value: Any) -> Any:
    """A one-element tensor as a Python number, anything else as it is."""
    return value.item() if hasattr(value, "item") else value
