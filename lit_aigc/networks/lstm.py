"""Recurrent networks over tokens, LSTM or GRU, regularized as AWD-LSTM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lit_aigc.errors import InputError
from lit_aigc.networks.layers.ngrams import NgramEmbedding
from lit_aigc.networks.layers.pointwise import rms_norm

_CELLS = {"lstm": (nn.LSTM, torch.lstm, 2), "gru": (nn.GRU, torch.gru, 1)}


class State:
    """What a recurrent network remembers of each row.

    Attributes:
        lengths: ``(N,)`` int64 tokens read of each row.
        tail: ``(N, n)`` int64, the last few of them, for n-grams; 0 before the first.
        layers: Of each layer its states, ``(1, N, width)`` each: hidden and cell of an LSTM, hidden of a GRU.
    """

    def __init__(self, lengths: Tensor, tail: Tensor, layers: list[tuple[Tensor, ...]]) -> None:
        self.lengths, self.tail, self.layers = lengths, tail, layers

    def select(self, rows: Tensor) -> State:
        """The state of other rows: some of these ``(n,)``, in any order, any of them several times."""
        return State(self.lengths[rows], self.tail[rows], [tuple(s[:, rows] for s in layer) for layer in self.layers])

    def join(self, other: State) -> State:
        """The state of these rows and then those of another."""
        layers = zip(self.layers, other.layers, strict=True)
        return State(
            torch.cat([self.lengths, other.lengths]),
            torch.cat([self.tail, other.tail]),
            [tuple(torch.cat(pair, dim=1) for pair in zip(*both, strict=True)) for both in layers],
        )

    def detach(self) -> State:
        """The same without a gradient's way back: where backpropagation through time is truncated."""
        return self.converted(Tensor.detach)

    def converted(self, function: Callable[[Tensor], Tensor]) -> State:
        """The state with a function applied to each of its tensors."""
        layers = [tuple(function(s) for s in layer) for layer in self.layers]
        return State(function(self.lengths), function(self.tail), layers)


class Recurrent(nn.Module):
    """The distribution of each token given all before it, which a state of fixed size stands for.

    Args:
        vocab_size: Number of tokens.
        width: Of the embedding and of the states.
        layers: Number of layers.
        cell: ``lstm`` or ``gru``.
        dropout: On what a layer reads and on what the last gives: whole coordinates over the whole row (variational
            dropout, Gal and Ghahramani, 2016).
        word_dropout: Share of the vocabulary whose embedding is left out of a batch, wherever the token stands in it
            (Gal and Ghahramani, 2016); as an output it stays.
        weight_drop: Dropout of the weights from state to state (Merity et al., AWD-LSTM, 2018).
        tied: Whether the output layer has the weights of the embedding.
        residual: Whether each layer reads a normalized sum of all before it, and adds to it, as in a transformer: what
            the last tokens say by themselves then needs no layer to get through.
        ngrams: Lengths of n-grams whose hashes have embeddings too; see `NgramEmbedding`.
        ngram_buckets: Size of each table of them.
        ngram_dropout: Share of those embeddings that are left out in training.

    Attributes:
        context: 0: a state holds a row of any length.

    Raises:
        InputError: If an option is out of range.
    """

    context = 0

    def __init__(
        self,
        vocab_size: int,
        width: int = 256,
        layers: int = 2,
        cell: Literal["lstm", "gru"] = "lstm",
        dropout: float = 0.0,
        word_dropout: float = 0.0,
        weight_drop: float = 0.0,
        tied: bool = True,
        residual: bool = True,
        ngrams: Sequence[int] = (),
        ngram_buckets: int = 8192,
        ngram_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        shares = {"dropout": dropout, "word_dropout": word_dropout, "weight_drop": weight_drop}
        if min(width, layers) < 1 or not all(0 <= share < 1 for share in shares.values()):
            given = ", ".join(f"network.{name}={value}" for name, value in shares.items())
            raise InputError(
                f"network.width={width}, network.layers={layers}, {given}: expected sizes of 1 or more and shares in "
                "[0, 1)."
            )
        kind, self._function, self._states = _CELLS[cell]
        self.vocab_size, self.residual = vocab_size, residual
        self.dropout, self.word_dropout, self.weight_drop = dropout, word_dropout, weight_drop
        self.embedding = nn.Embedding(vocab_size, width)
        self.ngrams = NgramEmbedding(width, ngrams, ngram_buckets, ngram_dropout) if ngrams else None
        self.layers = nn.ModuleList(kind(width, width, batch_first=True) for _ in range(layers))
        self.head = nn.Linear(width, vocab_size)
        self._initialize()
        if tied:
            self.head.weight = self.embedding.weight
            if residual:  # what a token reads would be what it predicts, by a logit of width * std
                nn.init.normal_(self.embedding.weight, 0.0, 0.01)

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, 0.0, 0.1)
        nn.init.zeros_(self.head.bias)
        nn.init.normal_(self.head.weight, 0.0, 0.1)
        for layer in self.layers:
            for name, weight in layer.named_parameters():
                if name.startswith("weight_hh"):
                    for gate in weight.split(layer.hidden_size):
                        nn.init.orthogonal_(gate)
                elif name.startswith("weight_ih"):
                    nn.init.xavier_uniform_(weight)
                else:
                    nn.init.zeros_(weight)
            if isinstance(layer, nn.LSTM):  # forget little at first (Jozefowicz et al., 2015)
                nn.init.ones_(layer.bias_ih_l0[layer.hidden_size : 2 * layer.hidden_size])

    def new_cache(self, n: int) -> State:
        """The state of n rows that nothing was read of."""
        weight = self.embedding.weight
        tail = torch.zeros(n, max(self.ngrams.lengths) - 1 if self.ngrams else 0, dtype=torch.int64)
        layers = [(weight.new_zeros(1, n, layer.hidden_size),) * self._states for layer in self.layers]
        return State(torch.zeros(n, dtype=torch.int64, device=weight.device), tail.to(weight.device), layers)

    def forward(self, ids: Tensor, cache: State | None = None, lengths: Tensor | None = None) -> Tensor:
        """Tokens to the logits of what follows each: ``(N, T)`` to ``(N, T, vocab_size)``.

        Args:
            ids: Tokens, int64; with a state, those that go on from it.
            cache: Of the same rows; it moves on to the end of these tokens.
            lengths: ``(N,)`` int64, 1 or more: of row i the first ``lengths[i]`` tokens are real, and only they are
                read.
        """
        state = self.new_cache(len(ids)) if cache is None else cache
        x = self._embed(ids)
        if self.ngrams is not None:
            x = x + self._ngrams(ids, state, lengths)
        for i, layer in enumerate(self.layers):
            given = rms_norm(x) if self.residual else x
            y, state.layers[i] = self._run(layer, self._drop(given), state.layers[i], lengths)
            x = x + y if self.residual else y
        state.lengths = state.lengths + (ids.shape[1] if lengths is None else lengths)
        return self.head(self._drop(rms_norm(x) if self.residual else x))

    def _embed(self, ids: Tensor) -> Tensor:
        """``(N, T)`` to ``(N, T, width)``, in training without some of the vocabulary."""
        weight = self.embedding.weight
        if self.training and self.word_dropout:
            weight = weight * F.dropout(weight.new_ones(self.vocab_size, 1), self.word_dropout)
        return F.embedding(ids, weight)

    def _ngrams(self, ids: Tensor, state: State, lengths: Tensor | None) -> Tensor:
        known = state.tail.shape[1]
        joined = torch.cat([state.tail, ids], dim=1)  # (N, known + T)
        ends = ids.shape[1] if lengths is None else lengths[:, None]
        last = ends + torch.arange(known, device=ids.device).expand(len(ids), known)
        state.tail = joined.gather(1, last)
        return self.ngrams(joined)[:, known:]

    def _run(
        self, layer: nn.LSTM | nn.GRU, x: Tensor, states: tuple[Tensor, ...], lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        if x.device.type == "cuda" and torch.is_autocast_enabled("cuda"):
            # Autocast would run cuDNN in float16, whatever its own precision is, with nothing to scale the gradients.
            with torch.autocast("cuda", enabled=False):
                return self._run(layer, x.float(), tuple(state.float() for state in states), lengths)
        given = states if self._states == 2 else states[0]
        if lengths is not None:
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            y, end = layer(packed, given)
            y = pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0]
            return y, end if self._states == 2 else (end,)
        weights = list(layer.parameters())  # from input, from state, and their biases
        if self.training and self.weight_drop:
            weights[1] = F.dropout(weights[1], self.weight_drop)
        y, *end = self._function(x, given, weights, True, 1, 0.0, self.training, False, True)
        return y, tuple(end)

    def _drop(self, x: Tensor) -> Tensor:
        """Variational dropout of ``(N, T, width)``: the same coordinates at all T."""
        if not (self.training and self.dropout):
            return x
        return x * F.dropout(x.new_ones(len(x), 1, x.shape[2]), self.dropout)
