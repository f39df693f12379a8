"""Text: how samples of it are shown; see `lit_aigc.media.modality`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lit_aigc.sampling.text import to_strings
from lit_aigc.spec import DataSpec, Texts

UNIT = "tokens"
PICTURES = False
EXAMPLE = 'bundle=. prompt="..." n=4 max_tokens=300'


def describe(spec: DataSpec) -> str:
    """Return the shape of a text in words; see `lit_aigc.media.modality`."""
    return f"vocabulary {spec.vocab_size:,}, context {spec.shape[0]:,}"


def decode(samples: Texts, module: Any, stop: Sequence[str] = ()) -> list[str]:
    """Return generated token ids as strings, without their prompts, each up to its first stop string."""
    return to_strings(samples, module.tokenizer.decode, stop)
