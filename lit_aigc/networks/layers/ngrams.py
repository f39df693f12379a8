"""Embeddings of hashed n-grams: the tokens right before a position, looked up instead of computed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_aigc.errors import check

_MASK = 0x7FFFFFFF


class NgramEmbedding(nn.Module):
    """The sum of the embeddings of the n-grams that end at a position, with one table per length n.

    The row of an n-gram is its hash, which different n-grams may share. Before the first token comes token 0. It costs
    next to nothing to compute, and saves the first layers from finding out what the last few tokens were (hashed
    n-grams: Pagnoni et al., "Byte Latent Transformer", 2024; Huang et al., "Over-Tokenized Transformer", 2025).

    Args:
        width: Width of the embeddings.
        lengths: The n of each table, 2 or more.
        buckets: Rows of each table.
        dropout: Share of whole embeddings that are dropped in training, so that the other layers can't leave
            everything to what the table has memorized.

    Raises:
        InputError: If an option is out of range.
    """

    def __init__(self, width: int, lengths: Sequence[int], buckets: int, dropout: float = 0.0) -> None:
        super().__init__()
        check(
            ("network.ngrams", list(lengths), min(lengths) >= 2, "lengths of 2 or more"),
            ("network.ngram_buckets", buckets, buckets >= 1, "1 or more"),
            ("network.ngram_dropout", dropout, 0 <= dropout < 1, "a share in [0, 1)"),
        )
        self.lengths, self.buckets, self.dropout = tuple(lengths), buckets, dropout
        self.table = nn.Embedding(len(self.lengths) * buckets, width)

    def forward(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """Return the embeddings of the n-grams that end at each position.

        Args:
            ids: All tokens of each row, ``(N, length)`` int64.
            positions: ``(N, T)`` int64, the positions to embed; None: all.

        Returns:
            ``(N, T, width)``.
        """
        before = max(self.lengths) - 1
        padded = F.pad(ids, (before, 0))
        if positions is None:
            tokens = padded.unfold(1, before + 1, 1)  # (N, T, n): the token at each position is the last
        else:
            reach = positions[:, :, None] + torch.arange(before + 1, device=ids.device)
            tokens = padded[:, None].expand(-1, positions.shape[1], -1).gather(2, reach)
        embeddings = self.table(self._rows(tokens))  # (N, T, tables, width)
        if self.training and self.dropout:
            embeddings = embeddings * F.dropout(embeddings.new_ones(*embeddings.shape[:3], 1), self.dropout)
        return embeddings.sum(dim=2)

    def _rows(self, tokens: Tensor) -> Tensor:
        """Map ``(N, T, n)`` to ``(N, T, tables)``: the row of each n-gram in the table."""
        hashes, rows = tokens[:, :, -1], []
        for n in range(2, max(self.lengths) + 1):
            hashes = (hashes * 0x9E3779B1 + tokens[:, :, -n] + 1) & _MASK
            if n in self.lengths:
                mixed = ((hashes ^ (hashes >> 15)) * 0x2C1B3C6D) & _MASK
                rows.append(mixed % self.buckets + len(rows) * self.buckets)
        return torch.stack(rows, dim=2)
