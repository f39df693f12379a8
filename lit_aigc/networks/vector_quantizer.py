"""Vectors to the nearest entries of a codebook that follows them: the discrete latents of a VQ-VAE.

The codebook is no parameter: it is a moving average of the vectors that each code stands for (van den Oord et al.,
"Neural discrete representation learning", 2017, appendix A.1). It lies in buffers, so that checkpoints and bundles have
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_aigc.errors import InputError
from lit_aigc.machine.precision import full_precision
from lit_aigc.networks.layers.pyramid import stages

_LEAST_COUNT = 1e-5  # a code of less use stays where it is


class Quantized(NamedTuple):
    """What a quantizer makes of a map of vectors.

    Attributes:
        values: ``(N, D, H, W)`` from the codebook; their gradient goes on to the vectors unchanged.
        codes: ``(N, H * W)`` int64, in raster order.
        commitment: ``()``: mean squared distance of the vectors from their codes, which pulls the vectors only.
    """

    values: Tensor
    codes: Tensor
    commitment: Tensor


class VectorQuantizer(nn.Module):
    """A codebook. Training tells it what it stands for: `start` once, then `move` and `revive` after each batch.

    Args:
        codes: Size of the codebook.
        dim: Size of a vector.
        decay: Share of the moving averages that stays at each batch; at batch t at most ``(1 + t) / (10 + t)``, since
            the encoder moves fast at the start.
        revive_below: A code used less than this share of the mean use is dead; 0: none ever is.

    Attributes:
        codebook: ``(codes, dim)``.
        counts: ``(codes,)``: moving average of how many vectors of a batch a code stands for; 0 before `start`.
        sums: ``(codes, dim)``: moving average of the sum of these vectors.
        moves: Number of batches that the averages have moved by.

    Raises:
        InputError: If an option is out of range.
    """

    def __init__(self, codes: int = 256, dim: int = 32, decay: float = 0.99, revive_below: float = 0.05) -> None:
        super().__init__()
        wrong = [
            f"quantizer.{name}={value}: expected {expected}"
            for name, value, expected, fine in (
                ("codes", codes, "2 or more, for one code tells nothing", codes >= 2),
                ("dim", dim, "1 or more", dim >= 1),
                ("decay", decay, "a share in [0, 1)", 0 <= decay < 1),
                ("revive_below", revive_below, "a share in [0, 1)", 0 <= revive_below < 1),
            )
            if not fine
        ]
        if wrong:
            raise InputError("\n".join(wrong))
        self.codes, self.dim = codes, dim
        self.decay, self.revive_below = decay, revive_below
        self.codebook: Tensor
        self.counts: Tensor
        self.sums: Tensor
        self.moves: Tensor
        self.register_buffer("codebook", torch.randn(codes, dim))
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, dim))
        self.register_buffer("moves", torch.zeros((), dtype=torch.int64))
        self._started, self._moves = False, 0  # the same, known without waiting for the device
        self.register_load_state_dict_post_hook(lambda module, _: module._read_progress())

    def forward(self, z: Tensor) -> Quantized:
        """Vectors ``(N, D, H, W)`` to the nearest of the codebook, in full precision."""
        z = z.float()
        codes = self.nearest(as_rows(z)).unflatten(0, (len(z), -1))  # (N, H W)
        near = self.lookup(codes, z.shape[2:])
        return Quantized(z + (near - z).detach(), codes, F.mse_loss(z, near))

    @torch.no_grad()
    def nearest(self, vectors: Tensor) -> Tensor:
        """``(M, D)`` to the indices ``(M,)`` of the nearest codes."""
        with full_precision(vectors.device):  # differences of distances are small
            half_squares = 0.5 * self.codebook.square().sum(dim=1)
            return torch.addmm(half_squares, vectors.float(), self.codebook.T, alpha=-1).argmin(dim=1)

    def lookup(self, codes: Tensor, size: Sequence[int]) -> Tensor:
        """Codes ``(N, H * W)`` to their vectors ``(N, D, H, W)``."""
        height, width = size
        return F.embedding(codes, self.codebook).unflatten(1, (height, width)).permute(0, 3, 1, 2)

    # -- training

    @property
    def started(self) -> bool:
        """Whether the codebook has been set from data."""
        return self._started

    def _read_progress(self) -> None:
        """Take from a loaded state what training asks for at each batch."""
        self._started, self._moves = bool(self.counts.any()), int(self.moves)

    @torch.no_grad()
    def start(self, candidates: Tensor, use: float) -> None:
        """Set the codebook from vectors.

        Args:
            candidates: ``(C, D)``: the first are taken, all again where they are fewer than codes.
            use: Mean number of vectors of a batch that a code stands for.
        """
        every = torch.ones(self.codes, dtype=torch.bool, device=candidates.device)
        self._become(every, candidates, torch.tensor(use))
        self._started = True

    @torch.no_grad()
    def statistics(self, vectors: Tensor, codes: Tensor) -> Tensor:
        """Vectors ``(M, D)`` and their codes ``(M,)`` to ``(codes, 1 + D)``: how many a code has, and their sum.

        Over several processes they add up.
        """
        ones = vectors.new_ones(len(vectors), 1, dtype=torch.float32)
        rows = torch.cat([ones, vectors.float()], dim=1)
        return rows.new_zeros(self.codes, rows.shape[1]).index_add_(0, codes, rows)

    @torch.no_grad()
    def move(self, statistics: Tensor) -> None:
        """Move the averages, and with them the codebook, by the `statistics` of a whole batch."""
        self.moves += 1
        self._moves += 1
        t = self._moves
        weight = 1 - min(self.decay, (1 + t) / (10 + t))
        self.counts.lerp_(statistics[:, 0], weight)
        self.sums.lerp_(statistics[:, 1:], weight)
        used = self.counts > _LEAST_COUNT
        means = self.sums / self.counts.clamp_min(_LEAST_COUNT)[:, None]
        self.codebook.copy_(torch.where(used[:, None], means, self.codebook))

    def dead(self) -> Tensor:
        """Which codes, ``(codes,)`` bool, have fallen out of use."""
        return self.counts < self.revive_below * self.counts.mean()

    @torch.no_grad()
    def revive(self, dead: Tensor, candidates: Tensor) -> None:
        """Put dead codes, ``(codes,)`` bool, where vectors ``(C, D)`` are, with the mean use to begin with."""
        self._become(dead, candidates, self.counts.mean())

    def _become(self, which: Tensor, candidates: Tensor, use: Tensor) -> None:
        """The codes of a mask take the candidates one after the other."""
        rows = (which.cumsum(0) - 1).clamp_min(0) % len(candidates)
        self.codebook.copy_(torch.where(which[:, None], candidates[rows].float(), self.codebook))
        self.counts.copy_(torch.where(which, use.to(self.counts), self.counts))
        self.sums.copy_(torch.where(which[:, None], use.to(self.sums) * self.codebook, self.sums))


def as_rows(z: Tensor) -> Tensor:
    """Maps ``(N, D, H, W)`` to their vectors ``(N * H * W, D)``, in raster order."""
    return z.permute(0, 2, 3, 1).flatten(0, 2)


def uses(codes: Tensor, number: int) -> Tensor:
    """Codes of any shape to how often each of `number` comes: ``(number,)`` float32, exact below 2**24."""
    flat = codes.flatten()  # `bincount` would wait for the device
    return torch.zeros(number, device=codes.device).index_add_(0, flat, torch.ones(len(flat), device=codes.device))


def perplexity(counts: Tensor) -> Tensor:
    """``exp`` of the entropy of how often codes are used ``(codes,)``: the number of codes if all are used alike."""
    p = counts / counts.sum()
    return torch.exp(torch.special.entr(p).sum())


def map_size(shape: Sequence[int]) -> int:
    """Height and width of the map of codes of images ``(C, H, W)``: 7 or 8.

    Raises:
        InputError: If the images have a size that the networks can't do.
    """
    smallest, _ = stages(shape)
    return {7: 7, 4: 8}[smallest]
