"""Networks of a VQ-VAE: encoder and decoder between images and maps of vectors, and the whole model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_aigc.errors import check
from lit_aigc.networks.code_prior import CodePrior
from lit_aigc.networks.layers.pyramid import doubling, halving
from lit_aigc.networks.vector_quantizer import VectorQuantizer, map_size
from lit_aigc.noise import Noise


class ResidualBlock(nn.Module):
    """``x + mix(act(shrink(act(x))))``: a 3x3 convolution to half the width and a 1x1 back; initially the identity.

    Args:
        channels: Channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shrink = nn.Conv2d(channels, max(1, channels // 2), 3, padding=1)
        self.mix = nn.Conv2d(max(1, channels // 2), channels, 1)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, channels, H, W)`` to the same shape."""
        return x + self.mix(F.silu(self.shrink(F.silu(x))))


def _levels(shape: Sequence[int], channels: int) -> list[int]:
    """Return the widths of the maps from half the image's size to that of the codes; the last is twice as wide.

    Raises:
        InputError: If there are no channels, or the size of the images isn't supported.
    """
    check(("channels", channels, channels >= 1, "1 or more"))
    halvings = (shape[1] // map_size(shape)).bit_length() - 1
    return [channels] * (halvings - 1) + [2 * channels]


class Encoder(nn.Module):
    """Strided convolutions, then residual blocks on the smallest map.

    Each vector has a root mean square of 1. Otherwise, early in training, the vectors would move away from the codebook
    faster than it can follow, until one code is nearest to them all.

    Args:
        shape: ``(C, H, W)`` of the images: square, 4 or 7 times a power of two.
        dim: Size of a vector.
        channels: Width of the larger maps; the smallest is twice as wide.
        blocks: Residual blocks.

    Attributes:
        size: Height and width of the map.

    Raises:
        InputError: If the size of the images isn't supported.
    """

    def __init__(self, shape: Sequence[int], dim: int = 32, channels: int = 64, blocks: int = 2) -> None:
        super().__init__()
        self.dim, self.size = dim, map_size(shape)
        layers: list[nn.Module] = []
        width = shape[0]
        for following in _levels(shape, channels):
            layers += [nn.SiLU()] * bool(layers) + [halving(width, following)]
            width = following
        layers += [ResidualBlock(width) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(width, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to vectors ``(N, dim, size, size)``."""
        z = self.layers(x).float().permute(0, 2, 3, 1)  # (N, size, size, dim)
        return F.rms_norm(z, (self.dim,)).permute(0, 3, 1, 2)


class Decoder(nn.Module):
    """Residual blocks on the smallest map, then transposed convolutions, with a block on each map but the image.

    Args:
        shape: ``(C, H, W)`` of the images: square, 4 or 7 times a power of two.
        dim: Size of a vector.
        channels: Width of the larger maps; the smallest is twice as wide.
        blocks: Residual blocks on the smallest map.

    Raises:
        InputError: If the size of the images isn't supported.
    """

    def __init__(self, shape: Sequence[int], dim: int = 32, channels: int = 64, blocks: int = 2) -> None:
        super().__init__()
        self.dim = dim
        levels = _levels(shape, channels)[::-1]
        width = levels[0]
        layers: list[nn.Module] = [nn.Conv2d(dim, width, 3, padding=1), *(ResidualBlock(width) for _ in range(blocks))]
        for following in levels[1:]:
            layers += [nn.SiLU(), doubling(width, following)]
            layers += [ResidualBlock(following)]
            width = following
        self.layers = nn.Sequential(*layers, nn.SiLU(), doubling(width, shape[0]))

    def forward(self, z: Tensor) -> Tensor:
        """Map vectors ``(N, dim, size, size)`` to images ``(N, C, H, W)``, about in the range of training images."""
        return self.layers(z)


class Reconstruction(NamedTuple):
    """Images, encoded to codes and decoded.

    Attributes:
        images: ``(N, C, H, W)`` float32.
        vectors: ``(N, dim, size, size)`` float32, before they were quantized.
        codes: ``(N, size * size)`` int64.
        commitment: ``()``: see `lit_aigc.networks.vector_quantizer.Quantized`.
    """

    images: Tensor
    vectors: Tensor
    codes: Tensor
    commitment: Tensor


class CodeModel(nn.Module):
    """Encoder, codebook, decoder, and the prior over maps of codes.

    Args:
        encoder: ``encoder(x) -> (N, dim, size, size)``, with attributes ``dim`` and ``size``.
        quantizer: The codebook.
        decoder: ``decoder(z) -> (N, C, H, W)``.
        prior: Prior of the codes.

    Raises:
        InputError: If the parts don't fit together.
    """

    def __init__(self, encoder: nn.Module, quantizer: VectorQuantizer, decoder: nn.Module, prior: CodePrior) -> None:
        super().__init__()
        dim, codes, size = quantizer.dim, quantizer.codes, encoder.size
        check(
            ("model.network.encoder.dim", encoder.dim, encoder.dim == dim, f"quantizer.dim, {dim}"),
            ("model.network.decoder.dim", decoder.dim, decoder.dim == dim, f"quantizer.dim, {dim}"),
            ("model.network.prior.codes", prior.codes, prior.codes == codes, f"quantizer.codes, {codes}"),
            ("model.network.prior.size", prior.size, prior.size == size, f"the size of the encoder's map, {size}"),
        )
        self.encoder, self.quantizer, self.decoder, self.prior = encoder, quantizer, decoder, prior

    def forward(self, x: Tensor) -> Reconstruction:
        """Reconstruct images ``(N, C, H, W)`` from their codes."""
        z = self.encoder(x).float()
        quantized = self.quantizer(z)
        return Reconstruction(self.decoder(quantized.values).float(), z, quantized.codes, quantized.commitment)

    def encode(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to codes ``(N, size * size)``."""
        return self.quantizer(self.encoder(x)).codes

    def decode(self, codes: Tensor) -> Tensor:
        """Map codes ``(N, size * size)`` to images ``(N, C, H, W)``."""
        z = self.quantizer.lookup(codes, (self.encoder.size, self.encoder.size))
        return self.decoder(z.contiguous(memory_format=torch.channels_last)).float()

    def sample(self, n: int, y: Tensor | None = None, *, noise: Noise, temperature: float = 1.0) -> Tensor:
        """Sample images ``(n, C, H, W)`` from codes of the prior; see `lit_aigc.networks.code_prior.CodePrior`."""
        return self.decode(self.prior.sample(n, y, noise=noise, temperature=temperature))
