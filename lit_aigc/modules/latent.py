"""Models that turn one latent vector into one image, and those that also turn images into latents."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_aigc.errors import InputError
from lit_aigc.latents.geometry import great_circle
from lit_aigc.modules.base import GenerativeModule, Recipe
from lit_aigc.networks.latent import LatentModel
from lit_aigc.noise import Noise
from lit_aigc.spec import Condition, DataSpec


class LatentModule(GenerativeModule):
    """A generative module whose samples come from standard normal noise of `latent_dim` numbers.

    A subclass implements `images_of`, and `latents_of` where its latents are not standard normal.

    Attributes:
        latent_dim: Numbers in a latent.
    """

    of_tokens = False
    latent_dim: int

    def images_of(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Return images ``(n, C, H, W)`` near the spec's range, of latents ``(n, latent_dim)`` and classes ``(n,)``."""
        raise NotImplementedError

    def latents_of(self, eps: Tensor, labels: Tensor | None) -> Tensor:
        """Return latents of the prior, from standard normal noise ``(n, latent_dim)``."""
        return eps

    def sample_block(self, n: int, condition: Condition, noise: Noise) -> Tensor:
        """Return images ``(n, C, H, W)`` of latents from the prior."""
        eps = noise.stream("latent").normal(n, self.latent_dim, device=self.device)
        return self._images(self.latents_of(eps, condition.labels), condition.labels)

    @torch.no_grad()
    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return images ``(n, C, H, W)`` in the spec's range, in evaluation mode and full precision.

        Args:
            z: Latents ``(n, latent_dim)``.
            labels: ``(n,)``; None: the first class for all images of a conditional model.
        """
        with self.evaluating():
            return self._images(z.to(self.device), self._classes(len(z), labels))

    @torch.no_grad()
    def latents(self, n: int, *, condition: Condition | None = None, noise: Noise) -> Tensor:
        """Return the latents ``(n, latent_dim)`` of the samples that the same arguments give."""
        eps = noise.stream("latent").normal(n, self.latent_dim, device=self.device)
        with self.evaluating():
            return self.latents_of(eps, self._classes(n, condition.labels if condition else None))

    def interpolate(self, n: int, *, condition: Condition | None = None, noise: Noise) -> Tensor:
        """Return images along the great circle from the noise of the stream's first item to that of its second.

        Args:
            n: Number of images.
            condition: One entry per image; None: the first class for all.
            noise: The stream.
        """
        first, second = noise.stream("latent").normal(2, self.latent_dim, device=self.device)
        labels = self._classes(n, condition.labels if condition else None)
        with torch.no_grad(), self.evaluating():
            return self._images(self.latents_of(great_circle(first, second, n), labels), labels)

    def _classes(self, n: int, labels: Tensor | None) -> Tensor | None:
        if not self.conditional:
            return None
        return torch.zeros(n, dtype=torch.int64, device=self.device) if labels is None else labels.to(self.device)

    def _images(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return self.images_of(z, labels).float().contiguous().clamp(*self.spec.value_range)


class Autoencoder(LatentModule):
    """A latent module around an encoder and a decoder.

    Args:
        network: Both, and the prior.
        spec: The facts of the data.
        conditional: Whether the network is given class labels.
        recipe: How to optimize.

    Raises:
        InputError: If the data's images aren't in [-1, 1].
    """

    def __init__(self, network: LatentModel, spec: DataSpec, conditional: bool, recipe: Recipe | None) -> None:
        super().__init__(spec, conditional, recipe)
        if tuple(spec.value_range) != (-1.0, 1.0):
            raise InputError(
                f"{type(self).__name__} models images in [-1, 1], and the data's are in {spec.value_range}."
            )
        self.network = network
        self.latent_dim = network.latent_dim

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
