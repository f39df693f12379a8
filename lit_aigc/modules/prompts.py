"""Prompts of language models: from text to token ids."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_aigc.errors import InputError

_SHOWN = 60  # characters of a prompt in a message


def beginnings(n: int) -> tuple[Tensor, ...]:
    """Return n empty prompts: texts from the start."""
    return (torch.zeros(0, dtype=torch.int64),) * n


def encode_prompt(prompt: str, module: Any) -> Tensor:
    """Return the ids ``(T,)`` int64 of a prompt.

    Raises:
        InputError: If it has characters or words that were not in the training text.
    """
    if unknown := module.tokenizer.unknown(prompt):
        raise InputError(
            f"The prompt {shortened(prompt)} has what the model never saw in training: "
            f"{', '.join(map(repr, unknown))}. Leave it out, or write it differently."
        )
    return torch.tensor(module.tokenizer.encode(prompt).tolist(), dtype=torch.int64)


def start_of(prompt: str, module: Any) -> str:
    """Return the start of a text that a prompt leads to: the prompt, or nothing where the text translates it."""
    return prompt + module.tokenizer.separator if prompt and not module.translates else ""


def shortened(prompt: str) -> str:
    """Quote a prompt, cut to what fits in a message."""
    return repr(prompt if len(prompt) <= _SHOWN else f"{prompt[: _SHOWN - 1]}…")
