"""The config that a run folder holds: written once, read when the run resumes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_aigc.build import TARGET, current_name, locate
from lit_aigc.config.aliases import rename_keys
from lit_aigc.config.keys import get, leaves, put
from lit_aigc.config.overrides import key_of, split_arguments
from lit_aigc.errors import InputError
from lit_aigc.files import read_yaml

CONFIG_VERSION = 2  # of the meaning of settings in a config.yaml; `_with_former_defaults` knows the older ones

_OF_TRAINER = ("accelerator", "devices", "num_nodes", "precision", "strategy")
_NEW_DEFAULTS = (  # key, former default, default
    ("trainer.devices", "auto", 1),
    ("trainer.precision", "32-true", "auto"),
    ("trainer.precision", "bf16-mixed", "auto"),
    ("callbacks.generative_metrics.reference", "shipped", None),
    ("callbacks.generative_metrics.reference", "train", None),
    ("callbacks.generative_metrics.reference", None, "train"),  # of conf/measure, as the next two
    ("callbacks.generative_metrics.num_samples", 5000, 10_000),
    ("callbacks.generative_metrics.metrics", None, ["kid"]),
)
_FOLLOW_THE_MACHINE = ("monitor", "callbacks.generative_metrics.extractor")  # the choice of the first start holds
_MAY_CHANGE = ("budget", "pause_after", "data.workers", "logger", "trust", *(f"trainer.{key}" for key in _OF_TRAINER))


def saved_config(run_dir: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Read the config that a run folder holds, with today's names and with former defaults made explicit.

    Args:
        run_dir: The run folder.
        given: The config of the command line. Besides classes of lit_aigc and lightning the file may name those that
            this config names, and those of packages in its ``trust``.

    Raises:
        InputError: If the file is damaged, or names something that is not trusted.
    """
    config = _with_current_names(read_yaml(Path(run_dir) / "config.yaml"))
    config = _with_former_defaults(rename_keys("train", config))
    for target in sorted(_targets(config) - _targets(given)):
        try:
            locate(target, ("lit_aigc", "lightning", *given["trust"]))
        except InputError as error:
            raise InputError(
                f"{Path(run_dir) / 'config.yaml'}: {error} If the run is your own, name the package: trust=[PACKAGE]"
            ) from error
    return config


def _with_former_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """Make explicit, in an older config, every default that has changed since, so that the run keeps its meaning.

    Version 1, which isn't stated in the file: R1 and R2 were taken at augmented images, and adaptive augmentation
    followed each single batch.
    """
    model = config.get("model") or {}
    if config.get("config_version", 1) < 2 and isinstance(augment := model.get("augment"), dict):
        if augment.get(TARGET) == "lit_aigc.augmentation.images.AdaptiveAugment":
            augment.setdefault("window", 1)
        if isinstance(regularization := model.get("regularization"), dict):
            regularization.setdefault("before_augmentation", False)
    return config


def _with_current_names(node: Any) -> Any:
    """Return a saved config in which classes have today's names."""
    if isinstance(node, Mapping):
        node = {key: _with_current_names(value) for key, value in node.items()}
        return node | ({TARGET: current_name(str(node[TARGET]))} if TARGET in node else {})
    return [_with_current_names(value) for value in node] if isinstance(node, list) else node


def _targets(node: Any) -> set[str]:
    """Return everything that a config names to be called."""
    if isinstance(node, Mapping):
        own = {str(node[TARGET])} if TARGET in node else set()
        return own.union(*map(_targets, node.values()))
    return set().union(*map(_targets, node)) if isinstance(node, (list, tuple)) else set()


def changed(saved: dict[str, Any], composed: Mapping[str, Any], arguments: list[str]) -> dict[str, Any]:
    """Return a saved config with the values that a resumed run may change taken from the command line.

    Args:
        saved: The saved config; changed in place.
        composed: The config of the command line.
        arguments: The command line.

    Raises:
        InputError: If the command line sets anything else.
    """
    for override in split_arguments(arguments)[1]:
        key = key_of(override)
        if key == "resume":
            continue
        if not any(key == name or key.startswith(name + ".") for name in _MAY_CHANGE):
            raise InputError(
                f"{key} can't change when a run is resumed; what may: {', '.join(_MAY_CHANGE)}. For another setting "
                "start a new run, with init_from=BUNDLE to start from these weights."
            )
        while "." in key and not isinstance(get(composed, key.rpartition(".")[0]), Mapping):
            key = key.rpartition(".")[0]  # the command line has switched off what is above
        put(saved, key, get(composed, key))
    return saved


def different_settings(saved: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """List settings, of those that both have, that differ between two starts of what should be one run."""
    apart = ("run_dir", "resume", "pause_after")
    ours, theirs = (leaves({k: v for k, v in tree.items() if k not in apart}) for tree in (config, saved))
    found = []
    for key in ours:
        same = key not in theirs or ours[key] == theirs[key]
        if not same and key not in _FOLLOW_THE_MACHINE and (key, theirs[key], ours[key]) not in _NEW_DEFAULTS:
            found.append(f"{key}={theirs[key]} there, {ours[key]} here")
    return found
