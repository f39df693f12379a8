"""Beam search: the likeliest text instead of a drawn one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_aigc.sampling.reading import Reader
from lit_aigc.sampling.text import Decode, end_test
from lit_aigc.sampling.tokens import BOUNDARY, Decoding


def beam_search(
    network: Any, prompts: Sequence[Tensor], options: Decoding, decode: Decode | None = None
) -> list[list[int]]:
    """The likeliest text of each prompt that a search with ``options.beams`` candidates finds.

    Candidates are ranked by the sum of their log-probabilities (of the penalized logits, the boundary that ends a text
    included) over their number of tokens to the power of ``options.length_penalty`` (Wu et al., 2016, with a plain
    power). The search ends when no candidate can come to beat the best text that has ended.

    Returns:
        Token ids, without the boundary.
    """
    ended = end_test(options.stop, decode)
    beams, power = options.beams, options.length_penalty
    best: list[tuple[float, list[int]]] = [(-math.inf, []) for _ in prompts]
    reader = Reader(network, prompts)
    starts = [len(text) for text in reader.texts]
    searched = list(range(len(prompts)))
    reader.keep(torch.arange(len(prompts)).repeat_interleave(beams))
    scores = torch.tensor([0.0] + [-math.inf] * (beams - 1), dtype=torch.float64).repeat(len(prompts), 1)
    for length in range(1, options.max_tokens + 1):
        logits = options.penalized(reader.logits, reader.seen).double().log_softmax(1).cpu()
        width = logits.shape[1]
        sums = (scores[:, :, None] + logits.view(len(searched), beams, width)).flatten(1)
        likeliest = sums.topk(min(2 * beams, sums.shape[1]))
        kept: list[tuple[int, int, float]] = []  # row, next token and score
        still = []
        for place, prompt in enumerate(searched):
            open_ended: list[tuple[int, int, float]] = []
            for score, entry in zip(likeliest.values[place].tolist(), likeliest.indices[place].tolist(), strict=True):
                row, token = place * beams + entry // width, entry % width
                text = reader.texts[row][starts[prompt] :]
                if score == -math.inf:
                    break
                if length < options.max_tokens and not ended(text, token):
                    open_ended.append((row, token, score))
                else:
                    whole = text if token == BOUNDARY else [*text, token]
                    best[prompt] = max(best[prompt], (score / length**power, whole), key=lambda entry: entry[0])
            if open_ended and open_ended[0][2] / options.max_tokens**power > best[prompt][0]:
                still.append(prompt)
                empty = (open_ended[0][0], BOUNDARY, -math.inf)
                kept += (open_ended + [empty] * beams)[:beams]
        if not still:
            break
        searched = still
        reader.keep(torch.tensor([row for row, _, _ in kept]))
        reader.append(torch.tensor([token for _, token, _ in kept]))
        scores = torch.tensor([score for _, _, score in kept], dtype=torch.float64).view(-1, beams)
    return [text for _, text in best]
