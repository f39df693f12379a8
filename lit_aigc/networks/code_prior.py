"""An autoregressive prior over a map of codes, in raster order: a small causal transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_aigc.errors import InputError
from lit_aigc.networks.layers.attention import causal_attention
from lit_aigc.networks.vector_quantizer import map_size
from lit_aigc.noise import Noise

_SMALLEST_CHANCE = 2.0**-25  # of a draw of 24 bits that is 0


class Block(nn.Module):
    """Causal self-attention and a hidden layer, each on normalized input and added to it.

    Args:
        width: Of the residual stream.
        heads: Of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.attend = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.hidden_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.shrink = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, cache: Tensor | None = None, position: int = 0) -> Tensor:
        """``(N, T, width)`` to the same shape.

        Args:
            x: All positions; with a cache, the one at `position` alone, T being 1.
            cache: ``(2, N, heads, length, width / heads)``: keys and values of the positions before; this one's are
                written to it.
            position: Where `x` is.
        """
        qkv = self.attend(self.norm(x)).unflatten(2, (3, self.heads, -1))  # (N, T, 3, heads, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if cache is None:
            h = causal_attention(q, k, v)
        else:
            cache[:, :, :, position] = torch.stack([k, v])[:, :, :, 0]
            k, v = cache[:, :, :, : position + 1]
            h = F.scaled_dot_product_attention(q, k, v)
        x = x + self.project(h.transpose(1, 2).flatten(2))
        return x + self.shrink(F.gelu(self.expand(self.hidden_norm(x))))


class CodePrior(nn.Module):
    """The distribution of maps of codes, one code after the other, given the class if there are any.

    A transformer (Vaswani et al., 2017; layer normalization first, as in GPT-2). The input at a position is the code
    before it, the code above it, the position and the class.

    Args:
        shape: ``(C, H, W)`` of the images.
        codes: Size of the codebook.
        num_classes: Number of classes, 0 for an unconditional prior.
        width: Of the residual stream.
        layers: Number of blocks.
        heads: Of the attention; divides `width`.
        size: Height and width of the map; None: what `lit_aigc.networks.vqvae.Encoder` makes of such images.

    Attributes:
        length: Codes in a map.

    Raises:
        InputError: If an option is out of range.
    """

    def __init__(
        self,
        shape: Sequence[int],
        codes: int = 256,
        num_classes: int = 0,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        size: int | None = None,
    ) -> None:
        super().__init__()
        if codes < 2:
            raise InputError(f"prior.codes={codes}: expected 2 or more.")
        if min(width, layers, heads) < 1 or width % heads:
            raise InputError(
                f"prior.width={width}, prior.layers={layers}, prior.heads={heads}: expected numbers of 1 or more, and "
                "a width that is a multiple of heads."
            )
        self.codes = codes
        self.size = map_size(shape) if size is None else size
        self.length = self.size**2
        self.before = nn.Embedding(codes, width)
        self.above = nn.Embedding(codes, width)
        self.positions = nn.Parameter(torch.zeros(self.length, width))
        self.classes = nn.Embedding(num_classes, width) if num_classes else None
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, codes)
        self._initialize()

    def _initialize(self) -> None:
        nn.init.normal_(self.positions, 0.0, 0.02)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, 0.0, 0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            for layer in (block.project, block.shrink):
                nn.init.normal_(layer.weight, 0.0, 0.02 * (2 * len(self.blocks)) ** -0.5)

    def forward(self, codes: Tensor, y: Tensor | None = None) -> Tensor:
        """``codes`` (N, length) and labels ``y`` (N,) to logits (N, length, codes): each of the codes before alone."""
        before = F.pad(self.before(codes[:, :-1]), (0, 0, 1, 0))  # (N, length, width)
        above = F.pad(self.above(codes[:, : -self.size]), (0, 0, self.size, 0))
        x = before + above + self.positions
        if self.classes is not None:
            x = x + self.classes(y)[:, None]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def log_prob(self, codes: Tensor, y: Tensor | None = None) -> Tensor:
        """``codes`` (N, length) and labels ``y`` (N,) to the log-probabilities of the maps (N,), in nats."""
        logits = self(codes, y).float().flatten(0, 1)
        return -F.cross_entropy(logits, codes.flatten(), reduction="none").unflatten(0, codes.shape).sum(dim=1)

    @torch.no_grad()
    def sample(self, n: int, y: Tensor | None = None, *, noise: Noise, temperature: float = 1.0) -> Tensor:
        """Draw maps of codes, each by its own noise alone.

        A code is where logits plus Gumbel noise are largest; keys and values of the codes before are kept.

        Args:
            n: Number of maps.
            y: Labels ``(n,)`` where there are classes.
            noise: Item i is of map i.
            temperature: What logits are divided by: below 1 the likely becomes likelier.

        Returns:
            ``(n, length)`` int64.
        """
        device = self.positions.device
        chances = noise.uniform(n, self.length, self.codes, device=device).clamp_min_(_SMALLEST_CHANCE)
        gumbel = chances.log_().neg_().log_().mul_(-temperature)
        codes = torch.zeros(n, self.length, dtype=torch.int64, device=device)
        heads, width = self.blocks[0].heads, self.positions.shape[1]
        caches = self.positions.new_empty(len(self.blocks), 2, n, heads, self.length, width // heads)
        constant = self.positions[:, None] if self.classes is None else self.positions[:, None] + self.classes(y)
        for i in range(self.length):
            x = constant[i].expand(n, -1)
            if i >= 1:
                x = x + self.before(codes[:, i - 1])
            if i >= self.size:
                x = x + self.above(codes[:, i - self.size])
            x = x[:, None]  # (n, 1, width)
            for block, cache in zip(self.blocks, caches, strict=True):
                x = block(x, cache, i)
            codes[:, i] = (self.head(self.norm(x[:, 0])) + gumbel[:, i]).argmax(dim=1)
        return codes
