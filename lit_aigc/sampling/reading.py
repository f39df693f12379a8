"""Texts that a language model reads token by token: its cache and the limit of its context are handled here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_aigc.sampling.text import padded
from lit_aigc.sampling.tokens import BOUNDARY


def longest_start(context: int) -> int:
    """Return how many tokens, including the boundary, a prompt may have to be read whole; `context` isn't 0.

    An eighth of the context is reserved for new tokens.
    """
    return context - _stride(context) + 1


class Reader:
    """Texts that a network reads token by token, each after the boundary id 0.

    A text that outgrows the network's context is read again from about its last half. All texts near the end of the
    context are read again at the same time, every eighth of a context, and stay in step from then on. Where a text is
    read from depends on its own length alone, so no text depends on the others in its batch.

    Args:
        network: A language model: ``network(ids, cache, lengths) -> logits``, ``network.context`` (0: no limit),
            ``network.new_cache(n)``, optionally ``network.rows_differ`` (the next token depends on more than what was
            read, so no two rows are the same); the cache has ``select(rows)`` and ``lengths``.
        prompts: Beginnings of the texts, token ids without the boundary; may be empty.

    Attributes:
        texts: Token ids of each row, including the prompt and excluding the boundary.
        logits: ``(N, V)`` float32, for the next token of each row.
        seen: ``(N, V)`` bool, the tokens that occur in each row.
    """

    def __init__(self, network: Any, prompts: Sequence[Sequence[int]]) -> None:
        self.network = network
        self.device = next((p.device for p in network.parameters()), torch.device("cpu"))
        self.texts = [[int(token) for token in prompt] for prompt in prompts]
        self._written = 0  # tokens appended to each
        starts = [[BOUNDARY, *text] for text in self.texts]
        self._read([start[-longest_start(network.context) :] if network.context else start for start in starts])
        self.seen = torch.zeros(self.logits.shape, dtype=torch.bool, device=self.device)
        for row, text in enumerate(self.texts):
            self.seen[row, text] = True

    def keep(self, rows: Tensor) -> None:
        """Continue with some of the rows, in this order and with repetitions: ``(M,)`` int64."""
        self.texts = [list(self.texts[row]) for row in rows.tolist()]
        rows = rows.to(self.device)
        self.logits, self.seen = self.logits[rows], self.seen[rows]
        self.cache = self.cache.select(rows)

    def append(self, tokens: Tensor) -> None:
        """Read one more token of each row: ``(N,)`` int64."""
        for text, token in zip(self.texts, tokens.tolist(), strict=True):
            text.append(token)
        tokens = tokens.to(self.device)
        self.seen.scatter_(1, tokens[:, None], True)
        self._written += 1
        windows = self._windows()
        if windows is None:
            self.logits = self._forward(tokens[:, None], None)
        else:
            self._read([[BOUNDARY, *text][-window:] for text, window in zip(self.texts, windows, strict=True)])

    def _windows(self) -> list[int] | None:
        """Return from how many of its last tokens each row has to be read again, or None if all have room."""
        context = self.network.context
        if not context:
            return None
        # The decision is due every `stride` tokens, by a phase that is the same for all texts.
        half, stride = max(1, context // 2), _stride(context)
        phase = self._written % half
        room = min(stride, half - phase)  # tokens until the next decision
        lengths = self.cache.lengths.tolist()
        if phase % stride or all(length + room <= context for length in lengths):
            return None
        window = min(half + 1 + phase, context)  # full when phase 0 comes next
        return [length + 1 if length + room <= context else window for length in lengths]

    def _read(self, contexts: list[list[int]]) -> None:
        """Read all rows with an empty cache; equal rows only once."""
        distinct = list(map(tuple, contexts))
        if not getattr(self.network, "rows_differ", False):
            distinct = list(dict.fromkeys(distinct))
        ids, lengths = padded(distinct)
        self.cache = self.network.new_cache(len(distinct))
        self.logits = self._forward(ids.to(self.device), lengths.to(self.device))
        if len(distinct) < len(contexts):
            places = {context: row for row, context in enumerate(distinct)}
            rows = torch.tensor([places[tuple(context)] for context in contexts], device=self.device)
            self.logits, self.cache = self.logits[rows], self.cache.select(rows)

    @torch.no_grad()
    def _forward(self, ids: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the logits ``(N, V)`` after the last token of each row."""
        logits = self.network(ids, cache=self.cache, lengths=lengths)
        if lengths is None:
            return logits[:, -1].float()
        return logits[torch.arange(len(ids), device=ids.device), lengths - 1].float()


def _stride(context: int) -> int:
    return max(1, context // 8)
