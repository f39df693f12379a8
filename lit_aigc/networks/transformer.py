"""A causal transformer over tokens: GPT-2's block and its younger relations as options of one network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_aigc.errors import InputError
from lit_aigc.networks.layers.attention import causal_attention, masked_attention
from lit_aigc.networks.layers.key_value_cache import KeyValueCache, Places, attend
from lit_aigc.networks.layers.ngrams import NgramEmbedding
from lit_aigc.networks.layers.pointwise import rms_norm, rotate, squared_relu

Norm = Literal["rms", "layer"]
Activation = Literal["relu2", "swiglu", "gelu"]
_ROTARY_BASE = 10_000.0


class Attention(nn.Module):
    """Self-attention (Vaswani et al., 2017).

    Args:
        width: Of the residual stream.
        heads: Number of heads; divides `width`.
        rotary: Whether queries and keys are rotated by their position (RoPE, Su et al., 2021).
        qk_norm: Whether queries and keys are normalized, which bounds the logits of attention (Henry et al., 2020).
        bias: Whether the linear layers have biases.
    """

    def __init__(self, width: int, heads: int, rotary: bool, qk_norm: bool, bias: bool) -> None:
        super().__init__()
        self.heads, self.rotary, self.qk_norm = heads, rotary, qk_norm
        self.attend = nn.Linear(width, 3 * width, bias)
        self.project = nn.Linear(width, width, bias)

    def forward(
        self,
        x: Tensor,
        turn: Tensor | None = None,
        held: Tensor | None = None,
        places: Places | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """``(N, T, width)`` to the same shape, causal unless told what is `seen`.

        Args:
            x: New positions.
            turn: Cosines and sines of their angles, ``(2, N or 1, T, 1, d / 2)``, for rotary positions.
            held: ``(2, N, heads, room, d)`` keys and values of a cache, which those of `x` are added to.
            places: Where to.
            seen: ``(N, T)`` bool: each position looks at all of these.
        """
        qkv = self.attend(x).unflatten(2, (3, self.heads, -1))  # (N, T, 3, heads, d)
        qk, v = qkv[:, :, :2].flatten(2, 3), qkv[:, :, 2]  # (N, T, 2 heads, d), (N, T, heads, d)
        if self.qk_norm:
            qk = rms_norm(qk)
        if turn is not None:
            qk = rotate(qk, *turn)
        q, k = qk.transpose(1, 2).chunk(2, dim=1)  # (N, heads, T, d)
        v = v.transpose(1, 2)
        if seen is not None:
            h = masked_attention(q, k, v, seen)
        elif held is None:
            h = causal_attention(q, k, v)
        else:
            h = attend(q, k, v, held, places)
        return self.project(h.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """A hidden layer at each position.

    Args:
        width: Of the residual stream.
        hidden: Of the hidden layer.
        activation: ``relu2`` (squared ReLU, So et al., 2021), ``swiglu`` (Shazeer, 2020) or ``gelu``.
        bias: Whether the linear layers have biases.
    """

    def __init__(self, width: int, hidden: int, activation: Activation, bias: bool) -> None:
        super().__init__()
        self.activation = activation
        self.expand = nn.Linear(width, 2 * hidden if activation == "swiglu" else hidden, bias)
        self.shrink = nn.Linear(hidden, width, bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, T, width)`` to the same shape."""
        h = self.expand(x)
        if self.activation == "swiglu":
            h, gate = h.chunk(2, dim=-1)
            return self.shrink(h * F.silu(gate))
        return self.shrink(squared_relu(h) if self.activation == "relu2" else F.gelu(h))


class Block(nn.Module):
    """Attention and a hidden layer, each on normalized input and added to it."""

    def __init__(
        self, width: int, heads: int, hidden: int, norm: Norm, activation: Activation, rotary: bool, qk_norm: bool,
        bias: bool, dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attention_norm = make_norm(norm, width, bias)
        self.attention = Attention(width, heads, rotary, qk_norm, bias)
        self.hidden_norm = make_norm(norm, width, bias)
        self.hidden = FeedForward(width, hidden, activation, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, turn: Tensor | None = None, held: Tensor | None = None, places: Places | None = None
    ) -> Tensor:
        """``(N, T, width)`` to the same shape; see `Attention`."""
        x = x + self.dropout(self.attention(self.attention_norm(x), turn, held, places))
        return x + self.dropout(self.hidden(self.hidden_norm(x)))


def make_norm(kind: Norm, width: int, bias: bool = False) -> nn.Module:
    """RMSNorm (Zhang and Sennrich, 2019) or LayerNorm over the last dimension."""
    return RMSNorm() if kind == "rms" else nn.LayerNorm(width, bias=bias)


class RMSNorm(nn.Module):
    """`rms_norm` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """``(…, width)`` to the same shape."""
        return rms_norm(x)


class Transformer(nn.Module):
    """The distribution of each token given those before it.

    The defaults are a small model of today; GPT-2's is ``positions=learned norm=layer activation=gelu qk_norm=false
    soft_cap=0 tied=true bias=true``.

    Args:
        vocab_size: Number of tokens.
        shape: ``(T,)``: the context, the most tokens that are read at once.
        width: Of the residual stream.
        layers: Number of blocks.
        heads: Of each attention; divides `width`.
        hidden: Of the hidden layers; None is four times the width (8/3 for SwiGLU, which has the same weight count).
        positions: ``rotary`` or ``learned``.
        norm: ``rms`` or ``layer``.
        activation: ``relu2``, ``swiglu`` or ``gelu``.
        qk_norm: Whether attention compares normalized queries and keys.
        soft_cap: Logits are squashed into (-cap, cap) by a tanh (Gemma 2); 0 for not.
        tied: Whether the output layer has the weights of the embedding.
        bias: Whether linear layers and LayerNorm have biases.
        head_bias: Whether the output layer has one.
        dropout: On the embedding and on what each block adds.
        ngrams: Lengths of n-grams whose hashes have embeddings too, such as [2, 3, 4]; see `NgramEmbedding`.
        ngram_buckets: Size of each table of them.
        ngram_dropout: Share of those embeddings that are left out in training.

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
        _check(width, layers, heads, positions, dropout, soft_cap)
        if hidden is None:
            hidden = round(8 / 3 * width / 8) * 8 if activation == "swiglu" else 4 * width
        self.vocab_size, self.context = vocab_size, shape[0]
        self.soft_cap, self.heads, self.rotary = soft_cap, heads, positions == "rotary"
        self.embedding = nn.Embedding(vocab_size, width)
        self.ngrams = NgramEmbedding(width, ngrams, ngram_buckets, ngram_dropout) if ngrams else None
        self.positions = None if self.rotary else nn.Embedding(self.context, width)
        self.dropout = nn.Dropout(dropout)
        self.embedding_norm = make_norm(norm, width, bias) if self.rotary else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(width, heads, hidden, norm, activation, self.rotary, qk_norm, bias, dropout) for _ in range(layers)
        )
        self.norm = make_norm(norm, width, bias)
        self.head = nn.Linear(width, vocab_size, bias=head_bias)
        self._initialize()
        if tied:
            self.head.weight = self.embedding.weight
            if self.rotary:  # what a token reads is normalized: it would be what it predicts, by width * std
                nn.init.normal_(self.embedding.weight, 0.0, 1.0 / width)

    def _initialize(self) -> None:
        """Normal of 0.02 as in GPT-2, but what a block adds starts from nothing."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                std = module.weight.shape[1] ** -0.5 if isinstance(module, nn.Linear) else 0.02
                nn.init.normal_(module.weight, 0.0, std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            nn.init.zeros_(block.attention.project.weight)
            nn.init.zeros_(block.hidden.shrink.weight)
        nn.init.normal_(self.head.weight, 0.0, 0.02)

    def new_cache(self, n: int) -> KeyValueCache:
        """An empty cache of n rows."""
        weight = self.embedding.weight
        return KeyValueCache.empty(n, len(self.blocks), self.heads, weight.shape[1] // self.heads, weight)

    def forward(self, ids: Tensor, cache: KeyValueCache | None = None, lengths: Tensor | None = None) -> Tensor:
        """Tokens to the logits of what follows each: ``(N, T)`` to ``(N, T, vocab_size)``.

        Args:
            ids: Tokens, int64; with a cache, those that go on from what it holds.
            cache: Of the same rows; these tokens are added to it.
            lengths: ``(N,)`` int64: of row i the first ``lengths[i]`` tokens are real, and only they are added.
        """
        places = None if cache is None else cache.extend(ids, lengths)
        positions = torch.arange(ids.shape[1], device=ids.device)[None] if places is None else places.positions
        x = self.embedding(ids)  # (N, T, width)
        if self.ngrams is not None:
            x = x + (self.ngrams(ids) if cache is None else self.ngrams(cache.ids, positions))
        if self.positions is not None:
            x = x + self.positions(positions.clamp_max(self.context - 1))
        x = self.dropout(self.embedding_norm(in_autocast(x)))
        turn = turns(positions, x.shape[2] // self.heads) if self.rotary else None
        for i, block in enumerate(self.blocks):
            x = block(x, turn, None if cache is None else cache.blocks[i], places)
        logits = self.head(self.norm(x))
        return self.soft_cap * torch.tanh(logits.float() / self.soft_cap) if self.soft_cap else logits


def turns(positions: Tensor, d: int) -> Tensor:
    """Cosines and sines ``(2, N, T, 1, d / 2)`` of the angles of rotary positions ``(N, T)``; d: width of a head."""
    speeds = _ROTARY_BASE ** (-torch.arange(d // 2, device=positions.device) / (d // 2))
    angles = (positions[:, :, None].float() * speeds)[:, :, None]
    return torch.stack([angles.cos(), angles.sin()])


def in_autocast(x: Tensor) -> Tensor:
    """In autocast's precision where that is on: the residual stream is most of the memory that a small model moves."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _check(width: int, layers: int, heads: int, positions: str, dropout: float, soft_cap: float) -> None:
    if min(width, layers, heads) < 1 or width % heads or (positions == "rotary" and width // heads % 2):
        raise InputError(
            f"network.width={width}, network.layers={layers}, network.heads={heads}: expected numbers of 1 or more, "
            "and a width that is a multiple of heads, by an even number for rotary positions."
        )
    if not 0 <= dropout < 1 or soft_cap < 0 or not math.isfinite(soft_cap):
        raise InputError(
            f"network.dropout={dropout}, network.soft_cap={soft_cap}: expected a share in [0, 1), and a number "
            "from 0 on."
        )
