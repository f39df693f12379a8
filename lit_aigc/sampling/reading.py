"""What a language network has read of texts, and expects next; its cache and its context are dealt with here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_aigc.sampling.tokens import BOUNDARY


def longest_start(context: int) -> int:
    """How many tokens a text may start with and be read whole, the boundary before it included; context: not 0.

    An eighth of the context is left for what is written next.
    """
    return context - _stride(context) + 1


class Reader:
    """Texts that a network reads token by token, each after the boundary id 0.

    A text that outgrows the network's context is read anew from about its last half. All texts that are near their
    end of the context are read anew at the same time, every eighth of a context, and from then on are in step; what a
    text is read from depends on its own length alone, so that no text depends on what it shares a batch with.

    Args:
        network: A language network: ``network(ids, cache, lengths) -> logits``, ``network.context`` (0: no limit),
            ``network.new_cache(n)``, if need be ``network.rows_differ`` (what follows depends on more than what was
            read, so no two rows are the same), and of the cache ``select(rows)`` and ``lengths``.
        prompts: What the texts begin with, token ids without the boundary; may be empty.

    Attributes:
        texts: Token ids of each row, prompt included, boundary excluded.
        logits: ``(N, V)`` float32: of the next token of each row.
        seen: ``(N, V)`` bool: the tokens that each row has.
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
        """Go on with some rows, or with repetitions of them, in this order: ``(M,)`` int64."""
        self.texts = [list(self.texts[row]) for row in rows.tolist()]
        rows = rows.to(self.device)
        self.logits, self.seen = self.logits[rows], self.seen[rows]
        self.cache = self.cache.select(rows)

    def append(self, tokens: Tensor) -> None:
        """Read a further token of each row: ``(N,)`` int64."""
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
        """How many of its last tokens each row is to be read anew from; None where all have room."""
        context = self.network.context
        if not context:
            return None
        half, stride = max(1, context // 2), _stride(context)
        phase = self._written % half
        room = min(stride, half - phase)  # tokens until this is asked again
        held = self.cache.lengths.tolist()
        if phase % stride or all(length + room <= context for length in held):
            return None
        anew = min(half + 1 + phase, context)  # so that it is full when the next phase 0 comes
        return [length + 1 if length + room <= context else anew for length in held]

    def _read(self, contexts: list[list[int]]) -> None:
        """Read all rows from nothing; equal ones once."""
        alike = not getattr(self.network, "rows_differ", False)
        distinct = list(dict.fromkeys(map(tuple, contexts))) if alike else list(map(tuple, contexts))
        lengths = torch.tensor([len(ids) for ids in distinct])
        ids = torch.full((len(distinct), int(lengths.max())), BOUNDARY)
        for row, context in enumerate(distinct):
            ids[row, : len(context)] = torch.tensor(context)
        self.cache = self.network.new_cache(len(distinct))
        self.logits = self._forward(ids.to(self.device), lengths.to(self.device))
        if len(distinct) < len(contexts):
            places = {context: row for row, context in enumerate(distinct)}
            rows = torch.tensor([places[tuple(context)] for context in contexts], device=self.device)
            self.logits, self.cache = self.logits[rows], self.cache.select(rows)

    @torch.no_grad()
    def _forward(self, ids: Tensor, lengths: Tensor | None) -> Tensor:
        logits = self.network(ids, cache=self.cache, lengths=lengths)
        if lengths is None:
            return logits[:, -1].float()
        return logits[torch.arange(len(ids), device=ids.device), lengths - 1].float()


def _stride(context: int) -> int:
    return max(1, context // 8)
