"""TensorBoard and Weights & Biases, with samples_seen as their x-axis; metrics.csv has `lit_aigc.metrics_csv`.

Each logger takes plain values from rank 0 and ignores the other ranks. Beside Lightning's Logger interface a logger may
have four methods, and is left alone where it hasn't:

* ``truncate(samples_seen)``: a resumed run goes on from there; forget what came after.
* ``log_picture(key, picture, step)``: a uint8 array ``(H, W, 1|3)``; see `log_picture`.
* ``log_texts(key, texts, step)``: a list of strings; see `log_texts`.
* ``close(exit_code)``: nothing more will come; 0 done, 75 paused, anything else failed.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from lit_aigc.errors import InputError
from lit_aigc.files import write_atomically
from lit_aigc.metrics_csv import STEP

if TYPE_CHECKING:
    import numpy as np

PAUSED = 75
_SECONDS_UNSAVED = 30  # for which W&B's process may keep numbers to itself


def in_sweep() -> bool:
    """Whether a W&B sweep agent started this process."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


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
            self.experiment.add_scalar(key, _number(value), step)

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


class WandbLogger(Logger):
    """Numbers, pictures and the nested config for Weights & Biases.

    The run's id is, in this order: `id`, the environment variable WANDB_RUN_ID (which a sweep agent sets), the id that
    an earlier start of the same run folder left in ``wandb/run_id``, a new one; so a resumed run goes on as the same
    W&B run.

    Args:
        run_dir: The run folder; what W&B writes locally goes to its ``wandb/``.
        project: Project on W&B; a sweep's own project comes first inside its agent.
        name: Name to show; by default that of the run folder.
        group: Runs that belong together, say the seeds of one experiment.
        tags: Words to find the run by.
        entity: User or team; by default that of the login.
        notes: Free text.
        id: The id of the run, to continue one of W&B.
        mode: ``online``, ``offline`` (sync later by ``wandb sync``) or ``disabled``; by default the environment
            variable WANDB_MODE, else ``online``.

    Raises:
        InputError: An unknown mode; or, when training starts, W&B can't be reached or knows no login.
    """

    def __init__(
        self,
        run_dir: str,
        project: str = "lit_aigc",
        name: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        entity: str | None = None,
        notes: str | None = None,
        id: str | None = None,
        mode: str | None = None,
    ) -> None:
        super().__init__()
        if mode not in (None, "online", "offline", "disabled"):
            raise InputError(f"logger.wandb.mode is {mode!r}; expected online, offline, disabled or null")
        self.run_dir = Path(run_dir)
        self._id = id
        self._mode = mode
        self._init = {
            "project": None if in_sweep() else project,
            "entity": entity,
            "name": name or self.run_dir.resolve().name,
            "group": group,
            "tags": list(tags) or None,
            "notes": notes,
        }
        self._run: Any = None
        self._recent: collections.deque[tuple[float, dict[str, Any]]] = collections.deque()

    @property
    def name(self) -> str:
        """The kind of logger."""
        return "wandb"

    @property
    def version(self) -> str | None:
        """The id of the run, once it is known."""
        return self._run.id if self._run is not None else self._known_id()

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.run_dir)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `wandb.Run`, started at first use."""
        if self._run is None:
            self._run = self._start()
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Record the config, nested as it is."""
        self._do(lambda run: run.config.update(dict(params), allow_val_change=True))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers at samples_seen = `step`."""
        values = {**{key: _number(value) for key, value in metrics.items()}, STEP: int(step or 0)}
        self._do(lambda run: run.log(values))
        self._recent.append((time.monotonic(), values))
        while time.monotonic() - self._recent[0][0] > _SECONDS_UNSAVED:
            self._recent.popleft()

    @rank_zero_only
    def log_picture(self, key: str, picture: np.ndarray, step: int) -> None:
        """Log a uint8 picture ``(H, W, 1|3)``."""
        import wandb

        image = wandb.Image(picture[..., 0] if picture.shape[-1] == 1 else picture)
        self._do(lambda run: run.log({key: image, STEP: int(step)}))

    @rank_zero_only
    def log_texts(self, key: str, texts: Sequence[str], step: int) -> None:
        """Log texts as a table, a row each."""
        import wandb

        table = wandb.Table(columns=["text"], data=[[text] for text in texts])
        self._do(lambda run: run.log({key: table, STEP: int(step)}))

    @rank_zero_only
    def log_bundle(self, directory: str | Path, name: str, metadata: Mapping[str, Any] | None = None) -> None:
        """Log a bundle as an artifact of type ``model``."""
        import wandb

        artifact = wandb.Artifact(name, type="model", metadata=dict(metadata or {}))
        artifact.add_dir(str(directory))
        self._do(lambda run: run.log_artifact(artifact))

    @rank_zero_only
    def log_summary(self, summary: Mapping[str, Any]) -> None:
        """Record the final numbers as the run's summary."""
        self._do(lambda run: run.summary.update(dict(summary)))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Finish as failed when training raised; after a success the run stays open until `close`."""
        if status == "failed":
            self.close(1)

    @rank_zero_only
    def close(self, exit_code: int) -> None:
        """Finish the run: 0 as finished, 75 as preempted (a sweep hands it out again), anything else as failed."""
        if self._run is None:
            return
        if exit_code == PAUSED:
            self._do(lambda run: run.mark_preempting())
        self._do(lambda run: run.finish(exit_code=exit_code))
        self._run = None

    def _do(self, action: Callable[[Any], Any]) -> None:
        """Act on the run; if W&B's own process has died, on the same run with a new one.

        A scheduler sends its signals to every process of a job, and W&B's takes SIGTERM for its end; the last numbers
        that it was told are lost with it, so they are told again.
        """
        try:
            action(self.experiment)
        except ConnectionError:
            import wandb

            with contextlib.suppress(ConnectionError):
                wandb.teardown()
            self._run = None
            for _, values in self._recent:
                self.experiment.log(values)
            action(self.experiment)

    def _known_id(self) -> str | None:
        id_file = self.run_dir / "wandb" / "run_id"
        saved = id_file.read_text().strip() if id_file.exists() else None
        return self._id or os.environ.get("WANDB_RUN_ID") or saved or None

    def _start(self) -> Any:
        import wandb

        (self.run_dir / "wandb").mkdir(parents=True, exist_ok=True)
        try:
            run = wandb.init(
                **self._init,
                dir=str(self.run_dir),
                id=self._known_id(),
                resume="allow",
                mode=self._mode,
                reinit="finish_previous",
            )
        except wandb.errors.Error as error:
            raise InputError(
                f"Weights & Biases can't start this run: {error}\n"
                "Log in with `wandb login`, or take logger.wandb.mode=offline and send the run later with `wandb sync`"
            ) from error
        write_atomically(self.run_dir / "wandb" / "run_id", run.id)
        run.define_metric(STEP, hidden=True)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        return run


def _number(value: Any) -> Any:
    """A one-element tensor as a Python number, anything else as it is."""
    return value.item() if hasattr(value, "item") else value
