"""A language network whose answers can be computed by hand, and that notices what is done to its cache."""

from __future__ import annotations

import pytest
import torch


class Cache:
    """The ids that each row holds."""

    def __init__(self, rows):
        self.rows = rows

    @property
    def lengths(self):
        return torch.tensor([len(row) for row in self.rows])

    def select(self, rows):
        return Cache([list(self.rows[row]) for row in rows.tolist()])


class Network(torch.nn.Module):
    """Logits from the last id, the first id and the number of ids that a row holds, row by row, so exact in any batch.

    Attributes:
        read: How many ids each call read, padding excluded.
    """

    def __init__(self, vocab_size=6, context=0, seed=0, order=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.nn.Parameter(torch.randn(vocab_size, vocab_size, generator=generator))
        self.first = torch.randn(vocab_size, vocab_size, generator=generator) * order
        self.context = context
        self.read = []

    def new_cache(self, n):
        return Cache([[] for _ in range(n)])

    def forward(self, ids, cache=None, lengths=None):
        assert not torch.is_grad_enabled()
        lengths = torch.full((len(ids),), ids.shape[1]) if lengths is None else lengths
        self.read.append(int(lengths.sum()))
        logits = torch.full((*ids.shape, len(self.table)), torch.nan)
        for row, held in enumerate(cache.rows):
            for place in range(int(lengths[row])):
                held.append(int(ids[row, place]))
                logits[row, place] = self.after(held)
            assert not self.context or len(held) <= self.context
        return logits

    def after(self, held):
        """``(V,)`` logits after these ids."""
        return self.table[held[-1]] + self.first[held[0]] + 0.1 * len(held) * self.first[held[-1]]


@pytest.fixture
def network():
    return Network


@pytest.fixture
def letters():
    """The text of ids, ``a`` for 1 and so on, as a tokenizer decodes: the boundary 0 is no character."""
    return lambda ids: "".join(chr(96 + int(i)) for i in ids if i)
