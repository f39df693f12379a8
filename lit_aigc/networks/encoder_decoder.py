"""A transformer that reads one text and writes another."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from lit_aigc.errors import InputError
from lit_aigc.networks.layers.attention import masked_attention
from lit_aigc.networks.layers.key_value_cache import KeyValueCache, Places
from lit_aigc.networks.layers.pointwise import rms_norm
from lit_aigc.networks.transformer import Activation, Attention, Block, FeedForward, Norm, in_autocast, make_norm, turns

Memory = list[tuple[Tensor, Tensor]]
"""Keys and values ``(N, heads, S, d)`` of a source, for each block of the decoder."""


class CrossAttention(nn.Module):
    """Attention of what is written to what was read (Vaswani et al., 2017).

    Args:
        width: Of both residual streams.
        heads: Number of heads; divides `width`.
        qk_norm: Whether queries and keys are normalized.
        bias: Whether the linear layers have biases.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool, bias: bool) -> None:
        super().__init__()
        self.heads, self.qk_norm = heads, qk_norm
        self.ask = nn.Linear(width, width, bias)
        self.answer = nn.Linear(width, 2 * width, bias)
        self.project = nn.Linear(width, width, bias)

    def remember(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded source ``(N, S, width)`` to keys and values ``(N, heads, S, d)``."""
        k, v = self.answer(source).unflatten(2, (2 * self.heads, -1)).transpose(1, 2).chunk(2, dim=1)
        return rms_norm(k) if self.qk_norm else k, v

    def forward(self, x: Tensor, memory: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
        """``(N, T, width)`` to the same shape; ``seen`` (N, S) is false on the padding of the source."""
        q = self.ask(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, heads, T, d)
        h = masked_attention(rms_norm(q) if self.qk_norm else q, *memory, seen)
        return self.project(h.transpose(1, 2).flatten(2))


class EncoderBlock(Block):
    """Attention of each position to all, and a hidden layer, each on normalized input and added to it."""

    def __init__(
        self, width: int, heads: int, hidden: int, norm: Norm, activation: Activation, qk_norm: bool, bias: bool,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__(width, heads, hidden, norm, activation, True, qk_norm, bias, dropout)

    def forward(self, x: Tensor, turn: Tensor, seen: Tensor) -> Tensor:
        """``(N, S, width)`` to the same shape; ``seen`` (N, S) is false on padding."""
        x = x + self.dropout(self.attention(self.attention_norm(x), turn, seen=seen))
        return x + self.dropout(self.hidden(self.hidden_norm(x)))


class DecoderBlock(EncoderBlock):
    """Causal attention, attention to the source, and a hidden layer, each on normalized input and added to it."""

    def __init__(
        self, width: int, heads: int, hidden: int, norm: Norm, activation: Activation, qk_norm: bool, bias: bool,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__(width, heads, hidden, norm, activation, qk_norm, bias, dropout)
        self.source_norm = make_norm(norm, width, bias)
        self.source_attention = CrossAttention(width, heads, qk_norm, bias)

    def forward(
        self,
        x: Tensor,
        turn: Tensor,
        memory: tuple[Tensor, Tensor],
        seen: Tensor,
        held: Tensor | None = None,
        places: Places | None = None,
    ) -> Tensor:
        """``(N, T, width)`` to the same shape; see `Attention` and `CrossAttention`."""
        x = x + self.dropout(self.attention(self.attention_norm(x), turn, held, places))
        x = x + self.dropout(self.source_attention(self.source_norm(x), memory, seen))
        return x + self.dropout(self.hidden(self.hidden_norm(x)))


class SourceCache(KeyValueCache):
    """A cache of rows that are written each from a source of its own.

    Attributes:
        memory: Of the sources.
        seen: ``(N, S)`` bool, false on their padding.
    """

    memory: Memory
    seen: Tensor

    def select(self, rows: Tensor) -> SourceCache:
        """See `KeyValueCache.select`."""
        chosen = super().select(rows)
        chosen.memory = [(k[rows], v[rows]) for k, v in self.memory]
        chosen.seen = self.seen[rows]
        return chosen


class EncoderDecoder(nn.Module):
    """The distribution of each token given those before it and a source, with one embedding for both and the output.

    Args:
        vocab_size: Number of tokens, of source and target alike.
        width: Of the residual streams.
        encoder_layers: Number of blocks that read.
        decoder_layers: Number of blocks that write.
        heads: Of each attention; divides `width`.
        hidden: Of the hidden layers; None is four times the width.
        norm: ``rms`` or ``layer``.
        activation: ``relu2``, ``swiglu`` or ``gelu``.
        qk_norm: Whether attention compares normalized queries and keys.
        bias: Whether linear layers and LayerNorm have biases.
        dropout: On the embedding and on what each block adds.

    Attributes:
        context: 0: a text may have any length.

    Raises:
        InputError: If an option is out of range.
    """

    context = 0

    def __init__(
        self,
        vocab_size: int,
        width: int = 256,
        encoder_layers: int = 3,
        decoder_layers: int = 3,
        heads: int = 4,
        hidden: int | None = None,
        norm: Norm = "rms",
        activation: Activation = "relu2",
        qk_norm: bool = True,
        bias: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if min(width, encoder_layers, decoder_layers, heads) < 1 or width % (2 * heads) or not 0 <= dropout < 1:
            raise InputError(
                f"network.width={width}, network.heads={heads}, network.encoder_layers={encoder_layers}, "
                f"network.decoder_layers={decoder_layers}, network.dropout={dropout}: expected numbers of 1 or more, a "
                "width that is a multiple of heads, by an even number, and a share in [0, 1)."
            )
        options = (width, heads, hidden or 4 * width, norm, activation, qk_norm, bias, dropout)
        self.vocab_size, self.heads = vocab_size, heads
        self.embedding = nn.Embedding(vocab_size, width)
        self.embedding_norm = make_norm(norm, width, bias)
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.ModuleList(EncoderBlock(*options) for _ in range(encoder_layers))
        self.encoder_norm = make_norm(norm, width, bias)
        self.decoder = nn.ModuleList(DecoderBlock(*options) for _ in range(decoder_layers))
        self.norm = make_norm(norm, width, bias)
        self.head = nn.Linear(width, vocab_size, bias=False)
        self._initialize()
        self.head.weight = self.embedding.weight

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, module.weight.shape[1] ** -0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, (Attention, CrossAttention)):
                nn.init.zeros_(module.project.weight)
            if isinstance(module, FeedForward):
                nn.init.zeros_(module.shrink.weight)
        nn.init.normal_(self.embedding.weight, 0.0, 0.02)

    def encode(self, source: Tensor, seen: Tensor) -> Memory:
        """Sources ``(N, S)`` and where they aren't padding, ``(N, S)`` bool, to what the decoder's blocks look at."""
        x = self._embedded(source)
        turn = self._turn(torch.arange(source.shape[1], device=source.device)[None])
        for block in self.encoder:
            x = block(x, turn, seen)
        x = self.encoder_norm(x)
        return [block.source_attention.remember(x) for block in self.decoder]

    def forward(self, ids: Tensor, source: Tensor, seen: Tensor) -> Tensor:
        """Tokens and their sources to the logits of what follows each.

        Args:
            ids: ``(N, T)`` int64, what was written.
            source: ``(N, S)`` int64, what it is written from.
            seen: ``(N, S)`` bool, false on the padding of the source.

        Returns:
            ``(N, T, vocab_size)``.
        """
        return self._decode(ids, self.encode(source, seen), seen)

    def _decode(
        self,
        ids: Tensor,
        memory: Memory,
        seen: Tensor,
        cache: KeyValueCache | None = None,
        places: Places | None = None,
    ) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)[None] if places is None else places.positions
        x, turn = self._embedded(ids), self._turn(positions)
        for i, block in enumerate(self.decoder):
            x = block(x, turn, memory[i], seen, None if cache is None else cache.blocks[i], places)
        return self.head(self.norm(x))

    def _embedded(self, ids: Tensor) -> Tensor:
        return self.dropout(self.embedding_norm(in_autocast(self.embedding(ids))))

    def _turn(self, positions: Tensor) -> Tensor:
        return turns(positions, self.embedding.weight.shape[1] // self.heads)


@dataclasses.dataclass(frozen=True)
class Writer:
    """An `EncoderDecoder` as a language network of what is written from some sources, row by row.

    Attributes:
        network: The network.
        source: ``(N, S)`` int64.
        seen: ``(N, S)`` bool, false on the padding.
        context: 0: a text may have any length.
        rows_differ: That equal beginnings don't go on alike.
    """

    network: EncoderDecoder
    source: Tensor
    seen: Tensor
    context: int = 0
    rows_differ: bool = True

    def parameters(self) -> object:
        """Of the network."""
        return self.network.parameters()

    def new_cache(self, n: int) -> SourceCache:
        """An empty cache of all rows, the sources read."""
        network = self.network
        weight = network.embedding.weight
        d = weight.shape[1] // network.heads
        cache = SourceCache.empty(n, len(network.decoder), network.heads, d, weight)
        cache.memory, cache.seen = network.encode(self.source, self.seen), self.seen
        return cache

    def __call__(self, ids: Tensor, cache: SourceCache, lengths: Tensor | None = None) -> Tensor:
        """Tokens that go on from a cache to the logits of what follows each, ``(N, T)`` to ``(N, T, V)``."""
        return self.network._decode(ids, cache.memory, cache.seen, cache, cache.extend(ids, lengths))
