"""Build networks and modules from plain dicts, without Hydra, in the same way for training and for bundles.

A node is a mapping with the key ``_target_``, the dotted name of a class or function. Its other keys are keyword
arguments: plain values, child nodes, or, if the parameter is annotated with a dataclass, the dataclass's fields.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lit_aigc.errors import InputError, check
from lit_aigc.spec import DataSpec

TARGET = "_target_"

# Former names that saved files and configs of users may hold: of modules, by module, and of single classes.
MOVED = {
    "lit_aigc.augmentation": "lit_aigc.augmentation.images",
    "lit_aigc.callbacks.neighbours": "lit_aigc.callbacks.neighbors",
    "lit_aigc.launch": "lit_aigc.runs.launch",
    "lit_aigc.loggers": "lit_aigc.loggers.tensorboard",
    "lit_aigc.metrics.efficientnet": "lit_aigc.metrics.features.efficientnet",
    "lit_aigc.metrics.extractors": "lit_aigc.metrics.features.extractors",
    "lit_aigc.metrics.inception": "lit_aigc.metrics.features.inception",
    "lit_aigc.metrics_csv": "lit_aigc.loggers.csv",
    "lit_aigc.optimization": "lit_aigc.optimization.optimizers",
    "lit_aigc.sharding": "lit_aigc.train.sharding",
    "lit_aigc.tokenization": "lit_aigc.tokenization.tokenizers",
    "lit_aigc.wandb_logger": "lit_aigc.loggers.wandb",
}
_RENAMED = {
    "lit_aigc.callbacks.neighbors.NearestNeighbours": "lit_aigc.callbacks.neighbors.NearestNeighbors",
    "lit_aigc.runs.launch.data_parallel": "lit_aigc.runs.launch.DataParallel",
}

_TRUSTED = ("lit_aigc.networks", "lit_aigc.modules", "lit_aigc.augmentation", "lit_aigc.tokenization")
_NOT_FOR_MODELS = {"name", "modality", "fingerprint", "evaluation", "token_counts"}
_FACTS = {field.name for field in dataclasses.fields(DataSpec)} - _NOT_FOR_MODELS


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``", did you mean 'minutes'?"`` for a misspelled or incomplete name, or the list of known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1) or [key for key in known if key.startswith(f"{name}_")]
    return f", did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def current_name(target: str) -> str:
    """Return today's dotted name of a class or function."""
    module, _, name = target.rpartition(".")
    target = f"{MOVED.get(module, module)}.{name}" if module else target
    return _RENAMED.get(target, target)


def locate(target: str, trust: Iterable[str] | None = None) -> Callable[..., Any]:
    """Import the class or function that a dotted name means.

    Args:
        target: For example ``lit_aigc.networks.dcgan.Generator``.
        trust: None for the user's own config: anything importable. For a config that came from a file, the packages
            allowed besides lit_aigc's own: only classes that are defined in them are.

    Raises:
        InputError: If it doesn't exist, or isn't trusted.
    """
    if not isinstance(target, str):
        raise InputError(f"{TARGET}: {target!r} is not the dotted name of a class, such as package.module.Class.")
    target = current_name(target)
    module_name, _, name = target.rpartition(".")
    if trust is not None:
        trusted = (*_TRUSTED, *trust)
        if not _within(module_name, trusted):
            raise InputError(f"{target} is refused: a file may name only classes of {', '.join(trusted)} (see trust=).")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InputError(f"{TARGET}: {target} can't be imported ({error}).") from error
    if trust is not None and not (inspect.isclass(found) and _within(found.__module__, trusted)):
        raise InputError(f"{target} is refused: it is not a class defined in {', '.join(trusted)}.")
    return found


def resolve(config: Mapping[str, Any], spec: DataSpec, trust: Iterable[str] | None = None) -> dict[str, Any]:
    """Complete a model's config: fill in each parameter named like a fact of the spec, unless it is set.

    A model with ``conditional: false`` is built as if the data had no classes.

    Returns:
        A new config of plain types, which goes into checkpoints and bundles.

    Raises:
        InputError: If a conditional model meets data without labels.
    """
    if config.get("conditional") and not spec.num_classes:
        raise InputError(
            f"model.conditional=true needs labels, and the data set {spec.name or 'given'} has none: "
            "set model.conditional=false, or give data with class labels (class folders)."
        )
    facts = {key: value for key, value in spec.to_dict().items() if key in _FACTS}
    if config.get("conditional") is False:
        facts["num_classes"] = 0
        facts["class_names"] = []
    return _fill(config, facts, trust)


def _fill(node: Any, facts: Mapping[str, Any], trust: Iterable[str] | None) -> Any:
    if isinstance(node, Mapping):
        filled = {key: _fill(value, facts, trust) for key, value in node.items()}
        if TARGET in node:
            wanted = inspect.signature(locate(node[TARGET], trust)).parameters
            filled |= {key: value for key, value in facts.items() if key in wanted and node.get(key) is None}
        return filled
    if isinstance(node, (list, tuple)):
        return [_fill(item, facts, trust) for item in node]
    return node


def instantiate(node: Any, trust: Iterable[str] | None = None, **given: Any) -> Any:
    """Build a node and its children, depth first.

    Args:
        node: A node, or a plain value, which is returned unchanged.
        trust: See `locate`.
        given: Arguments that a config can't hold, passed to the outermost target if its signature has them.
    """
    if isinstance(node, (list, tuple)):
        return [instantiate(item, trust) for item in node]
    if not isinstance(node, Mapping):
        return node
    children = {key: instantiate(value, trust) for key, value in node.items() if key != TARGET}
    if TARGET not in node:
        return children
    target = locate(node[TARGET], trust)
    parameters = inspect.signature(target).parameters
    missing = [
        f"{node[TARGET]} needs the option {name!r}"
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in {*node, *given}
    ]
    check(more=problems(node, trust=trust, given=given, deep=False) + missing)
    for name, kind in _dataclass_parameters(target).items():
        if isinstance(children.get(name), Mapping):
            children[name] = kind(**children[name])
    return target(**children, **{key: value for key, value in given.items() if key in parameters})


def build(config: Mapping[str, Any], spec: DataSpec, trust: Iterable[str] | None = None) -> Any:
    """Build the LightningModule of a resolved model config, which keeps the config for its checkpoints.

    Raises:
        InputError: If the config and the spec don't go together.
    """
    module = instantiate(config, trust, spec=spec)
    if hasattr(module, "config"):
        module.config = dict(config)
    return module


def problems(
    node: Any, path: str = "", trust: Iterable[str] | None = None, given: Iterable[str] = (), deep: bool = True
) -> list[str]:
    """List what is wrong with a node: unknown keys, values of a wrong type, targets that don't exist."""
    if isinstance(node, (list, tuple)):
        node = dict(enumerate(node))
    if not isinstance(node, Mapping):
        return []
    found, misplaced = [], {}
    if TARGET in node:
        try:
            target = locate(node[TARGET], trust)
        except InputError as error:
            return [f"{path + ': ' if path else ''}{error}"]
        if inspect.isbuiltin(target) or not callable(target):
            return [f"{path + ': ' if path else ''}{TARGET}: {node[TARGET]} is not a class."]
        misplaced = _misplaced(target, node, path, trust)
        found += [*misplaced.values(), *_unknown_keys(target, node, path, given), *_wrong_values(target, node, path)]
    if deep:
        for key, value in node.items():
            if key not in misplaced:
                found += problems(value, f"{path}.{key}" if path else str(key), trust)
    return found


def _misplaced(
    target: Callable[..., Any], node: Mapping[str, Any], path: str, trust: Iterable[str] | None
) -> dict[str, str]:
    """Return, by key, what is wrong with children that build something else than the annotation asks for."""
    found = {}
    for key, hint in _hints(target).items():
        kinds = tuple(option for option in _options(hint) if _is_kind(option))
        child = node.get(key)
        if not kinds or not isinstance(child, Mapping) or TARGET not in child:
            continue
        try:
            makes = locate(child[TARGET], trust)
        except InputError:
            continue  # `problems` of the child says so
        made = makes if inspect.isclass(makes) else _hints(makes).get("return")
        if not (inspect.isclass(made) and issubclass(made, kinds)):
            name = f"{path}.{key}" if path else key
            expected = " or ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
            other = "another class" if inspect.isclass(makes) else "not a class"
            found[key] = (
                f"{name}.{TARGET}={child[TARGET]} is {other}: expected a subclass of {expected}, or a function that is "
                "annotated to return one"
            )
    return found


def _is_kind(option: Any) -> bool:
    """Return whether an annotation restricts what may be built for it: plain types, protocols and `Any` don't."""
    return (
        inspect.isclass(option)
        and option.__module__ not in ("builtins", "types", "typing", "collections.abc")
        and not getattr(option, "_is_protocol", False)
        and not dataclasses.is_dataclass(option)
    )


def _unknown_keys(target: Callable[..., Any], node: Mapping[str, Any], path: str, given: Iterable[str]) -> list[str]:
    parameters = inspect.signature(target).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return []
    dot = f"{path}." if path else ""
    name = getattr(target, "__name__", target)
    where = "" if dataclasses.is_dataclass(target) else f": {name} has no such option"
    found = [
        f"unknown key '{dot}{key}'{where}{did_you_mean(key, set(parameters) - set(given) - {'spec'})}"
        for key in node
        if key != TARGET and key not in parameters
    ]
    for name, kind in _dataclass_parameters(target).items():
        if isinstance(node.get(name), Mapping):
            found += _unknown_keys(kind, node[name], f"{dot}{name}", ())
    return found


def _dataclass_parameters(target: Callable[..., Any]) -> dict[str, type]:
    """Return the parameters that are annotated with a dataclass, alone or in a union."""
    options = {name: filter(dataclasses.is_dataclass, _options(hint)) for name, hint in _hints(target).items()}
    return {name: kind for name, kinds in options.items() if (kind := next(kinds, None))}


def _wrong_values(target: Callable[..., Any], node: Mapping[str, Any], path: str) -> list[str]:
    """List plain values that don't fit the parameter's annotation."""
    found = []
    for key, hint in _hints(target).items():
        name = f"{path}.{key}" if path else key
        if key not in node or key == "return":
            continue
        if not _fits(node[key], hint):
            found.append(f"{name}={node[key]}: expected {_in_words(hint)}")
        elif isinstance(node[key], Mapping):
            for kind in filter(dataclasses.is_dataclass, _options(hint)):
                found += _wrong_values(kind, node[key], name)
    return found


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):
        return {}


def _options(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of ``A | B``, or the hint alone."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return (hint,)
    return tuple(option for part in typing.get_args(hint) for option in _options(part))


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a plain value fits a hint; True for hints that don't restrict plain values."""
    if isinstance(value, Mapping) and TARGET in value:
        return True  # built later
    return any(fits(value) for _, fits in map(_rule, _options(hint)))


def _in_words(hint: Any) -> str:
    return " or ".join(dict.fromkeys(words for words, _ in map(_rule, _options(hint))))


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}


def _rule(option: Any) -> tuple[str, Callable[[Any], bool]]:
    """Return which plain values fit one alternative of a hint, in words and as a test."""
    origin, arguments = typing.get_origin(option) or option, typing.get_args(option)
    if origin is typing.Literal:
        return " or ".join(map(str, arguments)), lambda value: value in arguments
    if option in (int, float):
        return _WORDS[option], lambda value: isinstance(value, (int, option)) and not isinstance(value, bool)
    if option in _WORDS:
        return _WORDS[option], lambda value: isinstance(value, option)
    if origin in (list, tuple, Sequence):
        of_kind = arguments[:1]
        return (
            "a list in brackets",
            lambda value: (
                isinstance(value, (list, tuple)) and all(_fits(item, kind) for item in value for kind in of_kind)
            ),
        )
    if origin in (dict, Mapping) or dataclasses.is_dataclass(option):
        return "keys with values", lambda value: isinstance(value, Mapping)
    return f"a node with {TARGET}", lambda _: True


def _within(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)
