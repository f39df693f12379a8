"""Configs: compose with Hydra, check every key, and run a verb with the exit codes that scripts rely on."""

from __future__ import annotations

import errno
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lit_aigc import __version__
from lit_aigc.build import TARGET, did_you_mean, locate, problems
from lit_aigc.config.agent_values import overrides_of_agent
from lit_aigc.config.overrides import (
    as_text,
    choices,
    config_folder,
    forced,
    groups_in,
    key_of,
    problems_of_choices,
    quoted,
    split_arguments,
)
from lit_aigc.config.saved import changed, saved_config
from lit_aigc.errors import InputError
from lit_aigc.files import read_yaml
from lit_aigc.runs.folder import in_sweep

DONE, FAILED, BAD_INPUT, PAUSED = 0, 1, 2, 75
RANK_CONFIG = "LIT_AIGC_CONFIG"  # where processes that the Trainer starts find the first one's resolved config
_CANNOT_WRITE = {
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EFBIG", "EEXIST", "ENOTDIR", "EISDIR", "ENAMETOOLONG")
}
_GO_ON = "a training that had begun goes on from its last checkpoint with resume=RUN_DIR."
_CONFIG_OF = {"doctor": "train"}  # a verb that takes what another takes
_SECRET = ("_API_KEY", "_ACCESS_KEY", "_TOKEN", "_SECRET", "_PASSWORD")  # ends of names of environment variables
_CAN_BE_LEFT_OUT = ("experiment", "callbacks")
_MULTIRUN = {"-m", "--multirun"}
_EXPERIMENTS, _DATA, _MODELS = ("experiment", "experiments"), ("data", "data sets"), ("model", "models")
_LISTED = {"train": (_EXPERIMENTS, _DATA, _MODELS), "evaluate": (_DATA,), "compare": (_EXPERIMENTS,)}


def command(verb: str, main: Callable[[dict[str, Any]], int]) -> None:
    """Run a verb on the command line's config and leave with its exit code; see `leave_with`."""

    def run(arguments: list[str]) -> int:
        if _MULTIRUN & set(arguments):
            _multirun(verb, arguments)
            return DONE
        if verb == "train" and RANK_CONFIG in os.environ:
            return main(read_yaml(os.environ[RANK_CONFIG]))
        return main(load(verb, arguments))

    leave_with(verb, run, lambda: help_text(verb))


def leave_with(verb: str, run: Callable[[list[str]], int], usage: Callable[[], str]) -> None:
    """Answer ``--help`` and ``--version``, or run a verb on the words of the command line; then leave.

    Exit codes: what `run` returns (0 done, 75 paused and resumable); 2 for bad input, with one message and no
    traceback; 1 for anything else, Ctrl-C among it.
    """
    arguments = sys.argv[1:]
    try:
        if {"-h", "--help"} & set(arguments):
            print(usage())
            code = DONE
        elif "--version" in arguments:
            print(f"lit_aigc {__version__}")
            code = DONE
        else:
            code = run(arguments)
    except InputError as error:
        print(f"lit_aigc.{verb}: {error}", file=sys.stderr)
        code = BAD_INPUT
    except KeyboardInterrupt:
        print(f"lit_aigc.{verb}: interrupted{f'; {_GO_ON}' if verb == 'train' else '.'}", file=sys.stderr)
        code = FAILED
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        print(
            f"lit_aigc.{verb}: can't write: {error}. Free some space, or name another place; {_GO_ON}", file=sys.stderr
        )
        code = BAD_INPUT
    sys.stdout.flush()
    sys.exit(code)


def check_command(arguments: list[str]) -> dict[str, Any] | None:
    """Compose and check a command line such as ``python -m lit_aigc.train experiment=dcgan_mnist5k``.

    Returns:
        The config, or None for ``--help`` and ``--version``.

    Raises:
        InputError: If it is not a command of lit_aigc, or its config has problems.
    """
    match = re.fullmatch(r"python3? -m lit_aigc\.(\w+)", " ".join(arguments[:3]))
    verb = match and _CONFIG_OF.get(match[1], match[1])
    if not verb or not (config_folder() / f"{verb}.yaml").exists():
        raise InputError(f"{' '.join(arguments)}: not a command of lit_aigc")
    if {"-h", "--help", "--version"} & set(arguments):
        return None
    return compose(verb, [_first_job(argument) for argument in arguments[3:] if argument not in _MULTIRUN])


def load(verb: str, arguments: list[str]) -> dict[str, Any]:
    """The config of a command line: composed, or, with ``resume=RUN_DIR``, that run's own with the few allowed changes.

    Inside a W&B sweep agent values may be as Python prints them: see `lit_aigc.config.agent_values`.

    Raises:
        InputError: With all problems in one message.
    """
    if in_sweep():
        arguments = [override for argument in arguments for override in overrides_of_agent(argument, _is_one_value)]
    config = compose(verb, arguments)
    if not config.get("resume"):
        if found := _mismatch(config, arguments):
            raise InputError(found)
        return config
    saved = Path(config["resume"]) / "config.yaml"
    if not saved.exists():
        raise InputError(f"resume={config['resume']} is not a run folder: expected a folder with a config.yaml.")
    return {**changed(saved_config(config["resume"], config), config, arguments), "resume": config["resume"]}


def compose(verb: str, arguments: list[str]) -> dict[str, Any]:
    """The config of a verb as plain types, each key checked.

    Args:
        verb: Name of a file in ``conf/``.
        arguments: Overrides in Hydra's grammar, and ``--config-dir FOLDER`` for the user's own beside ``conf/``.

    Raises:
        InputError: With all problems in one message.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    folders, overrides = split_arguments(arguments)
    groups = groups_in(folders)
    found = problems_of_choices(overrides, groups, folders)
    if found:
        raise InputError("\n".join(found))
    own = ",".join(as_text(f"file://{folder.resolve()}") for folder in folders[1:])
    search = [f"hydra.searchpath=[{own}]"] if own else []
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folders[0].resolve()), version_base="1.3"):
            # Every value is forced in, so that Hydra doesn't stop at the first unknown key: `problems` finds them all.
            composed = hydra_compose(verb, overrides=[forced(o, groups) for o in overrides] + search)
        config = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_first_lines(error)) from error
    schema = OmegaConf.to_container(OmegaConf.load(folders[0] / f"{verb}.yaml"))
    defaults = schema.pop("defaults", [])
    chosen = choices(defaults, overrides)
    _drop_settings_of_what_was_replaced(config, overrides)
    found = (
        _missing_groups(config, defaults, folders)
        or [*_problems(config, schema, groups), *_wrong_seeds(config)]
        or _secrets(config)
    )
    if found:
        raise InputError("\n".join(found))
    if verb == "train":
        from lit_aigc.metrics.choice import follow_data  # imports torch

        follow_data(config)
    return {**config, **({"experiment": chosen["experiment"]} if "experiment" in chosen else {})}


def help_text(verb: str) -> str:
    """What a verb does and what it can be asked for, from the first lines of the files in ``conf/``."""
    folder = config_folder()
    lines = [
        f"python -m lit_aigc.{verb} [key=value ...]   {_summary(folder / f'{verb}.yaml')}",
        "",
        "  --multirun, -m     one run for each combination of comma-separated values: -m seed=1,2",
        "  --config-dir DIR   configs of your own, laid out like conf/",
        "  --version          print the version of lit_aigc",
        "",
        "Keys and their defaults:",
    ]
    body = (folder / f"{verb}.yaml").read_text().split("\n\n", 1)[-1].split("\nhydra:")[0]
    lines += [f"  {line}" for line in body.splitlines() if line]
    for group, title in _LISTED.get(verb, ()):
        files = sorted((folder / group).glob("*.yaml"))
        width = max((len(file.stem) for file in files), default=0)
        lines += ["", f"{group}=NAME, {title}:"] + [f"  {f.stem:<{width}}  {_summary(f)}" for f in files]
    return "\n".join(lines)


def _summary(file: Path) -> str:
    with file.open() as lines:
        return next((line.lstrip("# ").strip() for line in lines if not line.startswith("# @")), "")


def _problems(config: Mapping[str, Any], schema: Mapping[str, Any], groups: set[str]) -> list[str]:
    """What is wrong with a composed config: unknown keys, missing values, unknown arguments of targets."""
    found = []
    for key, value in config.items():
        if key in groups:
            continue
        if key not in schema:
            found.append(f"unknown key {key!r}{did_you_mean(key, [*schema, *groups])}")
        elif value == "???":
            found.append(f"{key}= is missing: give a value on the command line; see --help")
        elif not _same_kind(value, schema[key]):
            found.append(f"{key}={value}: expected {_KINDS[type(schema[key])]}, such as {schema[key]}")
        elif isinstance(value, Mapping) and schema[key] is None:
            found += problems(value, key)  # a node in place of a name
        elif isinstance(value, Mapping):
            found += [f"unknown key '{key}.{k}'{did_you_mean(k, schema[key])}" for k in value if k not in schema[key]]
    for group in sorted(groups & set(config)):
        node = config[group]
        if not isinstance(node, Mapping):
            continue
        if TARGET in node:
            ours = ("precision", "auto")  # which the Trainer doesn't know: `lit_aigc.machine.precision` resolves it
            found += problems({key: value for key, value in node.items() if (key, value) != ours}, group)
            continue
        # callbacks and loggers: a name for each node; null switches one off
        known = [name for name, child in node.items() if isinstance(child, Mapping) and TARGET in child]
        for name, child in node.items():
            if name in known:
                found += problems(child, f"{group}.{name}")
            elif child is not None:
                found.append(f"unknown key '{group}.{name}'{did_you_mean(name, known)}")
    return found


def _mismatch(config: Mapping[str, Any], arguments: list[str]) -> str:
    """A word on a model of images for data that is text, or the other way round; else nothing."""
    if not {"data", "model"} <= set(config):
        return ""
    data, model = (getattr(locate(config[group][TARGET]), "of_text", None) for group in ("data", "model"))
    if None in (data, model) or data == model:
        return ""
    folders, overrides = split_arguments(arguments)
    given = {key_of(override): override.partition("=")[2] for override in overrides}
    known = sorted(file.stem for folder in folders for file in (folder / "experiment").glob("*.yaml"))
    fitting = [name for name in known if name.endswith(f"_{given.get('data')}")]
    fitting = fitting or [name for name in known if name.startswith(f"{given.get('model')}_")]
    advice = f"experiment={' or '.join(fitting[:5])}" if fitting else "an experiment for this data: see --help"
    names = {group: f"{group}={given[group]}" if group in given else f"the {group}" for group in ("data", "model")}
    kinds = ("text", "images") if data else ("images", "text")
    return f"{names['data']} holds {kinds[0]}, and {names['model']} is a model of {kinds[1]}. Choose {advice}."


def _secrets(config: Mapping[str, Any]) -> list[str]:
    """Passwords of the environment that came into a config, say by interpolation: it is written to files."""
    text = str(config)
    found = [name for name, value in os.environ.items() if name.endswith(_SECRET) and len(value) > 7 and value in text]
    return [
        f"the value of {name} is in the config, which is saved in the run folder: leave it out. What needs it reads "
        "the environment variable itself."
        for name in found
    ]


def _wrong_seeds(config: Mapping[str, Any]) -> list[str]:
    """Whole numbers that torch can't be seeded with, each named where it stands first."""
    wrong: dict[int, str] = {}

    def look(node: Any, path: str) -> None:
        if isinstance(node, Mapping):
            for key, value in node.items():
                look(value, f"{path}.{key}" if path else str(key))
        elif isinstance(node, list):
            for value in node:
                look(value, path)
        elif type(node) is int and path.rpartition(".")[2] in ("seed", "seeds") and not 0 <= node < 2**63:
            wrong.setdefault(node, path)

    look(config, "")
    return [f"{name}={value}: expected a whole number from 0 to {2**63 - 1}" for value, name in wrong.items()]


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list", dict: "keys"}


def _same_kind(value: Any, default: Any) -> bool:
    """Whether a value is of the kind of its default; a default of null says nothing."""
    if default is None or default == "???":
        return True
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(default)


def _drop_settings_of_what_was_replaced(config: dict[str, Any], overrides: list[str]) -> None:
    """An experiment's settings of callbacks that ``callbacks=NAME`` on the command line has replaced by others."""
    mentioned = [key_of(override) for override in overrides]
    if "callbacks" in mentioned:
        asked = {key.split(".")[1] for key in mentioned if key.startswith("callbacks.")}
        nodes = (config.get("callbacks") or {}).items()
        config["callbacks"] = {name: v for name, v in nodes if name in asked or not isinstance(v, dict) or TARGET in v}


def _missing_groups(config: Mapping[str, Any], defaults: list[Any], folders: list[Path]) -> list[str]:
    """Parts that can't be done without, and were switched off."""
    found = []
    for group in (key for entry in defaults if isinstance(entry, Mapping) for key in entry):
        if TARGET in (config.get(group) or {}) or group in _CAN_BE_LEFT_OUT or group.startswith("optional "):
            continue
        known = sorted(file.stem for folder in folders for file in (folder / group).glob("*.yaml"))
        found.append(f"{group}= is needed: expected one of {', '.join(known)}")
    return found


def _first_lines(error: Exception) -> str:
    if getattr(error, "override", None):  # what can't be parsed
        return (
            f"{error.override.lstrip('+')} is not in Hydra's grammar ({str(error).splitlines()[0]}): expected "
            "key=value, key=[a, b] or key={a: 1}; text with other signs goes in quotes, as in \"key='a, b'\"."
        )
    return "\n".join(line for line in str(error).splitlines() if line.strip())[:2000]


def _parsed(argument: str) -> Any:
    """Hydra's view of an override; None for what is none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if argument.startswith("-") or "=" not in argument:
        return None
    try:
        return OverridesParser.create().parse_override(quoted(argument))
    except HydraException:
        return None  # `compose` says what is wrong with it


def _is_one_value(argument: str) -> bool:
    override = _parsed(argument)
    return override is not None and not override.is_sweep_override()


def _first_job(argument: str) -> str:
    """An override of a multirun as the first job has it: ``seed=1,2`` is ``seed=1``."""
    values = _values_of_sweep(argument)
    return f"{_parsed(argument).get_key_element()}={values[0]}" if values else argument


def _values_of_sweep(argument: str) -> list[str]:
    """What an override of a multirun sets one after the other; nothing for one with one value, or a glob."""
    override = _parsed(argument)
    if override is None or not (override.is_choice_sweep() or override.is_range_sweep()):
        return []
    return list(override.sweep_string_iterator())


def _is_sweep(argument: str) -> bool:
    override = _parsed(argument)
    return override is not None and override.is_sweep_override()


def _multirun(verb: str, arguments: list[str]) -> None:
    """Hydra's own multirun; each job is a process of its own, so that jobs on several devices can follow each other."""
    import hydra
    from hydra.core.hydra_config import HydraConfig

    rest = [argument for argument in arguments if argument not in _MULTIRUN]
    compose(verb, [_first_job(argument) for argument in rest])  # problems show before any job starts
    own, overrides = split_arguments(rest)
    folders = [f"--config-dir={folder.resolve()}" for folder in own[1:]]
    started = []
    swept = {key_of(override): len(_values_of_sweep(override)) for override in overrides if _is_sweep(override)}
    jobs = math.prod(swept.values())  # 0 with a glob, whose values aren't known here

    def job(config: Any) -> None:
        task = list(HydraConfig.get().overrides.task)
        own = ", ".join(override.lstrip("+") for override in task if key_of(override) in swept)
        started.append(own)
        print(f"run {len(started)}{f' of {jobs}' if jobs else ''}{own and f': {own}'}", flush=True)
        result = subprocess.run([sys.executable, "-m", f"lit_aigc.{verb}", *folders, *task], check=False)
        if result.returncode != DONE:
            raise SystemExit(result.returncode)

    groups = groups_in(own)
    quiet = "hydra.hydra_logging.root.level=WARNING"  # `job` says which run starts
    sys.argv[1:] = ["--multirun", *folders, *(forced(override, groups) for override in overrides), quiet]
    try:
        hydra.main(config_path=str(config_folder()), config_name=verb, version_base="1.3")(job)()
    except SystemExit as stop:  # Hydra leaves with 1 for what it can't compose
        raise SystemExit(stop.code if started or not stop.code else BAD_INPUT) from None
