"""A transformer that reads one text and writes another."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from lit_aigc.errors import at_least, check
from lit_aigc.networks import transformer
from lit_aigc.networks.layers.attention import masked_attention
from lit_aigc.networks.layers.key_value_cache import CacheSlots, KeyValueCache
from lit_aigc.networks.layers.pointwise import rms_norm
from lit_aigc.networks.transformer import Activation, Norm

Memory = list[tuple[Tensor, Tensor]]
"""Keys and values of a source, ``(N, heads, S, d)`` each, for each block of the decoder."""


class CrossAttention(nn.Module):
    """Attention of the target to the source (Vaswani et al., 2017).

    Args:
        width: Width of both residual streams.
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
        """Map encoded source ``(N, S, width)`` to keys and values ``(N, heads, S, d)``."""
        k, v = self.answer(source).unflatten(2, (2 * self.heads, -1)).transpose(1, 2).chunk(2, dim=1)
        return rms_norm(k) if self.qk_norm else k, v

    def forward(self, x: Tensor, memory: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Map ``(N, T, width)`` to the same shape; ``mask`` (N, S) is false on the padding of the source."""
        q = self.ask(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, heads, T, d)
        h = masked_attention(rms_norm(q) if self.qk_norm else q, *memory, mask)
        return self.project(h.transpose(1, 2).flatten(2))


class DecoderBlock(transformer.Block):
    """Causal attention, attention to the source, and a hidden layer, each a pre-normalized residual branch."""

    def __init__(
        self, width: int, heads: int, hidden: int, norm: Norm, activation: Activation, qk_norm: bool, bias: bool,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__(width, heads, hidden, norm, activation, qk_norm, bias, dropout)
        self.source_norm = transformer.make_norm(norm, width, bias)
        self.source_attention = CrossAttention(width, heads, qk_norm, bias)

    def forward(self, x: Tensor, *options: Any, memory: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Map ``(N, T, width)`` to the same shape; for the options see `Attention`, for the rest `CrossAttention`."""
        x = x + self.dropout(self.attention(self.attention_norm(x), *options))
        x = x + self.dropout(self.source_attention(self.source_norm(x), memory, mask))
        return x + self.dropout(self.hidden(self.hidden_norm(x)))


class SourceCache(KeyValueCache):
    """A cache of rows that each have a source of their own.

    Attributes:
        memory: Keys and values of the sources.
        mask: ``(N, S)`` bool, false on the padding of the sources.
    """

    memory: Memory
    mask: Tensor

    def select(self, rows: Tensor) -> SourceCache:
        """See `KeyValueCache.select`."""
        chosen = super().select(rows)
        chosen.memory = [(k[rows], v[rows]) for k, v in self.memory]
        chosen.mask = self.mask[rows]
        return chosen


class EncoderDecoder(nn.Module):
    """The distribution of each token given those before it and a source; both and the output share one embedding.

    Args:
        vocab_size: Number of tokens, of source and target alike.
        width: Width of the residual streams.
        encoder_layers: Number of blocks of the encoder.
        decoder_layers: Number of blocks of the decoder.
        heads: Heads of each attention; divides `width`.
        hidden: Width of the hidden layers; None: four times `width`.
        norm: ``rms`` or ``layer``.
        activation: ``relu2``, ``swiglu`` or ``gelu``.
        qk_norm: Whether attention compares normalized queries and keys.
        bias: Whether linear layers and LayerNorm have biases.
        dropout: Dropout of the embedding and of each residual branch.

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
        layers = {"encoder_layers": encoder_layers, "decoder_layers": decoder_layers}
        check(
            *at_least(1, "network.", width=width, heads=heads, **layers),
            ("network.width", width, width % (2 * max(heads, 1)) == 0, f"an even multiple of heads, {heads}"),
            ("network.dropout", dropout, 0 <= dropout < 1, "a share in [0, 1)"),
        )
        options = (width, heads, hidden or 4 * width, norm, activation, qk_norm, bias, dropout)
        self.vocab_size, self.heads = vocab_size, heads
        self.embedding = nn.Embedding(vocab_size, width)
        self.embedding_norm = transformer.make_norm(norm, width, bias)
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.ModuleList(transformer.Block(*options) for _ in range(encoder_layers))
        self.encoder_norm = transformer.make_norm(norm, width, bias)
        self.decoder = nn.ModuleList(DecoderBlock(*options) for _ in range(decoder_layers))
        self.norm = transformer.make_norm(norm, width, bias)
        self.head = nn.Linear(width, vocab_size, bias=False)
        self._initialize()
        self.head.weight = self.embedding.weight

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, module.weight.shape[1] ** -0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, (transformer.Attention, CrossAttention)):
                nn.init.zeros_(module.project.weight)
            if isinstance(module, transformer.FeedForward):
                nn.init.zeros_(module.shrink.weight)
        nn.init.normal_(self.embedding.weight, 0.0, 0.02)

    def encode(self, source: Tensor, mask: Tensor) -> Memory:
        """Map sources ``(N, S)`` and their mask ``(N, S)``, false on padding, to what the decoder attends to."""
        x = self._embedded(source)
        angles = self._rotary_angles(torch.arange(source.shape[1], device=source.device)[None])
        for block in self.encoder:
            x = block(x, angles, mask=mask)
        x = self.encoder_norm(x)
        return [block.source_attention.remember(x) for block in self.decoder]

    def forward(self, ids: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """Map tokens and their sources to the logits of what follows each.

        Args:
            ids: ``(N, T)`` int64, the target so far.
            source: ``(N, S)`` int64.
            mask: ``(N, S)`` bool, false on the padding of the source.

        Returns:
            ``(N, T, vocab_size)``.
        """
        return self._decode(ids, self.encode(source, mask), mask)

    def _decode(
        self,
        ids: Tensor,
        memory: Memory,
        mask: Tensor,
        cache: KeyValueCache | None = None,
        slots: CacheSlots | None = None,
    ) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)[None] if slots is None else slots.positions
        x, angles = self._embedded(ids), self._rotary_angles(positions)
        for i, block in enumerate(self.decoder):
            cached = None if cache is None else cache.blocks[i]
            x = block(x, angles, cached, slots, memory=memory[i], mask=mask)
        return self.head(self.norm(x))

    def _embedded(self, ids: Tensor) -> Tensor:
        return self.dropout(self.embedding_norm(transformer.to_autocast_dtype(self.embedding(ids))))

    def _rotary_angles(self, positions: Tensor) -> Tensor:
        return transformer.rotary_angles(positions, self.embedding.weight.shape[1] // self.heads)


@dataclasses.dataclass(frozen=True)
class ConditionalLanguageModel:
    """An `EncoderDecoder` that looks like a language model: row i continues the translation of source i.

    Attributes:
        network: The network.
        source: ``(N, S)`` int64.
        mask: ``(N, S)`` bool, false on the padding.
        context: 0, since a text may have any length.
        rows_differ: True: equal beginnings have different continuations.
    """

    network: EncoderDecoder
    source: Tensor
    mask: Tensor
    context: int = 0
    rows_differ: bool = True

    def parameters(self) -> object:
        """Return the parameters of the network."""
        return self.network.parameters()

    def new_cache(self, n: int) -> SourceCache:
        """Return an empty cache of all rows, with the sources encoded."""
        network = self.network
        weight = network.embedding.weight
        d = weight.shape[1] // network.heads
        cache = SourceCache.empty(n, len(network.decoder), network.heads, d, weight)
        cache.memory, cache.mask = network.encode(self.source, self.mask), self.mask
        return cache

    def __call__(self, ids: Tensor, cache: SourceCache, lengths: Tensor | None = None) -> Tensor:
        """Map tokens that continue a cache to the logits of what follows each, ``(N, T)`` to ``(N, T, V)``."""
        return self.network._decode(ids, cache.memory, cache.mask, cache, cache.extend(ids, lengths))
