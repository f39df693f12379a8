"""Overrides on the command line, as text: find config folders, quote free text, force values in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lit_aigc.build import did_you_mean
from lit_aigc.errors import InputError

# Keys whose values are free text or paths, so that they need no quotes for Hydra's grammar. A key of a new verb that
# ends like one of these needs no entry.
_FREE_TEXT = re.compile(
    r"\+*(?!hydra\.)(out|bundle|baseline|real|fake|(image\.)?encode|resume|init_from|(text\.)?prompts?"
    r"|(\w+\.)*(\w+_)?(root|path|dir|folder|file|prompt))"
)
_OVERRIDES = re.compile(r"\+*overrides=\[(.*)\]", re.DOTALL)  # a list of overrides for other commands
_WORD = re.compile(r"[A-Za-z_][\w./+-]*")  # text that Hydra's grammar takes as it is,
_NOT_WORDS = ("null", "true", "false", "nan", "inf", "infinity")  # but for these
_QUOTED = re.compile(r"""'([^'\\]|\\.)*'|"([^"\\]|\\.)*\"""", re.DOTALL)  # by the user, for Hydra's grammar


def config_folder() -> Path:
    """Return ``lit_aigc/conf`` in an installed wheel, else ``conf`` next to the package."""
    package = Path(__file__).resolve().parents[1]
    return next(folder for folder in (package / "conf", package.parent / "conf") if folder.is_dir())


def split_arguments(arguments: list[str]) -> tuple[list[Path], list[str]]:
    """Return the config folders, ours first, and the overrides, with free text quoted.

    Raises:
        InputError: If an argument is no override, or a folder is missing.
    """
    folders, overrides = [config_folder()], []
    rest = iter(arguments)
    for argument in rest:
        name, _, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            folder = Path(value or next(rest, "(none given)"))
            if not folder.is_dir():
                raise InputError(f"--config-dir {folder}: no such folder.")
            folders.append(folder)
        elif argument.startswith("-"):
            raise InputError(f"unknown option {argument}; see --help")
        elif "=" not in argument and not argument.startswith("~"):
            raise InputError(f"{argument!r} is not of the form key=value; see --help")
        else:
            overrides.append(quoted(argument))
    return folders, overrides


def quoted(override: str) -> str:
    """Quote the value of an override for Hydra's grammar where it is free text or a path."""
    key, _, value = override.partition("=")
    if inner := _OVERRIDES.fullmatch(override):
        entries = [entry if _QUOTED.fullmatch(entry) else as_text(entry) for entry in _entries(inner[1])]
        return f"{key}=[{','.join(entries)}]"
    if not _FREE_TEXT.fullmatch(key) or value in ("", "null") or _QUOTED.fullmatch(value):
        return override
    return f"{key}={as_text(value)}"


def _entries(text: str) -> list[str]:
    """Split the text of a list at the commas that are in no brackets or quotes."""
    entries, depth, rest = [""], 0, text
    while rest:
        found = _QUOTED.match(rest)
        part = found[0] if found else rest[0]
        depth += (part in "[{(") - (part in ")}]")
        if part == "," and not depth:
            entries.append("")
        else:
            entries[-1] += part
        rest = rest[len(part) :]
    return [entry.strip() for entry in entries if entry.strip()]


def as_text(value: str) -> str:
    """Write any text as a value in Hydra's grammar that is read back unchanged."""
    # For OmegaConf a backslash before ${ makes it text, and backslashes before that have to be doubled;
    # for Hydra the same holds for a quote.
    escaped = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", value)
    escaped = re.sub(r"(\\*)'", lambda match: match[1] * 2 + "\\'", escaped)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{chr(92) * trailing}'"


def in_hydras_grammar(value: Any) -> str:
    """Write a plain value for an override: ``null``, ``true``, ``1e-05``, ``adam``, ``[1,'a b']``, ``{lr:0.1}``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        plain = _WORD.fullmatch(value) and value.lower() not in _NOT_WORDS
        return value if plain else as_text(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{in_hydras_grammar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(in_hydras_grammar, value)) + "]"
    return repr(value)


def groups_in(folders: list[Path]) -> set[str]:
    """Return the names of the config groups, such as ``data``."""
    return {path.name for folder in folders for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._"}


def members(group: str, folders: Iterable[Path]) -> list[str]:
    """Return the names that can be chosen from a group, in order."""
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def folder_options(own_folders: Iterable[Path]) -> list[str]:
    """Return the options that name the user's own config folders to another command."""
    return [f"--config-dir={folder.resolve()}" for folder in own_folders]


def key_of(override: str) -> str:
    """Return the key of an override: ``a.b`` of ``+a.b=1``."""
    return override.partition("=")[0].lstrip("+~").split("@")[0]


def forced(override: str, groups: set[str]) -> str:
    """Rewrite an override so that Hydra takes any key, and our own check finds all unknown ones."""
    key, value = key_of(override), override.partition("=")[2]
    if key in groups and value == "null":
        return f"~{key}"  # Hydra's word for none
    if key in groups or "/" in key or override.startswith("~") or key.startswith("hydra"):
        return override  # a choice, also of a group such as ``model/recipe``, or Hydra's own
    return "++" + override.lstrip("+")


def choices(defaults: list[Any], overrides: list[str]) -> dict[str, str]:
    """Return what was chosen from each group, by the defaults of a config and the command line."""
    chosen = {key: value for entry in defaults if isinstance(entry, Mapping) for key, value in entry.items()}
    chosen |= {key_of(override): override.partition("=")[2].strip("'\"") for override in overrides}
    return {key.removeprefix("optional ").strip(): value for key, value in chosen.items()}


def added_choices(overrides: list[str], groups: set[str], defaults: list[Any]) -> list[str]:
    """Let ``+callbacks=mine`` add to what is chosen from a group: ``callbacks=[default,mine]``."""
    added = [override for override in overrides if override.startswith("+") and key_of(override) in groups]
    rest = [override for override in overrides if override not in added]
    chosen = choices(defaults, rest)
    for group in dict.fromkeys(map(key_of, added)):
        before = chosen.get(group)
        names = [] if before in (None, "null") else [before.strip("[]")]
        names += [override.partition("=")[2].strip("[]") for override in added if key_of(override) == group]
        rest = [override for override in rest if key_of(override) != group]
        rest.append(f"{group}={names[0]}" if len(names) == 1 else f"{group}=[{','.join(names)}]")
    return rest


def problems_of_choices(overrides: list[str], groups: set[str], folders: list[Path]) -> list[str]:
    """List the names of group members that don't exist."""
    found = []
    for override in overrides:
        key, value = key_of(override), override.partition("=")[2]
        if key not in groups or override.startswith("~") or value == "null":
            continue
        known = members(key, folders)
        names = [name.strip(" '\"") for name in value.strip("'\"[]").split(",")]
        found += [f"{key}={name} is unknown{did_you_mean(name, known)}" for name in names if name not in known]
    return found


def problems_of_list(overrides: Iterable[Any], taken: Iterable[str], example: str) -> list[str]:
    """List what is wrong with ``overrides=[...]``, which a verb passes on to several trainings.

    Args:
        overrides: The entries.
        taken: First parts of the keys that the verb itself sets.
        example: An entry as it should be.
    """
    found = []
    for override in overrides:
        if not isinstance(override, str) or "=" not in override:
            found.append(f"overrides has {override!r}: expected key=value, as in [{example}].")
        elif key_of(override).partition(".")[0] in taken:
            found.append(f"overrides can't set {key_of(override)}: each training gets its own.")
    return found


def problems_of_name(name: str) -> list[str]:
    """Return a sentence if a name is unfit for a file or a folder."""
    if re.fullmatch(r"[\w.-]+", name):
        return []
    return [f"name={name}: expected letters, digits, _ . and - only; files are named by it."]


def is_one_value(override: str) -> bool:
    """Return whether Hydra reads an override as one value: not as several to run in turn, nor as an error."""
    parsed = _parsed(override)
    return parsed is not None and not parsed.is_sweep_override()


def in_turn(override: str, folders: list[Path]) -> list[str]:
    """Return the overrides that a multirun takes in turn: ``seed=1`` and ``seed=2`` for ``seed=1,2``.

    Args:
        override: An override; one with a single value is returned as it is.
        folders: Config folders, whose files ``glob(...)`` means.

    Raises:
        InputError: If there is nothing to choose from.
    """
    from hydra.core.override_parser.types import Glob

    parsed = _parsed(override)
    if parsed is None or not parsed.is_sweep_override():
        return [override]
    key, value = parsed.get_key_element(), parsed.value()
    if isinstance(value, Glob):
        values = value.filter(members(key_of(override), folders))
    else:
        values = list(parsed.sweep_string_iterator()) if parsed.is_discrete_sweep() else []
    if not values:
        raise InputError(f"{override} has no values to take in turn: expected {key}=a,b or range(1,3), or glob(a*).")
    return [f"{key}={one}" for one in values]


def _parsed(argument: str) -> Any:
    """Return Hydra's view of an override; None for what isn't one."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if argument.startswith("-") or "=" not in argument:
        return None
    try:
        return OverridesParser.create().parse_override(quoted(argument))
    except HydraException:
        return None  # `compose` says what is wrong with it
