"""Text: how samples of it are shown; see `lit_aigc.media.modality`."""

from __future__ import annotations

from lit_aigc.spec import DataSpec

UNIT = "tokens"
PICTURES = False
EXAMPLE = 'bundle=. prompt="..." n=4 max_tokens=300'


def describe(spec: DataSpec) -> str:
    """Return the shape of a text in words; see `lit_aigc.media.modality`."""
    return f"vocabulary {spec.vocab_size:,}, context {spec.shape[0]:,}"
