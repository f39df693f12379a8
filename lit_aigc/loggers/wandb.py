"""Weights & Biases, with samples_seen as its x-axis."""

from __future__ import annotations

import collections
import contextlib
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wandb
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from lit_aigc.errors import InputError, check
from lit_aigc.files import write_atomically
from lit_aigc.loggers.base import RunLogger, number
from lit_aigc.loggers.csv import STEP
from lit_aigc.machine.exit_codes import PAUSED
from lit_aigc.runs.folder import in_sweep

if TYPE_CHECKING:
    import numpy as np

_PATIENCE = {"init_timeout": 30.0, "finish_timeout": 120.0}  # seconds that a run waits for W&B
_UNREACHABLE = ("deadline exceeded", "timed out")
_SECONDS_UNSAVED = 30  # for which W&B's process may keep numbers to itself


class WandbLogger(RunLogger):
    """Sends numbers, pictures and the nested config to Weights & Biases.

    The run's id is, in this order: `id`, the environment variable WANDB_RUN_ID (which a sweep agent sets), the id that
    an earlier start of the same run folder left in ``wandb/run_id``, a new one; so a resumed run continues the same
    W&B run.

    Training continues where W&B can't be reached: at the start, after a wait of 30 seconds, as an offline run, with a
    warning; later, whatever W&B has not received stays in ``wandb/``, and the end waits for it for 2 minutes at most.
    ``wandb sync`` sends it afterwards. The environment variables WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT change
    these waits.

    Args:
        run_dir: The run folder; W&B's local files go to its ``wandb/``.
        project: Project on W&B; a sweep's own project comes first inside its agent.
        name: Name to show; by default that of the run folder.
        group: Name of runs that belong together, such as the seeds of one experiment.
        tags: Words to find the run by.
        entity: User or team; by default that of the login.
        notes: Free text.
        id: The id of the run, to continue one of W&B.
        mode: ``online``, ``offline`` (sync later by ``wandb sync``) or ``disabled``; by default the environment
            variable WANDB_MODE, else ``online``.

    Raises:
        InputError: If the mode is unknown; or, when training starts, if W&B knows no login or refuses the run.
    """

    name = "wandb"

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
        known = mode in (None, "online", "offline", "disabled")
        check(("logger.wandb.mode", mode, known, "online, offline, disabled or null"))
        self.save_dir, self.run_dir = run_dir, Path(run_dir)
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
    def version(self) -> str | None:
        """The id of the run, once it is known."""
        return self._run.id if self._run is not None else self._known_id()

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `wandb.Run`, started at first use."""
        if self._run is None:
            self._run = self._start()
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Record the nested config; a sweep's own parameters are there already, and can't change."""

        def record(run: Any) -> None:
            new = {key: value for key, value in params.items() if run.config.get(key) != value}
            run.config.update(new, allow_val_change=True)

        self._send(record)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers at samples_seen = `step`."""
        values = {**{key: number(value) for key, value in metrics.items()}, STEP: int(step or 0)}
        self._send(lambda run: run.log(values))
        self._recent.append((time.monotonic(), values))
        while time.monotonic() - self._recent[0][0] > _SECONDS_UNSAVED:
            self._recent.popleft()

    @rank_zero_only
    def log_picture(self, key: str, picture: np.ndarray, step: int) -> None:
        """Log a uint8 picture ``(H, W, 1|3)``."""
        image = wandb.Image(picture[..., 0] if picture.shape[-1] == 1 else picture)
        self._send(lambda run: run.log({key: image, STEP: int(step)}))

    @rank_zero_only
    def log_texts(self, key: str, texts: Sequence[str], step: int) -> None:
        """Log texts as a table, one per row."""
        table = wandb.Table(columns=["text"], data=[[text] for text in texts])
        self._send(lambda run: run.log({key: table, STEP: int(step)}))

    @rank_zero_only
    def log_bundle(self, directory: str | Path, name: str, metadata: Mapping[str, Any] | None = None) -> None:
        """Log a bundle as an artifact of type ``model``; if W&B has gone meanwhile, say how to send it later."""
        artifact = wandb.Artifact(name, type="model", metadata=dict(metadata or {}))
        artifact.add_dir(str(directory))
        self._send(lambda run: run.log_artifact(artifact), f"wandb artifact put --type model --name {name} {directory}")

    @rank_zero_only
    def log_summary(self, summary: Mapping[str, Any]) -> None:
        """Record the final numbers as the run's summary."""
        self._send(lambda run: run.summary.update(dict(summary)))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Finish as failed when training raised; after a success the run stays open until `close`."""
        if status == "failed":
            self.close(1)

    @rank_zero_only
    def close(self, exit_code: int) -> None:
        """Finish the run: 0 as finished, 75 as preempted (a sweep hands it out again), anything else as failed.

        A run that W&B itself has stopped, say to end a bad trial early, is finished for a sweep with what it reached.
        """
        if self._run is None:
            return
        if exit_code == PAUSED and in_sweep() and self._stopped_by_sweep():
            exit_code = 0
        if exit_code == PAUSED:
            self._send(lambda run: run.mark_preempting())
        self._send(lambda run: run.finish(exit_code=exit_code))
        self._run = None

    def _stopped_by_sweep(self) -> bool:
        """Return whether W&B asked for the end of this run; its agent sends the signal of a cluster that preempts."""
        try:
            from wandb.apis.public.sweeps import _sweep_with_runs  # the one way to ask that this package has

            run = self._run
            sweep = _sweep_with_runs(wandb.Api(), run.sweep_id, "{}", entity=run.entity, project=run.project)
            return any((r["shouldStop"] or r["stopped"]) for r in sweep["runs"] if r["name"] == run.id)
        except Exception:  # no answer, or another wandb: better a trial that runs twice than one that is lost
            return False

    def _send(self, action: Callable[[Any], Any], later: str | None = None) -> None:
        """Act on the run; if W&B's own process has died, on the same run with a new one.

        A scheduler sends its signals to every process of a job, and SIGTERM ends W&B's; the last numbers that it
        received are lost with it, so they are sent again. Where W&B has gone for good, a warning says how to send the
        rest `later`.
        """
        try:
            try:
                action(self.experiment)
            except ConnectionError:
                self._start_again()
                action(self.experiment)
        except (wandb.errors.Error, ConnectionError) as error:
            later = later or f"wandb sync {self.run_dir}/wandb/*run-*"
            warnings.warn(
                f"Weights & Biases has gone ({type(error).__name__}: {error}): training continues. Send the rest "
                f"later: `{later}`.",
                stacklevel=3,
            )

    def _start_again(self) -> None:
        with contextlib.suppress(ConnectionError):
            wandb.teardown()
        self._run = None
        try:
            self._run = self._start()
        except InputError:  # W&B has changed its mind, which is no reason to stop a run
            self._mode = "offline"
        for _, values in self._recent:
            self.experiment.log(values)

    def _known_id(self) -> str | None:
        if in_sweep():
            return None  # W&B itself knows it
        id_file = self.run_dir / "wandb" / "run_id"
        saved = id_file.read_text().strip() if id_file.exists() else None
        return self._id or os.environ.get("WANDB_RUN_ID") or saved or None

    def _start(self) -> Any:
        (self.run_dir / "wandb").mkdir(parents=True, exist_ok=True)
        try:
            run = self._begin(self._mode)
        except wandb.errors.Error as error:
            if not any(sign in str(error) for sign in _UNREACHABLE):
                raise InputError(
                    f"Weights & Biases can't start this run: {error}\n"
                    "Log in with `wandb login`, or take logger.wandb.mode=offline and send it later with `wandb sync`"
                ) from error
            warnings.warn(
                f"Weights & Biases can't be reached ({str(error).splitlines()[0]}): training continues without it. "
                f"Send its log later with `wandb sync {self.run_dir}/wandb/offline-run-*`.",
                stacklevel=2,
            )
            wandb.teardown()  # the failed start holds the id
            run = self._begin("offline")
        write_atomically(self.run_dir / "wandb" / "run_id", run.id)
        run.define_metric(STEP, hidden=True)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        return run

    def _begin(self, mode: str | None) -> Any:
        patience = {name: seconds for name, seconds in _PATIENCE.items() if f"WANDB_{name.upper()}" not in os.environ}
        return wandb.init(
            **self._init,
            dir=str(self.run_dir),
            id=self._known_id(),
            resume="allow",
            mode=mode,
            reinit="finish_previous",
            settings=wandb.Settings(**patience),
        )
