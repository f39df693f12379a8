"""Compose a verb's config with Hydra, check every key, and report all problems in one message."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from lit_aigc.build import TARGET, did_you_mean, locate, problems
from lit_aigc.config import keys
from lit_aigc.config.agent_values import overrides_of_agent
from lit_aigc.config.aliases import CHOICES, KEYS, current_overrides, rename_keys
from lit_aigc.config.overrides import (
    added_choices,
    as_text,
    choices,
    config_folder,
    forced,
    groups_in,
    is_one_value,
    key_of,
    members,
    problems_of_choices,
    split_arguments,
)
from lit_aigc.config.saved import changed, saved_config
from lit_aigc.errors import InputError
from lit_aigc.files import read_yaml
from lit_aigc.runs.folder import in_sweep

_SECRET = ("_API_KEY", "_ACCESS_KEY", "_TOKEN", "_SECRET", "_PASSWORD")  # ends of names of environment variables
_OF_MEASURE = "generative_metrics"  # the callback that conf/measure has settings of
_CAN_BE_LEFT_OUT = ("experiment", "callbacks")
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list", dict: "keys"}


def load(verb: str, arguments: list[str]) -> dict[str, Any]:
    """Return the config of a command line; with ``resume=RUN_DIR``, that run's own with the few changes allowed.

    Inside a W&B sweep agent values may be written as Python prints them: see `lit_aigc.config.agent_values`.

    Raises:
        InputError: With all problems in one message.
    """
    if in_sweep():
        arguments = [override for argument in arguments for override in overrides_of_agent(argument, is_one_value)]
    arguments = current_overrides(verb, arguments)
    config = compose(verb, arguments)
    if not config.get("resume"):
        if message := _mismatch(config, arguments):
            raise InputError(message)
        return config
    run_dir = config["resume"]
    if not (Path(run_dir) / "config.yaml").exists():
        raise InputError(f"resume={run_dir} is not a run folder: expected a folder with a config.yaml.")
    return {**changed(saved_config(run_dir, config), config, arguments), "resume": run_dir}


def compose(verb: str, arguments: list[str]) -> dict[str, Any]:
    """Compose the config of a verb as plain types, each key checked.

    Args:
        verb: Name of a file in ``conf/``.
        arguments: Overrides in Hydra's grammar, and ``--config-dir FOLDER`` for the user's own besides ``conf/``.

    Raises:
        InputError: With all problems in one message.
    """
    folders, overrides = split_arguments(current_overrides(verb, arguments))
    groups = groups_in(folders)
    schema = read_yaml(folders[0] / f"{verb}.yaml")
    defaults = schema.pop("defaults", [])
    overrides = added_choices(overrides, groups, defaults)
    chosen = choices(defaults, overrides)
    found = problems_of_choices(overrides, groups, folders)
    if found := found or _missing_groups(defaults, folders, lambda group: chosen[group] not in ("", "null")):
        raise InputError("\n".join(found))

    config = _composed_by_hydra(verb, folders, overrides, groups)
    rename_keys(verb, config, {key_of(override) for override in overrides})
    _drop_settings_of_replaced_callbacks(config, overrides)
    found = _missing_groups(defaults, folders, lambda group: TARGET in (config.get(group) or {}))
    found = found or [*_problems(config, schema, {*groups, *KEYS.get(verb, ())}, groups), *_wrong_seeds(config)]
    found = found or _secrets(config)
    if found:
        raise InputError("\n".join(found))
    if verb == "train":
        from lit_aigc.metrics.choice import follow_data  # imports torch

        follow_data(config)
    return {**config, **({"experiment": chosen["experiment"]} if "experiment" in chosen else {})}


def _composed_by_hydra(verb: str, folders: list[Path], overrides: list[str], groups: set[str]) -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    own = ",".join(as_text(f"file://{folder.resolve()}") for folder in folders[1:])
    search = [f"hydra.searchpath=[{own}]"] if own else []
    _register_former_choices()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folders[0].resolve()), version_base="1.3"):
            # Every value is forced in, so that Hydra doesn't stop at the first unknown key: `problems` finds them all.
            composed = hydra_compose(verb, overrides=[forced(o, groups) for o in overrides] + search)
        return OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_first_lines(error)) from error


def _register_former_choices() -> None:
    """Let Hydra find the choices that have another name today, for configs of users that still name them."""
    from hydra.core.config_store import ConfigStore

    for group, names in CHOICES.items():
        for old, new in names.items():
            ConfigStore.instance().store(group=group, name=old, node={"defaults": [new]})


def _problems(
    config: Mapping[str, Any], schema: Mapping[str, Any], known: Collection[str], groups: set[str], path: str = ""
) -> list[str]:
    """List what is wrong with a composed config: unknown keys, missing values, unknown arguments of targets.

    Args:
        config: The config, or a section of it.
        schema: Its keys with their defaults.
        known: Other names to suggest for an unknown key.
        groups: Names of config groups.
        path: Where the section is: empty, or a dotted name that ends in a dot.
    """
    found = []
    for key, value in config.items():
        name = f"{path}{key}"
        if name in groups:
            found += _problems_of_group(key, value) if isinstance(value, Mapping) else []
        elif key not in schema:
            found.append(f"unknown key {name!r}{did_you_mean(key, [*schema, *known])}")
        elif value == "???":
            found.append(f"{name}= is missing: give a value on the command line; see --help")
        elif not _same_kind(value, schema[key]):
            found.append(f"{name}={value}: expected {_KINDS[type(schema[key])]}, such as {schema[key]}")
        elif isinstance(value, Mapping) and schema[key] is None:
            found += problems(value, name)  # a node in place of a name
        elif isinstance(value, Mapping):
            found += _problems(value, schema[key], (), set(), f"{name}.")
    return found


def _problems_of_group(group: str, node: Mapping[str, Any]) -> list[str]:
    if TARGET in node:
        ours = ("precision", "auto")  # which the Trainer doesn't know: `lit_aigc.machine.precision` resolves it
        return problems({key: value for key, value in node.items() if (key, value) != ours}, group)
    # Callbacks and loggers have a name for each node; null switches one off.
    known = [name for name, child in node.items() if isinstance(child, Mapping) and TARGET in child]
    shipped = members(group, [config_folder()])
    found = []
    for name, child in node.items():
        if name in known:
            found += problems(child, f"{group}.{name}")
        elif child is not None:
            found.append(f"unknown key '{group}.{name}'{did_you_mean(name, known)}")
        elif name not in shipped and (close := difflib.get_close_matches(name, shipped, n=1)):
            found.append(f"unknown key '{group}.{name}', did you mean {close[0]!r}?")  # null, for nothing there is
    return found


def _same_kind(value: Any, default: Any) -> bool:
    """Return whether a value is of the kind of its default; a default of null or auto allows anything."""
    if default in (None, "???", "auto"):
        return True
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(default)


def _mismatch(config: Mapping[str, Any], arguments: list[str]) -> str:
    """Return a sentence if a model of tokens meets data of numbers, or the other way round; else nothing."""
    if not {"data", "model"} <= set(config):
        return ""
    data, model = (getattr(locate(config[group][TARGET]), "of_tokens", None) for group in ("data", "model"))
    if None in (data, model) or data == model:
        return ""
    folders, overrides = split_arguments(arguments)
    given = {key_of(override): override.partition("=")[2] for override in overrides}
    known = members("experiment", folders)
    fitting = [name for name in known if name.endswith(f"_{given.get('data')}")]
    fitting = fitting or [name for name in known if name.startswith(f"{given.get('model')}_")]
    advice = f"experiment={' or '.join(fitting[:5])}" if fitting else "an experiment for this data: see --help"
    names = {group: f"{group}={given[group]}" if group in given else f"the {group}" for group in ("data", "model")}
    kinds = {True: "tokens", False: "numbers (pixels)"}
    return f"{names['data']} holds {kinds[data]}, and {names['model']} models {kinds[model]}. Choose {advice}."


def _secrets(config: Mapping[str, Any]) -> list[str]:
    """List passwords of the environment that got into a config, say by interpolation: it is written to files."""
    text = str(config)
    found = [name for name, value in os.environ.items() if name.endswith(_SECRET) and len(value) > 7 and value in text]
    return [
        f"the value of {name} is in the config, which is saved in the run folder: leave it out. What needs it reads "
        "the environment variable itself."
        for name in found
    ]


def _wrong_seeds(config: Mapping[str, Any]) -> list[str]:
    """List whole numbers that torch can't be seeded with, each named where it stands first."""
    wrong: dict[int, str] = {}
    for key, value in keys.leaves(config).items():
        if key.rpartition(".")[2] in ("seed", "seeds"):
            for seed in value if isinstance(value, list) else [value]:
                if type(seed) is int and not 0 <= seed < 2**63:
                    wrong.setdefault(seed, key)
    return [f"{name}={value}: expected a whole number from 0 to {2**63 - 1}" for value, name in wrong.items()]


def _drop_settings_of_replaced_callbacks(config: dict[str, Any], overrides: list[str]) -> None:
    """Drop settings of callbacks that aren't there any more, unless the command line names them.

    These are an experiment's, where ``callbacks=NAME`` on the command line has replaced the callbacks that it knew, and
    those of ``conf/measure``, which knows the data only.
    """
    mentioned = [key_of(override) for override in overrides]
    replaced = "callbacks" in mentioned
    asked = {key.split(".")[1] for key in mentioned if key.startswith("callbacks.")}
    if replaced:
        config.setdefault("callbacks", {})
    for name, node in list((config.get("callbacks") or {}).items()):
        is_setting = isinstance(node, dict) and TARGET not in node
        if is_setting and name not in asked and (replaced or name == _OF_MEASURE):
            del config["callbacks"][name]


def _missing_groups(defaults: list[Any], folders: list[Path], is_there: Callable[[str], bool]) -> list[str]:
    """List the parts that are needed and were switched off."""
    found = []
    for group in (key for entry in defaults if isinstance(entry, Mapping) for key in entry):
        if group in _CAN_BE_LEFT_OUT or group.startswith("optional ") or is_there(group):
            continue
        found.append(f"{group}= is needed: expected one of {', '.join(members(group, folders))}")
    return found


def _first_lines(error: Exception) -> str:
    if getattr(error, "override", None):  # what can't be parsed
        return (
            f"{error.override.lstrip('+')} is not in Hydra's grammar ({str(error).splitlines()[0]}): expected "
            "key=value, key=[a, b] or key={a: 1}; text with other signs goes in quotes, as in \"key='a, b'\"."
        )
    return "\n".join(line for line in str(error).splitlines() if line.strip())[:2000]
