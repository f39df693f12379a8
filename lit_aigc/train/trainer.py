"""Lightning's Trainer as a run needs it: processes, strategy and precision resolved on this machine."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.nn.modules.batchnorm import _BatchNorm

from lit_aigc.build import instantiate
from lit_aigc.errors import InputError
from lit_aigc.machine.precision import AUTO, accelerator_of, choose_precision
from lit_aigc.modules.base import GenerativeModule
from lit_aigc.runs.checkpoint import AtomicCheckpointIO
from lit_aigc.runs.launch import cluster_environment, local_devices, with_processes

log = logging.getLogger(__name__)
_NOT_FOR_USERS = {
    "accumulate_grad_batches", "callbacks", "check_val_every_n_epoch", "default_root_dir", "enable_model_summary",
    "enable_progress_bar", "fast_dev_run", "gradient_clip_algorithm", "gradient_clip_val", "limit_train_batches",
    "limit_val_batches", "log_every_n_steps", "logger", "max_epochs", "max_steps", "max_time", "min_epochs",
    "min_steps", "num_sanity_val_steps", "overfit_batches", "plugins", "reload_dataloaders_every_n_epochs",
    "use_distributed_sampler", "val_check_interval",
}  # fmt: skip


def build_trainer(
    config: Mapping[str, Any],
    module: GenerativeModule,
    callbacks: list[Any],
    loggers: list[Any],
    run_dir: Path,
    checkpoint_io: AtomicCheckpointIO,
    kept_precision: str | None,
) -> L.Trainer:
    """Build the Trainer of a run.

    Args:
        config: The run's config.
        module: What is trained.
        callbacks: All callbacks.
        loggers: All loggers.
        run_dir: The run folder.
        checkpoint_io: How checkpoints are read and written.
        kept_precision: What the run was trained in so far; None for a new run.

    Raises:
        InputError: If this machine can't do what the config asks for, or the config sets what training decides.
    """
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
    accelerator = accelerator_of(str(node.get("accelerator", "auto")))
    node["precision"] = choose_precision(asked, accelerator, module, kept_precision)
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
                default_root_dir=str(run_dir),
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
        log.warning(
            "trainer.sync_batchnorm applies on GPUs only: each process normalizes by its own part of the batch."
        )
    return trainer
