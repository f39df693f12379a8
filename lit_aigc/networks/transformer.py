"""A causal transformer over tokens: GPT-2's block and its modern variants as options of one network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_aigc.errors import at_least, check
from lit_aigc.networks.layers.attention import causal_attention, masked_attention
from lit_aigc.networks.layers.key_value_cache import CacheSlots, KeyValueCache, cached_attention
from lit_aigc.networks.layers.ngrams import NgramEmbedding
from lit_aigc.networks.layers.pointwise import rms_norm, rotate, squared_relu

Norm = Literal["rms", "layer"]
Activation = Literal["relu2", "swiglu", "gelu"]
_ROTARY_BASE = 10_000.0


class Attention(nn.Module):
    """Self-attention (Vaswani et al., 2017).

    Args:
        width: Width of the residual stream.
        heads: Number of heads; divides `width`.
        qk_norm: Whether queries and keys are normalized, which bounds the logits of attention (Henry et al., 2020).
        bias: Whether the linear layers have biases.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool, bias: bool) -> None:
        super().__init__()
        self.heads, self.qk_norm = heads, qk_norm
        self.attend = nn.Linear(width, 3 * width, bias)
        self.project = nn.Linear(width, width, bias)

    def forward(
        self,
        x: Tensor,
        angles: Tensor | None = None,
        cached: Tensor | None = None,
        slots: CacheSlots | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Map ``(N, T, width)`` to the same shape, causally unless a `mask` is given.

        Args:
            x: New positions.
            angles: Cosines and sines for rotary positions (RoPE, Su et al., 2021), ``(2, N or 1, T, 1, d / 2)``; see
                `rotary_angles`.
            cached: ``(2, N, heads, room, d)`` keys and values of a cache; those of `x` are written to it.
            slots: Where in the cache to write them.
            mask: ``(N, T)`` bool, the positions that every position attends to.
        """
        qkv = self.attend(x).unflatten(2, (3, self.heads, -1))  # (N, T, 3, heads, d)
        qk, v = qkv[:, :, :2].flatten(2, 3), qkv[:, :, 2]  # (N, T, 2 heads, d), (N, T, heads, d)
        # Queries and keys are treated alike, so one pass over both does the work.
        if self.qk_norm:
            qk = rms_norm(qk)
        if angles is not None:
            qk = rotate(qk, *angles)
        q, k = qk.transpose(1, 2).chunk(2, dim=1)  # (N, heads, T, d)
        v = v.transpose(1, 2)

        # Three kinds of attention: to given positions, causal within x, and causal with what the cache holds.
        if mask is not None:
            h = masked_attention(q, k, v, mask)
        elif cached is None:
            h = causal_attention(q, k, v)
        else:
            h = cached_attention(q, k, v, cached, slots)
        return self.project(h.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """A hidden layer, applied to each position.

    Args:
        width: Width of the residual stream.
        hidden: Width of the hidden layer.
        activation: ``relu2`` (squared ReLU, So et al., 2021), ``swiglu`` (Shazeer, 2020) or ``gelu``.
        bias: Whether the linear layers have biases.
    """

    def __init__(self, width: int, hidden: int, activation: Activation, bias: bool) -> None:
        super().__init__()
        self.activation = activation
        self.expand = nn.Linear(width, 2 * hidden if activation == "swiglu" else hidden, bias)
        self.shrink = nn.Linear(hidden, width, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, T, width)`` to the same shape."""
        h = self.expand(x)
        if self.activation == "swiglu":
            h, gate = h.chunk(2, dim=-1)
            h = h * F.silu(gate)
        elif self.activation == "relu2":
            h = squared_relu(h)
        else:
            h = F.gelu(h)
        return self.shrink(h)


class Block(nn.Module):
    """Attention and a hidden layer, each a pre-normalized residual branch."""

    def __init__(
        self, width: int, heads: int, hidden: int, norm: Norm, activation: Activation, qk_norm: bool, bias: bool,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attention_norm = make_norm(norm, width, bias)
        self.attention = Attention(width, heads, qk_norm, bias)
        self.hidden_norm = make_norm(norm, width, bias)
        self.hidden = FeedForward(width, hidden, activation, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, *options: Any, mask: Tensor | None = None) -> Tensor:
        """Map ``(N, T, width)`` to the same shape; for the options see `Attention`."""
        x = x + self.dropout(self.attention(self.attention_norm(x), *options, mask=mask))
        return x + self.dropout(self.hidden(self.hidden_norm(x)))


def make_norm(kind: Norm, width: int, bias: bool = False) -> nn.Module:
    """Make an RMSNorm (Zhang and Sennrich, 2019) or LayerNorm over the last dimension."""
    return RMSNorm() if kind == "rms" else nn.LayerNorm(width, bias=bias)


class RMSNorm(nn.Module):
    """`rms_norm` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(…, width)`` to the same shape."""
        return rms_norm(x)


class Transformer(nn.Module):
    """The distribution of each token given those before it.

    The defaults are a modern small model; GPT-2 is ``positions=learned norm=layer activation=gelu qk_norm=false
    soft_cap=0 tied=true bias=true``.

    Args:
        vocab_size: Number of tokens.
        shape: ``(T,)``: the context, the most tokens that are read at once.
        width: Width of the residual stream.
        layers: Number of blocks.
        heads: Heads of each attention; divides `width`.
        hidden: Width of the hidden layers; None: four times `width` (8/3 for SwiGLU, which has as many weights then).
        positions: ``rotary`` or ``learned``.
        norm: ``rms`` or ``layer``.
        activation: ``relu2``, ``swiglu`` or ``gelu``.
        qk_norm: Whether attention compares normalized queries and keys.
        soft_cap: Bound of the logits, which a tanh squashes into (-cap, cap) (Gemma 2); 0: no bound.
        tied: Whether the output layer shares the weights of the embedding.
        bias: Whether linear layers and LayerNorm have biases.
        head_bias: Whether the output layer has a bias.
        dropout: Dropout of the embedding and of each residual branch.
        ngrams: Lengths of the n-grams whose hashes are embedded as well, such as [2, 3, 4]; see `NgramEmbedding`.
        ngram_buckets: Rows of the table of each length.
        ngram_dropout: Share of the n-gram embeddings that are dropped in training.

    Attributes:
        context: The most tokens that a cache may hold.

    Raises:
        InputError: If an option is out of range.
    """

    def __init__(
        self,
        vocab_size: int,
        shape: Sequence[int],
        width: int = 192,
        layers: int = 6,
        heads: int = 6,
        hidden: int | None = None,
        positions: Literal["rotary", "learned"] = "rotary",
        norm: Norm = "rms",
        activation: Activation = "relu2",
        qk_norm: bool = True,
        soft_cap: float = 15.0,
        tied: bool = False,
        bias: bool = False,
        head_bias: bool = False,
        dropout: float = 0.0,
        ngrams: Sequence[int] = (),
        ngram_buckets: int = 8192,
        ngram_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        even = "an even multiple of heads" if positions == "rotary" else "a multiple of heads"
        fits = width % (max(heads, 1) * (2 if positions == "rotary" else 1)) == 0
        check(
            *at_least(1, "network.", width=width, layers=layers, heads=heads),
            ("network.width", width, fits, f"{even}, {heads}"),
            ("network.dropout", dropout, 0 <= dropout < 1, "a share in [0, 1)"),
            ("network.soft_cap", soft_cap, 0 <= soft_cap < math.inf, "a number of 0 or more"),
        )
        if hidden is None:
            hidden = round(8 / 3 * width / 8) * 8 if activation == "swiglu" else 4 * width
        self.vocab_size = vocab_size
        self.context = shape[0]
        self.soft_cap = soft_cap
        self.heads = heads
        self.rotary = positions == "rotary"

        # What is read: tokens, if wanted the n-grams that end at them, and learned positions unless they are rotary.
        self.embedding = nn.Embedding(vocab_size, width)
        self.ngrams = NgramEmbedding(width, ngrams, ngram_buckets, ngram_dropout) if ngrams else None
        self.positions = None if self.rotary else nn.Embedding(self.context, width)
        self.dropout = nn.Dropout(dropout)
        self.embedding_norm = make_norm(norm, width, bias) if self.rotary else nn.Identity()

        self.blocks = nn.ModuleList(
            Block(width, heads, hidden, norm, activation, qk_norm, bias, dropout) for _ in range(layers)
        )
        self.norm = make_norm(norm, width, bias)
        self.head = nn.Linear(width, vocab_size, bias=head_bias)
        self._initialize()
        if tied:
            self.head.weight = self.embedding.weight
            if self.rotary:
                # The embedding is normalized, so with a larger std each token would start by predicting itself, with
                # a logit of width * std.
                nn.init.normal_(self.embedding.weight, 0.0, 1.0 / width)

    def _initialize(self) -> None:
        """Initialize as GPT-2 does, except that linear layers scale with their inputs and each block starts as 0."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                std = module.weight.shape[1] ** -0.5 if isinstance(module, nn.Linear) else 0.02
                nn.init.normal_(module.weight, 0.0, std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        # Residual branches that start at 0 make the network the identity, whatever its depth.
        for block in self.blocks:
            nn.init.zeros_(block.attention.project.weight)
            nn.init.zeros_(block.hidden.shrink.weight)
        nn.init.normal_(self.head.weight, 0.0, 0.02)

    def new_cache(self, n: int) -> KeyValueCache:
        """Return an empty cache of n rows."""
        weight = self.embedding.weight
        return KeyValueCache.empty(n, len(self.blocks), self.heads, weight.shape[1] // self.heads, weight)

    def forward(self, ids: Tensor, cache: KeyValueCache | None = None, lengths: Tensor | None = None) -> Tensor:
        """Map tokens to the logits of what follows each: ``(N, T)`` to ``(N, T, vocab_size)``.

        Args:
            ids: Tokens, int64; with a cache, those that continue what it holds.
            cache: Cache of the same rows; these tokens are added to it.
            lengths: ``(N,)`` int64: the first ``lengths[i]`` tokens of row i are real, and only they are added.
        """
        # Without a cache the tokens are at 0, 1, ...; with one each row continues at its own position.
        slots = None if cache is None else cache.extend(ids, lengths)
        positions = torch.arange(ids.shape[1], device=ids.device)[None] if slots is None else slots.positions

        x = self.embedding(ids)  # (N, T, width)
        if self.ngrams is not None:
            # The n-grams of new tokens reach back into the cache.
            x = x + (self.ngrams(ids) if cache is None else self.ngrams(cache.ids, positions))
        if self.positions is not None:
            # Padding may lie beyond the context; nothing looks at it.
            x = x + self.positions(positions.clamp_max(self.context - 1))
        x = self.dropout(self.embedding_norm(to_autocast_dtype(x)))

        angles = rotary_angles(positions, x.shape[2] // self.heads) if self.rotary else None
        for i, block in enumerate(self.blocks):
            x = block(x, angles, None if cache is None else cache.blocks[i], slots)

        logits = self.head(self.norm(x))  # (N, T, vocab_size)
        if self.soft_cap:
            logits = self.soft_cap * torch.tanh(logits.float() / self.soft_cap)
        return logits


def rotary_angles(positions: Tensor, d: int) -> Tensor:
    """Map positions ``(N, T)`` to cosines and sines of their rotary angles, ``(2, N, T, 1, d / 2)``.

    Args:
        positions: ``(N, T)`` int64.
        d: Width of a head.
    """
    speeds = _ROTARY_BASE ** (-torch.arange(d // 2, device=positions.device) / (d // 2))
    angles = (positions[:, :, None].float() * speeds)[:, :, None]
    return torch.stack([angles.cos(), angles.sin()])


def to_autocast_dtype(x: Tensor) -> Tensor:
    """Convert to autocast's precision where that is on.

    The residual stream is most of the memory traffic of a small model, and autocast alone would leave it in float32.
    """
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
