"""Optimizers by name, and the learning rates in use."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from lit_aigc.build import did_you_mean
from lit_aigc.errors import InputError, check
from lit_aigc.optimization.muon import Muon


def optimizer(
    config: Mapping[str, Any] | None, parameters: Iterable[torch.nn.Parameter], decays_vectors: bool = True
) -> torch.optim.Optimizer:
    """Make an optimizer of `torch.optim`.

    Args:
        config: ``name`` of the class, and its keyword arguments; those that are None are left out. ``fused`` is on
            where the class has it.
        parameters: What to optimize.
        decays_vectors: Whether weight decay applies to biases and normalization too.

    Raises:
        InputError: If the name or an argument is unknown.
    """
    options = {key: value for key, value in (config or {}).items() if value is not None}
    name = options.pop("name", "Adam")
    known = [key for key, value in vars(torch.optim).items() if inspect.isclass(value) and key != "Optimizer"]
    if name not in known:
        raise InputError(f"unknown optimizer {name!r}{did_you_mean(name, known)}")
    kind = Muon if name == "Muon" else getattr(torch.optim, name)
    accepted = set(inspect.signature(kind).parameters) - {"params"}
    unknown = sorted(set(options) - accepted)
    check(more=[f"unknown option {key!r} of optimizer {name}{did_you_mean(key, accepted)}" for key in unknown])
    if "fused" in accepted:
        options.setdefault("fused", True)
    parameters = list(parameters)
    vectors = [] if decays_vectors else [p for p in parameters if p.ndim <= 1]
    decayed = parameters if decays_vectors else [p for p in parameters if p.ndim > 1]
    try:
        made = kind(decayed, **{key: tuple(v) if isinstance(v, list) else v for key, v in options.items()})
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer {name} can't do {config}: {error}") from error
    if vectors:
        made.add_param_group({"params": vectors, "weight_decay": 0.0})
    return made


def learning_rates(optimizers: Iterable[torch.optim.Optimizer], names: Sequence[str]) -> dict[str, float]:
    """Return the learning rates in use, by the key that each is logged under.

    Args:
        optimizers: All optimizers of a module.
        names: One per optimizer, empty for the only or main one. Further optimizers are named by their position.

    Returns:
        ``lr`` or ``<name>_lr``; where the groups of one optimizer differ, each with its position: ``lr_0``, ``lr_1``.
    """
    rates: dict[str, float] = {}
    for position, optimizer in enumerate(optimizers):
        name = names[position] if position < len(names) else str(position)
        key = f"{name}_lr" if name else "lr"
        found = [float(group["lr"]) for group in optimizer.param_groups]
        rates |= {key: found[0]} if len(set(found)) == 1 else {f"{key}_{i}": rate for i, rate in enumerate(found)}
    return rates


def hidden_matrices(network: torch.nn.Module, vocab_size: int) -> list[torch.nn.Parameter]:
    """Return what Muon (Jordan, 2024) is made for: weights of linear and recurrent layers, but the output layer's."""
    layers = [module for module in network.modules() if isinstance(module, (torch.nn.Linear, torch.nn.RNNBase))]
    hidden = [layer for layer in layers if getattr(layer, "out_features", None) != vocab_size]
    return [weight for layer in hidden for weight in layer.parameters() if weight.ndim == 2]
