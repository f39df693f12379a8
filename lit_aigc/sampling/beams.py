"""Beam search: the likeliest text instead of a random one."""

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
    """Return the likeliest text of each prompt that a search with ``options.beams`` candidates finds.

    The score of a candidate is the sum of its log-probabilities (of penalized logits, including the boundary that ends
    a text) divided by its number of tokens to the power of ``options.length_penalty`` (Wu et al., 2016, with a plain
    power). The search ends when no candidate can beat the best finished text any more.

    Returns:
        Token ids, without the boundary.
    """
    ended = end_test(options.stop, decode)
    beams, power = options.beams, options.length_penalty
    best: list[tuple[float, list[int]]] = [(-math.inf, []) for _ in prompts]  # score and text
    reader = Reader(network, prompts)
    starts = [len(text) for text in reader.texts]

    # Each active prompt has `beams` rows, one per candidate. They start equal, so only the first one counts.
    active = list(range(len(prompts)))
    reader.keep(torch.arange(len(prompts)).repeat_interleave(beams))
    sums = torch.tensor([0.0] + [-math.inf] * (beams - 1), dtype=torch.float64).repeat(len(prompts), 1)

    for length in range(1, options.max_tokens + 1):
        log_p = options.penalized(reader.logits, reader.seen).double().log_softmax(1).cpu()
        width = log_p.shape[1]
        extended = (sums[:, :, None] + log_p.view(len(active), beams, width)).flatten(1)  # (prompts, beams * width)
        # At most one extension of each candidate ends it by the boundary, so 2 * beams leave enough to continue with,
        # unless stop strings end more.
        top = extended.topk(min(2 * beams, extended.shape[1]))

        still_active = []
        kept: list[tuple[int, int, float]] = []  # row, next token and sum of each candidate
        for index, prompt in enumerate(active):
            candidates: list[tuple[int, int, float]] = []
            for total, entry in zip(top.values[index].tolist(), top.indices[index].tolist(), strict=True):
                if total == -math.inf:
                    break
                row, token = index * beams + entry // width, entry % width
                text = reader.texts[row][starts[prompt] :]
                if length < options.max_tokens and not ended(text, token):
                    candidates.append((row, token, total))
                    continue
                if token != BOUNDARY:
                    text = [*text, token]
                best[prompt] = max(best[prompt], (total / length**power, text), key=lambda scored: scored[0])

            # A sum only falls, so this is the best score that any continuation can reach.
            if candidates and candidates[0][2] / options.max_tokens**power > best[prompt][0]:
                still_active.append(prompt)
                padding = (candidates[0][0], BOUNDARY, -math.inf)
                kept += (candidates + [padding] * beams)[:beams]
        if not still_active:
            break
        active = still_active
        reader.keep(torch.tensor([row for row, _, _ in kept]))
        reader.append(torch.tensor([token for _, token, _ in kept]))
        sums = torch.tensor([total for _, _, total in kept], dtype=torch.float64).view(-1, beams)
    return [text for _, text in best]
