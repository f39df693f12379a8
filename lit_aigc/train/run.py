"""A training run from config to bundle: a few instantiations in a row."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only

from lit_aigc.build import build, instantiate, resolve
from lit_aigc.callbacks.agreement import OnePrecision
from lit_aigc.callbacks.checkpoint import CheckpointWriter
from lit_aigc.callbacks.clock import Budget, Clock, PauseAfter
from lit_aigc.config.saved import CONFIG_VERSION, different_settings, saved_config
from lit_aigc.errors import InputError
from lit_aigc.files import read_yaml, write_yaml
from lit_aigc.loggers.base import run_logger
from lit_aigc.loggers.csv import CsvLogger
from lit_aigc.machine.exit_codes import DONE, FAILED, PAUSED
from lit_aigc.machine.memory import keep_freed_memory
from lit_aigc.machine.precision import tensor_float32
from lit_aigc.media.console import print_facts, print_results
from lit_aigc.modules.base import CHECKPOINT_KEY, GenerativeModule, TrainingDiverged
from lit_aigc.modules.checkpoint import check_fits, state_differences
from lit_aigc.runs.bundle import load_bundle, save_bundle
from lit_aigc.runs.checkpoint import AtomicCheckpointIO, latest_checkpoint
from lit_aigc.runs.folder import RunFolder, in_sweep, process_seconds, run_id
from lit_aigc.runs.launch import FIRST_PROCESS, end_with_the_first_process
from lit_aigc.runs.processes import RANK_CONFIG
from lit_aigc.train.extension import change_of_rate, check_extension
from lit_aigc.train.failures import TrainingFailed, advice
from lit_aigc.train.overview import overview
from lit_aigc.train.trainer import build_trainer

RESOLVED_PRECISION = "resolved_precision"  # in summaries: ``trainer.precision`` as this machine does it
log = logging.getLogger(__name__)


@dataclasses.dataclass
class Run:
    """The parts of a training run, and its results.

    Attributes:
        config: The resolved config.
        folder: The run folder.
        datamodule: The data.
        module: The model, with its own weights after training; averaged ones by ``module.averaged()``.
        trainer: Lightning's Trainer.
        clock: The clock, which ended or paused it.
        startup_seconds: From the start of the program to the start of training.
        summary: What ``summary.json`` holds.
    """

    config: dict[str, Any]
    folder: RunFolder
    datamodule: L.LightningDataModule
    module: GenerativeModule
    trainer: L.Trainer
    clock: Clock
    summary: dict[str, Any] = dataclasses.field(default_factory=dict)
    startup_seconds: float = 0.0

    @property
    def precision(self) -> str:
        """What the run trains in: ``trainer.precision``, resolved on this machine."""
        return self.trainer.strategy.precision_plugin.precision

    @property
    def bundle(self) -> Path:
        """The folder of the bundle, which is there when the run is done."""
        return self.folder.path / "bundle"

    @property
    def exit_code(self) -> int:
        """0 done, 75 paused."""
        return DONE if self.summary["status"] == "done" else PAUSED


def run(config: dict[str, Any]) -> int:
    """Train, and return the exit code; known reasons of a failure are reported without a traceback."""
    if RANK_CONFIG in os.environ:
        end_with_the_first_process()
    try:
        finished = train(config, started=time.monotonic() - process_seconds())
    except (TrainingDiverged, TrainingFailed) as error:
        print(f"lit_aigc.train: {error}", file=sys.stderr)
        return FAILED
    return finished.exit_code if rank_zero_only.rank == 0 else DONE


def train(config: dict[str, Any], started: float | None = None) -> Run:
    """Train what a config says.

    Args:
        config: The resolved config.
        started: When the program began, on `time.monotonic`, for ``wall_seconds`` and ``startup_seconds``; now by
            default.

    Raises:
        InputError: If something in the config, the data or the run folder has to be fixed first.
        TrainingDiverged: If training diverged.
        TrainingFailed: If memory ran out, or a process that reads data was killed.
    """
    started = time.monotonic() if started is None else started
    _quiet()
    keep_freed_memory()
    environment = dict(os.environ)
    if not torch.cuda.is_available():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # else each optimizer step looks for NVIDIA's library again
    config, folder = _open_folder(config)
    new = not folder.exists()
    try:
        return _train(config, folder, started)
    except InputError:
        if new and not folder.has_results():
            folder.abandon()
        raise
    finally:
        folder.release()
        _restore(environment)


def _quiet() -> None:
    """Leave out what says nothing about this run, and let one process of many speak."""
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    # Of Lightning's use of torch; and `lit_aigc.runs.launch` finds out about srun itself.
    for known in (".*LeafSpec.*", ".*functional.all_gather is deprecated.*", ".*`srun` command is available.*"):
        warnings.filterwarnings("ignore", message=known)
    logging.getLogger("lit_aigc").setLevel(logging.NOTSET if rank_zero_only.rank == 0 else logging.ERROR)


def build_data(config: Mapping[str, Any]) -> L.LightningDataModule:
    """Build the DataModule that a config of training names; its ``spec`` reads the data."""
    return instantiate(config["data"])


def build_module(config: Mapping[str, Any], data: L.LightningDataModule) -> GenerativeModule:
    """Build the model that a config of training names, with weights drawn by its seed, for the facts of the data.

    Raises:
        InputError: If the config and the data don't fit.
    """
    torch.manual_seed(config["seed"])
    module = build(resolve(config["model"], data.spec), data.spec)
    module.begin(config["seed"], config["log_every"], getattr(data, "tokenizer", None))
    return module


def _train(config: dict[str, Any], folder: RunFolder, started: float) -> Run:
    # The data come first: their facts complete the model's config.
    datamodule = build_data(config)
    module = build_module(config, datamodule)
    if config["init_from"]:
        _start_from(module, config["init_from"], config["trust"])

    # A resumed run continues in the middle of the stream of batches.
    budget = Budget(**config["budget"])
    checkpoint_io, checkpoint_path, counters = _checkpoint(folder, module, budget)
    datamodule.start_batch = counters.get("batches", 0)

    pause_after = PauseAfter(**config["pause_after"])
    clock = Clock(budget, pause_after, config["validations"], config["checkpoint_seconds"], started=started)
    # The clock decides before the others act on it; a checkpoint is written when they have all had their say.
    writer = CheckpointWriter(folder.path / "checkpoints", clock, config["monitor"], config["monitor_mode"])
    callbacks = [OnePrecision(), clock, *_nodes(config.get("callbacks"), folder), writer]
    loggers = _loggers(config, folder)
    kept_precision = folder.read_summary().get(RESOLVED_PRECISION)
    trainer = build_trainer(config, module, callbacks, loggers, folder.path, checkpoint_io, kept_precision)
    datamodule.check_world_size(trainer.world_size)
    if hasattr(trainer.strategy, "check_model"):
        trainer.strategy.check_model(module)

    # From here on the run leaves traces: whatever can be refused has been refused.
    run = Run(config, folder, datamodule, module, trainer, clock)
    exit_code = FAILED
    try:
        _announce(run)
        for logger in loggers:
            if checkpoint_path:
                run_logger(logger).truncate(counters["samples_seen"])
            logger.log_hyperparams(config)
        if rank_zero_only.rank == 0:
            print_facts(overview(config, datamodule, module, trainer, folder.path))
        clock.signals.install()
        run.startup_seconds = time.monotonic() - started
        with tensor_float32(True):
            trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint_path, weights_only=True)
        run.summary = _summary(run, "paused" if clock.paused else "done")
        if rank_zero_only.rank == 0:
            _finish(run)
        exit_code = run.exit_code
    except BaseException as error:
        if rank_zero_only.rank == 0:
            with contextlib.suppress(OSError):  # the first error says that a disk is full
                folder.write_summary(_summary(run, "failed") | {"error": f"{type(error).__name__}: {error}"})
        if known := advice(error):
            raise TrainingFailed(f"{known} {_what_is_kept(folder)}") from error
        raise
    finally:
        clock.signals.uninstall()
        for logger in loggers:
            run_logger(logger).close(exit_code)
    return run


def _nodes(nodes: Mapping[str, Any] | None, folder: RunFolder) -> list[Any]:
    return [instantiate(node, run_dir=str(folder.path)) for node in (nodes or {}).values() if node]


def _loggers(config: Mapping[str, Any], folder: RunFolder) -> list[Any]:
    """Return ``metrics.csv``, the loggers that the config asks for, and inside a sweep agent W&B in any case."""
    chosen = _nodes(config.get("logger"), folder)
    if in_sweep():
        from lit_aigc.loggers.wandb import WandbLogger

        if not any(isinstance(logger, WandbLogger) for logger in chosen):
            chosen.append(WandbLogger(run_dir=str(folder.path)))
    return [CsvLogger(run_dir=str(folder.path)), *chosen]


def _checkpoint(
    folder: RunFolder, module: GenerativeModule, budget: Budget
) -> tuple[AtomicCheckpointIO, Path | None, Mapping[str, Any]]:
    """Read the run's newest checkpoint; return it ready for the Trainer, its path, and its counters."""
    found = latest_checkpoint(folder.path)
    if not found:
        return AtomicCheckpointIO(), None, {}
    path, checkpoint = found
    check_fits(checkpoint, module, path)
    counters = checkpoint[CHECKPOINT_KEY]["counters"]
    before = Budget(**read_yaml(folder.path / "config.yaml")["budget"]) if folder.exists() else budget
    check_extension(before, budget, counters)
    if budget != before and (line := change_of_rate(checkpoint, module.recipe, budget)):
        log.warning(line)
    return AtomicCheckpointIO(found), path, counters


def _start_from(module: GenerativeModule, bundle: str, trust: list[str]) -> None:
    loaded = load_bundle(bundle, trust)
    weights = loaded.module.state_dict()
    if differences := state_differences(module.state_dict(), weights):
        there, here = loaded.spec.num_classes, module.spec.num_classes
        lines = [f"init_from={bundle} holds another model:", *differences]
        if there != here:
            lines.append(f"The bundle's data have {there} classes, these have {here}.")
        lines.append(
            "All weights have to fit: loading a part of them isn't supported yet. Choose the model of the bundle and "
            "data with as many classes, or leave init_from out to train from scratch."
        )
        raise InputError("\n".join(lines))
    module.load_state_dict(weights)


def _announce(run: Run) -> None:
    """Write the run's config, for whoever resumes it and for the processes that the Trainer starts."""
    if rank_zero_only.rank != 0:
        return
    saved = {**run.config, "config_version": CONFIG_VERSION, "pause_after": dict.fromkeys(run.config["pause_after"])}
    known = {"status": "running", "run_id": run.folder.identity, RESOLVED_PRECISION: run.precision}
    run.folder.write_summary({**run.folder.read_summary(), **known})
    write_yaml(saved, run.folder.path / "config.yaml")
    os.environ[FIRST_PROCESS] = str(os.getpid())
    os.environ[RANK_CONFIG] = str((run.folder.path / "config.yaml").resolve())


def _summary(run: Run, status: str) -> dict[str, Any]:
    module = run.module
    summary: dict[str, Any] = {
        "status": status,
        "run_id": run.folder.identity,
        "experiment": run.config["experiment"],
        "seed": run.config["seed"],
        RESOLVED_PRECISION: run.precision,
        "samples_seen": module.samples_seen,
        "batches": module.batches,
        "generator_updates": module.generator_updates,
        "train_seconds": round(module.train_seconds, 3),
        "wall_seconds": round(run.clock.wall_seconds, 3),
        "startup_seconds": round(run.startup_seconds, 3),
        "samples_per_second": module.samples_per_second,
    }
    summary |= module.results
    protocol: dict[str, Any] = {}
    for callback in run.trainer.callbacks:
        if hasattr(callback, "summary"):
            values = callback.summary()
            protocol |= values.pop("protocol", {})
            summary |= values
    return summary | ({"protocol": protocol} if protocol else {})


def _finish(run: Run) -> None:
    """Write the bundle and the summary, and show the results."""
    paths: dict[str, Path | str] = {"run folder": run.folder.path}
    if run.summary["status"] == "paused":
        paths["resume with"] = f"python -m lit_aigc.train resume={run.folder.path}"
    if run.summary["status"] == "done":
        with run.module.averaged():
            save_bundle(run.bundle, run.module, run.module.config, run.datamodule.spec, run.summary)
        paths["bundle"] = run.bundle
        for logger in run.trainer.loggers:
            run_logger(logger).log_bundle(run.bundle, name=run.config["experiment"], metadata=run.summary)
    if attribution := run.datamodule.spec.attribution:
        paths["data"] = attribution
    run.folder.write_summary(run.summary)
    for logger in run.trainer.loggers:
        run_logger(logger).log_summary(run.summary)
    print_results(run.summary, paths)


def _what_is_kept(folder: RunFolder) -> str:
    if not any((folder.path / "checkpoints").glob("*.ckpt")):
        return "No checkpoint was written yet."
    return f"The checkpoints are kept: python -m lit_aigc.train resume={folder.path} continues from the last."


def _restore(environment: Mapping[str, str]) -> None:
    """Undo what the Trainer's launcher left in the environment, so that another run can follow in this process."""
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


def _open_folder(config: dict[str, Any]) -> tuple[dict[str, Any], RunFolder]:
    """Return the run's config, the saved one if the same run continues, and its folder, held by its first process."""
    if RANK_CONFIG in os.environ:  # started by the Trainer: the config is the first process's
        return config, RunFolder(config["run_dir"])
    first = rank_zero_only.rank == 0
    if config["resume"]:
        folder = RunFolder(config["resume"])
    else:
        identity, lasting = run_id(named=bool(config["run_dir"]))
        folder = RunFolder(config["run_dir"] or Path("runs") / config["experiment"] / identity, identity)
        if folder.exists() and lasting and folder.identity == identity:
            saved = saved_config(folder.path, config)
            if first and (changed := different_settings(saved, config)):
                raise InputError(
                    f"The run folder {folder.path} holds another run of this job: {', '.join(changed)}. Choose another "
                    f"run_dir= for this one, or continue that one with resume={folder.path}"
                )
            config = {**saved, "pause_after": config["pause_after"]}
        elif folder.exists() and first:
            raise InputError(
                f"The run folder {folder.path} holds another run: continue it with resume={folder.path}, or choose "
                "another run_dir=."
            )
    if first:
        folder.claim()
    return {**config, "run_dir": str(folder.path)}, folder
