"""Prompts of language models: from text to token ids."""

from __future__ import annotations

from typing import Any

import torch

from lit_aigc.errors import InputError
from lit_aigc.modules.translation import Translator

_SHOWN = 60  # characters of a prompt in a message


def encode_prompt(prompt: str, module: Any) -> torch.Tensor:
    """``(T,)`` int64 ids of a prompt.

    Raises:
        InputError: If it has characters or words that training never saw.
    """
    if unknown := module.tokenizer.unknown(prompt):
        raise InputError(
            f"The prompt {shortened(prompt)} has what the model never saw in training: "
            f"{', '.join(map(repr, unknown))}. Leave it out, or write it otherwise."
        )
    return torch.tensor(module.tokenizer.encode(prompt).tolist(), dtype=torch.int64)


def start_of(prompt: str, module: Any) -> str:
    """What a text from a prompt begins with: the prompt, but nothing where the text is a translation of it."""
    return prompt + module.tokenizer.separator if prompt and not isinstance(module, Translator) else ""


def shortened(prompt: str) -> str:
    """Quote a prompt, cut to what fits in a message."""
    return repr(prompt if len(prompt) <= _SHOWN else f"{prompt[: _SHOWN - 1]}…")
