"""Vector quantization with a moving-average codebook: the discrete latents of a VQ-VAE.

The codebook is not a parameter: each entry is a moving average of the vectors assigned to it (van den Oord et al.,
"Neural discrete representation learning", 2017, appendix A.1). It consists of buffers, so that checkpoints and bundles
contain it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_aigc.errors import check
from lit_aigc.machine.precision import full_precision
from lit_aigc.networks.layers.pyramid import stages

_LEAST_COUNT = 1e-5  # a code with a smaller count stays where it is


class Quantized(NamedTuple):
    """A quantized map of vectors.

    Attributes:
        values: ``(N, D, H, W)`` from the codebook; their gradient is passed to the vectors unchanged.
        codes: ``(N, H * W)`` int64, in raster order.
        commitment: ``()``: mean squared distance of the vectors from their codes; its gradient moves only the vectors.
    """

    values: Tensor
    codes: Tensor
    commitment: Tensor


class VectorQuantizer(nn.Module):
    """A codebook. Training calls `start` once, then `move` and `revive` after each batch.

    Args:
        codes: Size of the codebook.
        dim: Size of a vector.
        decay: Share of the moving averages that is kept at each batch; at batch t at most ``(1 + t) / (10 + t)``,
            since the encoder moves fast at first.
        revive_below: A code used less often than this share of the mean is dead; 0: no code ever is.

    Attributes:
        codebook: ``(codes, dim)``.
        counts: ``(codes,)``: moving average of the number of vectors per batch assigned to a code; 0 before `start`.
        sums: ``(codes, dim)``: moving average of the sum of these vectors.
        moves: Number of batches that the averages have seen.
        started: Whether the codebook has been set from data.

    Raises:
        InputError: If an option is out of range.
    """

    def __init__(self, codes: int = 256, dim: int = 32, decay: float = 0.99, revive_below: float = 0.05) -> None:
        super().__init__()
        check(
            ("quantizer.codes", codes, codes >= 2, "2 or more, since a single code carries no information"),
            ("quantizer.dim", dim, dim >= 1, "1 or more"),
            ("quantizer.decay", decay, 0 <= decay < 1, "a share in [0, 1)"),
            ("quantizer.revive_below", revive_below, 0 <= revive_below < 1, "a share in [0, 1)"),
        )
        self.codes, self.dim = codes, dim
        self.decay, self.revive_below = decay, revive_below
        self.register_buffer("codebook", torch.randn(codes, dim))
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, dim))
        self.register_buffer("moves", torch.zeros((), dtype=torch.int64))
        self.started, self._moves = False, 0  # copies on the host: reading the buffers would wait for the device
        self.register_load_state_dict_post_hook(lambda module, _: module._read_progress())

    def forward(self, z: Tensor) -> Quantized:
        """Map vectors ``(N, D, H, W)`` to the nearest entries of the codebook, in full precision."""
        z = z.float()
        codes = self.nearest(as_rows(z)).unflatten(0, (len(z), -1))  # (N, H * W)
        near = self.lookup(codes, z.shape[2:])  # (N, D, H, W)
        straight_through = z + (near - z).detach()  # the value of `near`, the gradient of `z`
        return Quantized(straight_through, codes, F.mse_loss(z, near))

    @torch.no_grad()
    def nearest(self, vectors: Tensor) -> Tensor:
        """Map ``(M, D)`` to the indices ``(M,)`` of the nearest codes."""
        # |v - c|^2 / 2 = |c|^2 / 2 - v.c + a constant; in full precision, since distances differ little.
        with full_precision(vectors.device):
            half_squares = 0.5 * self.codebook.square().sum(dim=1)
            return torch.addmm(half_squares, vectors.float(), self.codebook.T, alpha=-1).argmin(dim=1)

    def lookup(self, codes: Tensor, size: Sequence[int]) -> Tensor:
        """Map codes ``(N, H * W)`` to their vectors ``(N, D, H, W)``."""
        height, width = size
        return F.embedding(codes, self.codebook).unflatten(1, (height, width)).permute(0, 3, 1, 2)

    # -- training

    def _read_progress(self) -> None:
        """Update the copies on the host from a loaded state."""
        self.started, self._moves = bool(self.counts.any()), int(self.moves)

    @torch.no_grad()
    def start(self, candidates: Tensor, use: float) -> None:
        """Set the codebook from vectors.

        Args:
            candidates: ``(C, D)``: the first become the codes; repeated if there are fewer than codes.
            use: Mean number of vectors per batch and code.
        """
        every = torch.ones(self.codes, dtype=torch.bool, device=candidates.device)
        self._replace(every, candidates, torch.tensor(use))
        self.started = True

    @torch.no_grad()
    def statistics(self, vectors: Tensor, codes: Tensor) -> Tensor:
        """Return the number of vectors of each code, and their sum, ``(codes, 1 + D)``; processes add theirs up.

        Args:
            vectors: ``(M, D)``.
            codes: ``(M,)``, the codes of these vectors.
        """
        ones = vectors.new_ones(len(vectors), 1, dtype=torch.float32)
        rows = torch.cat([ones, vectors.float()], dim=1)
        return rows.new_zeros(self.codes, rows.shape[1]).index_add_(0, codes, rows)

    @torch.no_grad()
    def move(self, statistics: Tensor) -> None:
        """Move the averages, and with them the codebook, by the `statistics` of a whole batch."""
        self.moves += 1
        self._moves += 1

        # The averages forget quickly at first, when the encoder still moves fast.
        t = self._moves
        weight = 1 - min(self.decay, (1 + t) / (10 + t))
        self.counts.lerp_(statistics[:, 0], weight)
        self.sums.lerp_(statistics[:, 1:], weight)

        # A code is the mean of its vectors; one that has none stays where it is.
        used = self.counts > _LEAST_COUNT
        means = self.sums / self.counts.clamp_min(_LEAST_COUNT)[:, None]
        self.codebook.copy_(torch.where(used[:, None], means, self.codebook))

    def dead(self) -> Tensor:
        """Return which codes have fallen out of use, ``(codes,)`` bool."""
        return self.counts < self.revive_below * self.counts.mean()

    @torch.no_grad()
    def revive(self, dead: Tensor, candidates: Tensor) -> None:
        """Move dead codes, ``(codes,)`` bool, to candidate vectors ``(C, D)``, and give them the mean count."""
        self._replace(dead, candidates, self.counts.mean())

    def _replace(self, which: Tensor, candidates: Tensor, use: Tensor) -> None:
        """Replace the codes of a mask by the candidates, one after the other."""
        # The i-th code of the mask gets candidate i; a mask instead of an index, which would wait for the device.
        rows = (which.cumsum(0) - 1).clamp_min(0) % len(candidates)
        self.codebook.copy_(torch.where(which[:, None], candidates[rows].float(), self.codebook))
        self.counts.copy_(torch.where(which, use.to(self.counts), self.counts))
        self.sums.copy_(torch.where(which[:, None], use.to(self.sums) * self.codebook, self.sums))


def as_rows(z: Tensor) -> Tensor:
    """Return the vectors of maps ``(N, D, H, W)`` in raster order, ``(N * H * W, D)``."""
    return z.permute(0, 2, 3, 1).flatten(0, 2)


def code_counts(codes: Tensor, number: int) -> Tensor:
    """Count how often each of `number` codes occurs: ``(number,)`` float32, exact below 2**24."""
    flat = codes.flatten()  # `bincount` would wait for the device
    return torch.zeros(number, device=codes.device).index_add_(0, flat, torch.ones(len(flat), device=codes.device))


def perplexity(counts: Tensor) -> Tensor:
    """Return ``exp`` of the entropy of counts ``(codes,)``: the number of codes if all are used equally often."""
    p = counts / counts.sum()
    return torch.exp(torch.special.entr(p).sum())


def map_size(shape: Sequence[int]) -> int:
    """Return the height and width, 7 or 8, of the map of codes of images ``(C, H, W)``.

    Raises:
        InputError: If the size of the images isn't supported.
    """
    smallest, _ = stages(shape)
    return {7: 7, 4: 8}[smallest]
