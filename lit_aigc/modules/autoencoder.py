"""Models that make images of latents by a `LatentModel`, and latents of images."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_aigc.modules.latent import LatentModule
from lit_aigc.networks.latent import LatentModel


class Autoencoder(LatentModule):
    """A latent module around an encoder and a decoder.

    Attributes:
        network: Both, and the prior; set by a subclass's constructor.
    """

    network: LatentModel

    @property
    def generator(self) -> LatentModel:
        """The network that makes images of latents."""
        return self.network

    @torch.no_grad()
    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the posterior means ``(N, latent_dim)`` of images ``(N, C, H, W)`` in [-1, 1], for `decode`."""
        with self.evaluating():
            y = self._classes(len(images), labels)
            code = self.network.encode(images.to(self.device), y)
            eps = torch.zeros(len(images), self.latent_dim, device=self.device)
            return self.network.infer(code, eps, y).z

    def latents_of(self, eps: Tensor, labels: Tensor | None) -> Tensor:
        """See `LatentModule`."""
        return self.network.draw(eps, labels)

    def images_of(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """See `LatentModule`: the means of the likelihood."""
        return self.network.likelihood.mean(self.network.decode(z, labels))
