"""Recurrent networks over tokens, LSTM or GRU, regularized as AWD-LSTM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lit_aigc.errors import at_least, check
from lit_aigc.networks.layers.ngrams import NgramEmbedding
from lit_aigc.networks.layers.pointwise import rms_norm

_CELLS = {"lstm": (nn.LSTM, torch.lstm, 2), "gru": (nn.GRU, torch.gru, 1)}


class State:
    """The state of a recurrent network for each row.

    Attributes:
        lengths: ``(N,)`` int64: number of tokens read.
        tail: ``(N, n)`` int64: the last few tokens, for n-grams; 0 before the first.
        layers: For each layer its states, ``(1, N, width)`` each: hidden and cell of an LSTM, hidden of a GRU.
    """

    def __init__(self, lengths: Tensor, tail: Tensor, layers: list[tuple[Tensor, ...]]) -> None:
        self.lengths, self.tail, self.layers = lengths, tail, layers

    def select(self, rows: Tensor) -> State:
        """Return the state of some of these rows, ``(n,)`` int64, in any order and with repetitions."""
        return State(self.lengths[rows], self.tail[rows], [tuple(s[:, rows] for s in layer) for layer in self.layers])

    def join(self, other: State) -> State:
        """Return the state of these rows followed by those of another."""
        layers = zip(self.layers, other.layers, strict=True)
        return State(
            torch.cat([self.lengths, other.lengths]),
            torch.cat([self.tail, other.tail]),
            [tuple(torch.cat(pair, dim=1) for pair in zip(*both, strict=True)) for both in layers],
        )

    def detach(self) -> State:
        """Return the state without its gradient: here backpropagation through time is truncated."""
        return self.converted(Tensor.detach)

    def converted(self, function: Callable[[Tensor], Tensor]) -> State:
        """Return the state with a function applied to each of its tensors."""
        layers = [tuple(function(s) for s in layer) for layer in self.layers]
        return State(function(self.lengths), function(self.tail), layers)


class Recurrent(nn.Module):
    """The distribution of each token given all tokens before it, summarized in a state of fixed size.

    Args:
        vocab_size: Number of tokens.
        width: Width of the embedding and of the states.
        layers: Number of layers.
        cell: ``lstm`` or ``gru``.
        dropout: Dropout of the inputs of all layers and of the last output, of the same coordinates at all positions
            (variational dropout, Gal and Ghahramani, 2016).
        word_dropout: Share of the vocabulary whose embeddings are dropped from a batch, wherever these tokens occur
            (Gal and Ghahramani, 2016); as outputs they stay.
        weight_drop: Dropout of the recurrent weights (Merity et al., AWD-LSTM, 2018).
        tied: Whether the output layer shares the weights of the embedding.
        residual: Whether each layer reads a normalized residual stream and adds to it, as in a transformer. What the
            last tokens tell by themselves then bypasses the layers.
        ngrams: Lengths of the n-grams whose hashes are embedded as well; see `NgramEmbedding`.
        ngram_buckets: Rows of the table of each length.
        ngram_dropout: Share of the n-gram embeddings that are dropped in training.

    Attributes:
        context: 0, since a text may have any length.

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
        check(
            *at_least(1, "network.", width=width, layers=layers),
            *((f"network.{name}", share, 0 <= share < 1, "a share in [0, 1)") for name, share in shares.items()),
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
            if residual:
                # With a larger std each token would start by predicting itself, with a logit of width * std.
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
            if isinstance(layer, nn.LSTM):  # an open forget gate at first (Jozefowicz et al., 2015)
                nn.init.ones_(layer.bias_ih_l0[layer.hidden_size : 2 * layer.hidden_size])

    def new_cache(self, n: int) -> State:
        """Return the state of n rows before their first token."""
        weight = self.embedding.weight
        tail = torch.zeros(n, max(self.ngrams.lengths) - 1 if self.ngrams else 0, dtype=torch.int64)
        layers = [(weight.new_zeros(1, n, layer.hidden_size),) * self._states for layer in self.layers]
        return State(torch.zeros(n, dtype=torch.int64, device=weight.device), tail.to(weight.device), layers)

    def forward(self, ids: Tensor, cache: State | None = None, lengths: Tensor | None = None) -> Tensor:
        """Map tokens to the logits of what follows each: ``(N, T)`` to ``(N, T, vocab_size)``.

        Args:
            ids: Tokens, int64; with a state, those that continue it.
            cache: State of the same rows; it is advanced to the end of these tokens.
            lengths: ``(N,)`` int64, 1 or more: the first ``lengths[i]`` tokens of row i are real, and only they are
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
        """Map ``(N, T)`` to ``(N, T, width)``; in training, `word_dropout` drops some of the vocabulary."""
        weight = self.embedding.weight
        if self.training and self.word_dropout:
            weight = weight * F.dropout(weight.new_ones(self.vocab_size, 1), self.word_dropout)
        return F.embedding(ids, weight)

    def _ngrams(self, ids: Tensor, state: State, lengths: Tensor | None) -> Tensor:
        """Embed n-grams, which may begin in the tail of the state, and update the tail."""
        known = state.tail.shape[1]
        joined = torch.cat([state.tail, ids], dim=1)  # (N, known + T)
        ends = ids.shape[1] if lengths is None else lengths[:, None]
        last = ends + torch.arange(known, device=ids.device).expand(len(ids), known)
        state.tail = joined.gather(1, last)
        return self.ngrams(joined)[:, known:]

    def _run(
        self, layer: nn.LSTM | nn.GRU, x: Tensor, states: tuple[Tensor, ...], lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run one layer, and return its outputs and its new states."""
        if x.device.type == "cuda" and torch.is_autocast_enabled("cuda"):
            # Autocast would run cuDNN in float16 even under bfloat16, with nothing to scale the gradients.
            with torch.autocast("cuda", enabled=False):
                return self._run(layer, x.float(), tuple(state.float() for state in states), lengths)
        given = states if self._states == 2 else states[0]
        if lengths is not None:
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            y, end = layer(packed, given)
            y = pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0]
            return y, end if self._states == 2 else (end,)
        # The functional form, since `weight_drop` needs other weights than the layer's own.
        weights = list(layer.parameters())  # from input, from state, and their biases
        if self.training and self.weight_drop:
            weights[1] = F.dropout(weights[1], self.weight_drop)
        y, *end = self._function(x, given, weights, True, 1, 0.0, self.training, False, True)
        return y, tuple(end)

    def _drop(self, x: Tensor) -> Tensor:
        """Apply variational dropout to ``(N, T, width)``: the same coordinates at all T."""
        if not (self.training and self.dropout):
            return x
        return x * F.dropout(x.new_ones(len(x), 1, x.shape[2]), self.dropout)
