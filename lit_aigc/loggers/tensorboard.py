"""The TensorBoard logger."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from lit_aigc.errors import InputError
from lit_aigc.loggers.base import RunLogger, as_markdown, number
from lit_aigc.machine.exit_codes import PAUSED

if TYPE_CHECKING:
    import numpy as np


class TensorBoardLogger(RunLogger):
    """Writes numbers, pictures and the config for TensorBoard, to ``tensorboard/`` in the run folder.

    Args:
        run_dir: The run folder.

    Raises:
        InputError: If the package tensorboard isn't installed.
    """

    name = "tensorboard"

    def __init__(self, run_dir: str) -> None:
        super().__init__()
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise InputError(
                "logger=tensorboard needs the package tensorboard, which isn't installed: "
                "pip install 'lit-aigc[tensorboard]', or leave this logger out"
            ) from error
        self.save_dir = str(Path(run_dir) / "tensorboard")
        self._writer: Any = None
        self._purge_step: int | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `torch.utils.tensorboard.SummaryWriter`, opened at first use."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self.save_dir, purge_step=self._purge_step)
        return self._writer

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Show the config as JSON text."""
        text = json.dumps(dict(params), indent=2, default=str)
        self.experiment.add_text("config", as_markdown([text]), 0)

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
        self.experiment.add_text(key, as_markdown(texts), step)

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
    def close(self, exit_code: int) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
