"""An autoregressive prior over a map of codes, in raster order: a small causal transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_aigc.errors import at_least, check
from lit_aigc.networks.layers.attention import causal_attention
from lit_aigc.networks.vector_quantizer import map_size
from lit_aigc.noise import Noise

_SMALLEST_UNIFORM = 2.0**-25  # in place of a 0 among uniform numbers of 24 bits


class Block(nn.Module):
    """Causal self-attention and a hidden layer, each a pre-normalized residual branch.

    Args:
        width: Width of the residual stream.
        heads: Number of heads.
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
        """Map ``(N, T, width)`` to the same shape.

        Args:
            x: All positions; with a cache only the one at `position`, so T is 1.
            cache: Keys and values of the positions before, ``(2, N, heads, length, width / heads)``; those of this
                position are written to it.
            position: Position of `x`.
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
    """The distribution of maps of codes, one code after the other, given the class if there are classes.

    A transformer (Vaswani et al., 2017) with pre-normalization, as in GPT-2. The input at a position is the sum of
    embeddings of the code before it, the code above it, the position and the class.

    Args:
        shape: ``(C, H, W)`` of the images.
        codes: Size of the codebook.
        num_classes: Number of classes, 0 for an unconditional prior.
        width: Width of the residual stream.
        layers: Number of blocks.
        heads: Number of heads; divides `width`.
        size: Height and width of the map; None: that of `lit_aigc.networks.vqvae.Encoder` for such images.

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
        check(
            *at_least(2, "prior.", codes=codes),
            *at_least(1, "prior.", width=width, layers=layers, heads=heads),
            ("prior.width", width, width % max(heads, 1) == 0, f"a multiple of heads, {heads}"),
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
        """Map ``codes`` (N, length) and labels ``y`` (N,) to logits (N, length, codes), each given earlier codes."""
        # Shifted by one code and by one row; there is nothing before the first.
        before = F.pad(self.before(codes[:, :-1]), (0, 0, 1, 0))  # (N, length, width)
        above = F.pad(self.above(codes[:, : -self.size]), (0, 0, self.size, 0))
        x = before + above + self.positions
        if self.classes is not None:
            x = x + self.classes(y)[:, None]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def log_prob(self, codes: Tensor, y: Tensor | None = None) -> Tensor:
        """Map ``codes`` (N, length) and labels ``y`` (N,) to the log-probabilities of the maps (N,), in nats."""
        logits = self(codes, y).float().flatten(0, 1)
        return -F.cross_entropy(logits, codes.flatten(), reduction="none").unflatten(0, codes.shape).sum(dim=1)

    @torch.no_grad()
    def sample(self, n: int, y: Tensor | None = None, *, noise: Noise, temperature: float = 1.0) -> Tensor:
        """Sample maps of codes, each by its own noise alone.

        Codes are sampled by the Gumbel-max trick, with the keys and values of earlier codes in a cache.

        Args:
            n: Number of maps.
            y: Labels ``(n,)`` if there are classes.
            noise: Map i uses item i.
            temperature: Divides the logits: below 1, likely codes become likelier.

        Returns:
            ``(n, length)`` int64.
        """
        device = self.positions.device
        # Dividing logits by a temperature is multiplying the noise by it, as far as the largest sum is concerned.
        chances = noise.uniform(n, self.length, self.codes, device=device).clamp_min_(_SMALLEST_UNIFORM)
        gumbel = chances.log_().neg_().log_().mul_(-temperature)
        codes = torch.zeros(n, self.length, dtype=torch.int64, device=device)
        heads, width = self.blocks[0].heads, self.positions.shape[1]
        caches = self.positions.new_empty(len(self.blocks), 2, n, heads, self.length, width // heads)
        constant = self.positions[:, None]  # (length, 1, width): what doesn't depend on codes
        if self.classes is not None:
            constant = constant + self.classes(y)
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
