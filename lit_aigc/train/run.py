"""A training run from config to bundle: a few instantiations in a line."""

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
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only
from torch.nn.modules.batchnorm import _BatchNorm

from lit_aigc.build import build, instantiate, resolve
from lit_aigc.callbacks.checkpoint import CheckpointWriter
from lit_aigc.callbacks.clock import Budget, Clock, PauseAfter
from lit_aigc.callbacks.precision import OnePrecision
from lit_aigc.config.saved import CONFIG_VERSION, different_settings, saved_config
from lit_aigc.errors import InputError
from lit_aigc.files import read_yaml, write_yaml
from lit_aigc.loggers.csv import CsvLogger
from lit_aigc.loggers.wandb import WandbLogger
from lit_aigc.machine import precision
from lit_aigc.machine.exit_codes import DONE, FAILED, PAUSED
from lit_aigc.machine.memory import keep_freed_memory
from lit_aigc.machine.precision import AUTO, accelerator_of, tensor_float32
from lit_aigc.media.console import print_facts, print_results
from lit_aigc.modules.base import CHECKPOINT_KEY, GenerativeModule, TrainingDiverged
from lit_aigc.modules.checkpoint import check_fits, state_differences
from lit_aigc.runs.bundle import load_bundle, save_bundle
from lit_aigc.runs.checkpoint import AtomicCheckpointIO, latest_checkpoint
from lit_aigc.runs.folder import RunFolder, in_sweep, process_seconds, run_id
from lit_aigc.runs.launch import (
    FIRST_PROCESS,
    cluster_environment,
    end_with_the_first_process,
    local_devices,
    with_processes,
)
from lit_aigc.runs.processes import RANK_CONFIG
from lit_aigc.train.extension import change_of_rate, check_extension
from lit_aigc.train.failures import TrainingFailed, advice
from lit_aigc.train.overview import overview

RESOLVED_PRECISION = "resolved_precision"  # in summaries: ``trainer.precision`` as this machine does it
_say = rank_zero_only(logging.getLogger(__name__).warning)  # one line, however many processes


@dataclasses.dataclass
class Run:
    """What a training run is made of, and left behind.

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
    def exit_code(self) -> int:
        """0 done, 75 paused."""
        return DONE if self.summary["status"] == "done" else PAUSED


def run(config: dict[str, Any]) -> int:
    """Train, and return the exit code; what stops a run for a known reason is told without a traceback."""
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    for of_lightnings_use_of_torch in (".*LeafSpec.*", ".*functional.all_gather is deprecated.*"):
        warnings.filterwarnings("ignore", message=of_lightnings_use_of_torch)
    warnings.filterwarnings(
        "ignore", message=".*`srun` command is available.*"
    )  # `lit_aigc.runs.launch` looks for itself
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
        InputError: If something in the config, the data or the run folder has to be mended first.
        TrainingDiverged: If training went where no update leads back from.
        TrainingFailed: If memory ran out, or a process that reads data was killed.
    """
    started = time.monotonic() if started is None else started
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


def _train(config: dict[str, Any], folder: RunFolder, started: float) -> Run:
    datamodule = instantiate(config["data"])
    spec = datamodule.spec
    torch.manual_seed(config["seed"])
    model_config = resolve(config["model"], spec)
    module = build(model_config, spec)
    module.begin(config["seed"], config["log_every"], getattr(datamodule, "tokenizer", None))
    if config["init_from"]:
        _start_from(module, config["init_from"], config["trust"])
    budget = Budget(**config["budget"])
    checkpoint_io, checkpoint_path, counters = _checkpoint(folder, module, budget)
    datamodule.start_batch = counters.get("batches", 0)

    clock = Clock(
        budget,
        PauseAfter(**config["pause_after"]),
        config["validations"],
        config["checkpoint_seconds"],
        started=started,
    )
    callbacks = _nodes(config.get("callbacks"), folder)
    loggers = _loggers(config, folder)
    writer = CheckpointWriter(folder.path / "checkpoints", clock, config["monitor"], config["monitor_mode"])
    callbacks = [OnePrecision(), clock, *callbacks, writer]
    trainer = _trainer(config, module, callbacks, loggers, folder, checkpoint_io)
    datamodule.check_world_size(trainer.world_size)
    if hasattr(trainer.strategy, "check_model"):
        trainer.strategy.check_model(module)

    run = Run(config, folder, datamodule, module, trainer, clock)
    exit_code = FAILED
    try:
        _announce(run)
        for logger in loggers:
            if checkpoint_path and hasattr(logger, "truncate"):
                logger.truncate(counters["samples_seen"])
            logger.log_hyperparams(config)
        if rank_zero_only.rank == 0:
            print_facts(overview(config, datamodule, module, trainer, folder.path))
        clock.signals.install()
        run.startup_seconds = time.monotonic() - started
        with tensor_float32(True):
            trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint_path, weights_only=True)
        run.summary = _summary(run, "paused" if clock.paused else "done")
        if rank_zero_only.rank == 0:
            _finish(run, model_config)
        exit_code = run.exit_code
    except BaseException as error:
        if rank_zero_only.rank == 0:
            with contextlib.suppress(OSError):  # a full disk is told by the first error
                folder.write_summary(_summary(run, "failed") | {"error": f"{type(error).__name__}: {error}"})
        if known := advice(error):
            raise TrainingFailed(f"{known} {_what_is_kept(folder)}") from error
        raise
    finally:
        clock.signals.uninstall()
        for logger in loggers:
            if hasattr(logger, "close"):
                logger.close(exit_code)
    return run


def _nodes(nodes: Mapping[str, Any] | None, folder: RunFolder) -> list[Any]:
    return [instantiate(node, run_dir=str(folder.path)) for node in (nodes or {}).values() if node]


def _loggers(config: Mapping[str, Any], folder: RunFolder) -> list[Any]:
    """metrics.csv always; W&B by itself inside a sweep agent; what the config asks for."""
    chosen = _nodes(config.get("logger"), folder)
    if in_sweep() and not any(isinstance(logger, WandbLogger) for logger in chosen):
        chosen.append(WandbLogger(run_dir=str(folder.path)))
    return [CsvLogger(run_dir=str(folder.path)), *chosen]


def _checkpoint(
    folder: RunFolder, module: GenerativeModule, budget: Budget
) -> tuple[AtomicCheckpointIO, Path | None, Mapping[str, Any]]:
    """The run's newest checkpoint, read and ready for the Trainer; where it is, and how far it got."""
    found = latest_checkpoint(folder.path)
    if not found:
        return AtomicCheckpointIO(), None, {}
    path, checkpoint = found
    check_fits(checkpoint, module, path)
    counters = checkpoint[CHECKPOINT_KEY]["counters"]
    before = Budget(**read_yaml(folder.path / "config.yaml")["budget"]) if folder.exists() else budget
    check_extension(before, budget, counters)
    if budget != before and (line := change_of_rate(checkpoint, module.recipe, budget)):
        _say(line)
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


_NOT_FOR_USERS = {
    "accumulate_grad_batches", "callbacks", "check_val_every_n_epoch", "default_root_dir", "enable_model_summary",
    "enable_progress_bar", "fast_dev_run", "gradient_clip_algorithm", "gradient_clip_val", "limit_train_batches",
    "limit_val_batches", "log_every_n_steps", "logger", "max_epochs", "max_steps", "max_time", "min_epochs",
    "min_steps", "num_sanity_val_steps", "overfit_batches", "plugins", "reload_dataloaders_every_n_epochs",
    "use_distributed_sampler", "val_check_interval",
}  # fmt: skip


def _trainer(
    config: Mapping[str, Any],
    module: GenerativeModule,
    callbacks: list[Any],
    loggers: list[Any],
    folder: RunFolder,
    checkpoint_io: AtomicCheckpointIO,
) -> L.Trainer:
    node = with_processes(config["trainer"])
    if taken := sorted(_NOT_FOR_USERS & set(node)):
        raise InputError(
            f"trainer.{', trainer.'.join(taken)} can't be set: training sets or replaces it. Use budget (how long), "
            "validations, log_every, model.recipe (clip_norm, accumulate), callbacks, logger or run_dir instead."
        )
    if node.get("strategy", "auto") == "auto" and local_devices(node) * node.get("num_nodes", 1) > 1:
        node["strategy"] = "ddp" if module.trains_all_at_once else "ddp_find_unused_parameters_true"
    asked = str(node.get("precision", AUTO))
    if asked.startswith("16") and not torch.cuda.is_available():
        raise InputError("trainer.precision: half precision (16) needs a GPU: leave it out, or use 32-true.")
    kept = folder.read_summary().get(RESOLVED_PRECISION)
    accelerator = accelerator_of(str(node.get("accelerator", "auto")))
    logging.getLogger(precision.__name__).disabled = rank_zero_only.rank != 0  # one line, however many processes
    node["precision"] = precision.choose_precision(asked, accelerator, module, kept)
    unsynced = bool(node.get("sync_batchnorm")) and accelerator != "cuda"  # torch has no such layer for CPUs
    if unsynced:
        node["sync_batchnorm"] = False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Checkpoint directory.*")
            trainer = instantiate(
                node,
                callbacks=callbacks,
                logger=loggers,
                plugins=[plugin for plugin in (checkpoint_io, cluster_environment()) if plugin],
                default_root_dir=str(folder.path),
                max_epochs=-1,
                val_check_interval=1,  # the clock decides
                check_val_every_n_epoch=None,
                limit_val_batches=(1.0 if module.validates else 1) if config["validations"] else 0,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                enable_progress_bar=False,  # the callback `progress` is ours
                enable_model_summary=False,
            )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise InputError(
            f"trainer: this machine can't do accelerator={node.get('accelerator')} devices={node.get('devices')} "
            f"precision={node.get('precision')} ({error})"
        ) from error
    if unsynced and trainer.world_size > 1 and any(isinstance(m, _BatchNorm) for m in module.modules()):
        _say("trainer.sync_batchnorm applies on GPUs only: each process normalizes by its own part of the batch.")
    return trainer


def _announce(run: Run) -> None:
    """Leave on disk what this run is, for whoever resumes it and for the processes that the Trainer starts."""
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
            told = callback.summary()
            protocol |= told.pop("protocol", {})
            summary |= told
    return summary | ({"protocol": protocol} if protocol else {})


def _finish(run: Run, model_config: Mapping[str, Any]) -> None:
    """Write the bundle and the summary, and show the results."""
    paths: dict[str, Path | str] = {"run folder": run.folder.path}
    if run.summary["status"] == "paused":
        paths["resume with"] = f"python -m lit_aigc.train resume={run.folder.path}"
    if run.summary["status"] == "done":
        with run.module.averaged():
            bundle = save_bundle(run.folder.path / "bundle", run.module, model_config, run.datamodule.spec, run.summary)
        paths["bundle"] = bundle
        for logger in run.trainer.loggers:
            if hasattr(logger, "log_bundle"):
                logger.log_bundle(bundle, name=run.config["experiment"], metadata=run.summary)
    if attribution := run.datamodule.spec.attribution:
        paths["data"] = attribution
    run.folder.write_summary(run.summary)
    for logger in run.trainer.loggers:
        if hasattr(logger, "log_summary"):
            logger.log_summary(run.summary)
    print_results(run.summary, paths)


def _what_is_kept(folder: RunFolder) -> str:
    if not any((folder.path / "checkpoints").glob("*.ckpt")):
        return "No checkpoint was written yet."
    return f"The checkpoints are kept: python -m lit_aigc.train resume={folder.path} goes on from the last."


def _restore(environment: Mapping[str, str]) -> None:
    """Undo what the Trainer's launcher left in the environment, so that another run can follow in this process."""
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


def _open_folder(config: dict[str, Any]) -> tuple[dict[str, Any], RunFolder]:
    """The run's folder, held by its first process, and its config: the saved one where the same run goes on."""
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
                    f"run_dir= for this one, or go on with that one by resume={folder.path}"
                )
            config = {**saved, "pause_after": config["pause_after"]}
        elif folder.exists() and first:
            raise InputError(
                f"The run folder {folder.path} holds another run: go on with it by resume={folder.path}, or choose "
                "another run_dir=."
            )
    if first:
        folder.claim()
    return {**config, "run_dir": str(folder.path)}, folder
