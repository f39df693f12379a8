"""Overrides on the command line, as text: which folders of configs there are, what is quoted, what is forced in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_aigc.build import did_you_mean
from lit_aigc.errors import InputError

_FREE_TEXT = re.compile(
    r"^\+*(prompts?|out|bundle|baseline|real|fake|file|encode|run_dir|resume|init_from|(\w+\.)*root|(\w+\.)*weights_path)$"
)
_OVERRIDES = re.compile(r"\+*overrides=\[(.*)\]", re.DOTALL)  # a list of overrides for other commands
_WORD = re.compile(r"[A-Za-z_][\w./+-]*")  # text that Hydra's grammar takes as it is,
_NOT_WORDS = ("null", "true", "false", "nan", "inf", "infinity")  # but for these
_QUOTED = re.compile(r"""'([^'\\]|\\.)*'|"([^"\\]|\\.)*\"""", re.DOTALL)  # by the user, for Hydra's grammar


def config_folder() -> Path:
    """``lit_aigc/conf`` in an installed wheel, else ``conf`` beside the package."""
    package = Path(__file__).resolve().parents[1]
    return next(folder for folder in (package / "conf", package.parent / "conf") if folder.is_dir())


def split_arguments(arguments: list[str]) -> tuple[list[Path], list[str]]:
    """Config folders, ours first, and overrides, free text quoted."""
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
    """An override, its value quoted for Hydra's grammar where it is free text or a path."""
    key, _, value = override.partition("=")
    if inner := _OVERRIDES.fullmatch(override):
        entries = [entry if _QUOTED.fullmatch(entry) else as_text(entry) for entry in _entries(inner[1])]
        return f"{key}=[{','.join(entries)}]"
    if not _FREE_TEXT.match(key) or value in ("", "null") or _QUOTED.fullmatch(value):
        return override
    return f"{key}={as_text(value)}"


def _entries(text: str) -> list[str]:
    """The entries of a list, split at the commas that are in no brackets or quotes."""
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
    """Any text as a value in Hydra's grammar that comes out as it went in."""
    # For OmegaConf a backslash before ${ makes it text, and backslashes before that have to be doubled;
    # for Hydra the same holds for a quote.
    escaped = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", value)
    escaped = re.sub(r"(\\*)'", lambda match: match[1] * 2 + "\\'", escaped)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{chr(92) * trailing}'"


def in_hydras_grammar(value: Any) -> str:
    """A plain value as an override has it: ``null``, ``true``, ``1e-05``, ``adam``, ``[1,'a b']``, ``{lr:0.1}``."""
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
    """Names of the config groups, such as ``data``."""
    return {path.name for folder in folders for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._"}


def key_of(override: str) -> str:
    """The key of an override: ``a.b`` of ``+a.b=1``."""
    return override.partition("=")[0].lstrip("+~").split("@")[0]


def forced(override: str, groups: set[str]) -> str:
    """The override in the form in which Hydra takes any key, so that our own check finds all unknown ones."""
    if key_of(override) in groups and override.partition("=")[2] == "null":
        return "~" + key_of(override)  # Hydra's word for none
    if override.startswith("~") or key_of(override) in groups or key_of(override).startswith("hydra"):
        return override
    return "++" + override.lstrip("+")


def choices(defaults: list[Any], overrides: list[str]) -> dict[str, str]:
    """What was chosen for each group."""
    chosen = {key: value for entry in defaults if isinstance(entry, Mapping) for key, value in entry.items()}
    chosen |= {key_of(override): override.partition("=")[2].strip("'\"") for override in overrides}
    return {key.removeprefix("optional ").strip(): value for key, value in chosen.items()}


def problems_of_choices(overrides: list[str], groups: set[str], folders: list[Path]) -> list[str]:
    """Names of group members that don't exist."""
    found = []
    for override in overrides:
        key, value = key_of(override), override.partition("=")[2].strip("'\"")
        if key not in groups or override.startswith("~") or value.startswith("[") or value == "null":
            continue
        known = sorted(file.stem for folder in folders for file in (folder / key).glob("*.yaml"))
        if value not in known:
            found.append(f"{key}={value} is unknown{did_you_mean(value, known)}")
    return found
