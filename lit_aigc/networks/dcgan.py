"""Deep convolutional GAN networks (Radford, Metz and Chintala, 2016) for square images of 28, 32, 64 … px."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lit_aigc.errors import check
from lit_aigc.networks.layers import discriminator
from lit_aigc.networks.layers.conditioning import class_embedding, with_classes
from lit_aigc.networks.layers.minibatch import MinibatchStd
from lit_aigc.networks.layers.pyramid import doubling, halving, stages


def _initialize(network: nn.Module) -> None:
    """Initialize weights as normal with standard deviation 0.02 (Radford et al., 2016, section 4)."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)


class Generator(nn.Module):
    """Map latents, concatenated with class embeddings, to images by transposed convolutions.

    Args:
        shape: ``(C, H, W)`` of the images.
        num_classes: Number of classes, 0 for an unconditional network.
        latent_dim: Size of the latent.
        channels: Width of the last hidden map; each smaller map is twice as wide.
        components: Number of components that the latents are a mixture of (Gurumurthy et al., "DeLiGAN", 2017), each
            with a learned mean; 0 for none. The largest of the latent's first so many entries says which one it is.
            A generator of distinct kinds of images need then not draw what lies between them.
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int = 0,
        latent_dim: int = 64,
        channels: int = 32,
        components: int = 0,
    ) -> None:
        super().__init__()
        check(("components", components, 0 <= components <= latent_dim, f"0 to latent_dim={latent_dim}"))
        smallest, doublings = stages(shape)
        self.latent_dim = latent_dim
        self.components = nn.Parameter(torch.randn(components, latent_dim)) if components else None
        self.embedding = class_embedding(num_classes, latent_dim)
        width = channels << (doublings - 1)
        self.start = (width, smallest, smallest)
        self.project = nn.Linear(latent_dim * (2 if num_classes else 1), width * smallest**2, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        for _ in range(doublings - 1):
            width //= 2
            layers += [doubling(2 * width, width, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, doubling(width, shape[0]), nn.Tanh())
        _initialize(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map ``z`` (N, latent_dim) and labels ``y`` (N,) to images (N, C, H, W) in [-1, 1]."""
        if self.components is not None:
            z = z + self.components[z[:, : len(self.components)].argmax(dim=1)]
        z = with_classes(z, self.embedding, y)
        x = self.project(z).unflatten(1, self.start)  # (N, width, 4 or 7, 4 or 7)
        return self.layers(x)


class Discriminator(discriminator.Discriminator):
    """Map images to logits by strided convolutions, and classes by projection (Miyato and Koyama, 2018).

    Args:
        shape: ``(C, H, W)`` of the images.
        num_classes: Number of classes, 0 for an unconditional network.
        channels: Width of the first map; each smaller map is twice as wide.
        normalization: ``batch``, ``spectral`` (Miyato et al., 2018) or ``none``; never on the first layer if ``batch``.
        hidden: Width of a fully connected layer before the logit; 0: no such layer, as in the paper.
        minibatch_group: Images per group of the minibatch standard deviation; 0: no such statistic.
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int = 0,
        channels: int = 32,
        normalization: str = "batch",
        hidden: int = 0,
        minibatch_group: int = 0,
    ) -> None:
        super().__init__()
        known = normalization in ("batch", "spectral", "none")
        check(("normalization", normalization, known, "batch, spectral or none"))
        smallest, doublings = stages(shape)
        width = channels
        layers: list[nn.Module] = [halving(shape[0], width), nn.LeakyReLU(0.2, inplace=True)]
        for _ in range(doublings - 1):
            layers.append(halving(width, width * 2, bias=normalization != "batch"))
            layers += [nn.BatchNorm2d(width * 2)] if normalization == "batch" else []
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            width *= 2
        self.features = nn.Sequential(*layers)
        last = (width + bool(minibatch_group)) * smallest**2
        self.minibatch_std = MinibatchStd(minibatch_group) if minibatch_group else nn.Identity()
        self.hidden = nn.Sequential(nn.Linear(last, hidden), nn.LeakyReLU(0.2)) if hidden else nn.Identity()
        self.logit = nn.Linear(hidden or last, 1)
        self.projection = discriminator.class_projection(num_classes, hidden or last)
        _initialize(self)
        if normalization == "spectral":
            for module in self.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    spectral_norm(module)

    def pair_features(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of both in one pass, except that BatchNorm sees each half alone."""
        x = torch.cat([real, fake])
        for layer in self.features:
            batchwise = isinstance(layer, nn.modules.batchnorm._BatchNorm)  # SyncBatchNorm too
            x = torch.cat([layer(half) for half in x.chunk(2)]) if batchwise else layer(x)
        return x.chunk(2)

    def head(self, features: Tensor, y: Tensor | None = None) -> Tensor:
        """Map features (N, ...) and labels (N,) to logits (N,)."""
        features = self.minibatch_std(features).flatten(1)
        return super().head(self.hidden(features), y)
