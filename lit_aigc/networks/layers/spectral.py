"""Spectral normalization with one power iteration per training step."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

Layer = TypeVar("Layer", bound=nn.Module)


class SpectralNorm(nn.Module):
    """Divide a weight by an estimate of its largest singular value (Miyato et al., 2018, algorithm 1).

    Like `torch.nn.utils.parametrizations.spectral_norm`, but cheaper: the estimate is updated only when the
    weight is being trained (not in the generator's step, when the discriminator is frozen), one vector is kept instead
    of two, and a channels-last weight is not copied. The gradient passes through the estimate, with its vectors
    taken as constants.

    Args:
        weight: The weight to normalize, ``(outputs, ...)``.
        iterations: Power iterations before the first use; 15 come within a few percent.
    """

    def __init__(self, weight: Tensor, iterations: int = 15) -> None:
        super().__init__()
        self.register_buffer("u", F.normalize(torch.randn(len(weight), dtype=weight.dtype), dim=0))
        with torch.no_grad():
            for _ in range(iterations):
                self.u.copy_(self._singular_vectors(_matrix(weight))[0])

    def _singular_vectors(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        v = F.normalize(torch.mv(matrix.T, self.u), dim=0)
        return F.normalize(torch.mv(matrix, v), dim=0), v

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight divided by its largest singular value."""
        matrix = _matrix(weight)
        with torch.autocast(weight.device.type, enabled=False):  # which would iterate in half precision on a GPU
            with torch.no_grad():
                u, v = self._singular_vectors(matrix.detach())
                if self.training and weight.requires_grad:
                    self.u.copy_(u)
            sigma = torch.dot(u, torch.mv(matrix, v))
        return weight / sigma.clamp_min(1e-4)  # a weight of zeros has no direction


def spectral_norm(layer: Layer) -> Layer:
    """Normalize the weight of a layer spectrally from now on, and return the layer."""
    parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight))
    return layer


def _matrix(weight: Tensor) -> Tensor:
    """View a weight as ``(outputs, everything else)``; permuted columns don't change the singular values."""
    if weight.dim() == 4 and not weight.is_contiguous():
        weight = weight.permute(0, 2, 3, 1)
    return weight.flatten(1)
