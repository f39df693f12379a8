"""What tests of every config know of text."""

from __future__ import annotations

import torch

from lit_aigc.noise import Noise
from lit_aigc.spec import Condition, DataSpec

SPECS = [DataSpec("text", (16,), vocab_size=50)]


def made_up_spec(data: dict) -> DataSpec:
    """A spec as a data config leads to."""
    return DataSpec("text", (data["context"] or 64,), (0, 299), vocab_size=300, name="pydocs")


def check_samples(module, spec: DataSpec) -> None:
    """Samples are ids of the vocabulary, as many as asked for."""
    prompts = Condition(prompts=(torch.tensor([40, 41]),) * 3)
    texts = module.sample(3, condition=prompts, noise=Noise(0), max_tokens=5)
    assert texts.ids.shape == (3, int(texts.lengths.max()))
    assert texts.ids.max() < spec.vocab_size
