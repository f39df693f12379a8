"""What models and their parts can do besides training and sampling, as protocols to ask for with ``isinstance``.

Each protocol is one question that a callback, a metric or a verb asks of a model before it uses it. A model gains an
ability by having the methods; it need not inherit from anything here. Submodules and buffers are no part of a protocol:
from Python 3.12 on ``isinstance`` doesn't see them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from lit_aigc.noise import Noise
    from lit_aigc.spec import Condition

# -- of models


@runtime_checkable
class Decodes(Protocol):
    """Makes images of latents, one vector per image, by a network that is its attribute ``generator``.

    Attributes:
        latent_dim: Numbers in a latent.
    """

    latent_dim: int

    def latents(self, n: int, *, condition: Condition | None = None, noise: Noise) -> Tensor:
        """Return the latents ``(n, latent_dim)`` of the samples that the same arguments give."""

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the images ``(n, C, H, W)`` of latents ``(n, latent_dim)``, in the spec's range."""


@runtime_checkable
class Encodes(Protocol):
    """Makes latents of images, and images of latents."""

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the latents ``(N, latent_dim)`` of images ``(N, C, H, W)`` in the spec's range."""

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the images of latents; see `Decodes`."""


@runtime_checkable
class Reconstructs(Protocol):
    """Makes images of images, by codes that are no vectors."""

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return the reconstructions ``(N, C, H, W)`` of images in the spec's range."""


@runtime_checkable
class Interpolates(Protocol):
    """Makes images between two samples."""

    def interpolate(self, n: int, *, condition: Condition | None = None, noise: Noise) -> Tensor:
        """Return n images on the way from the sample of the stream's first item to that of its second."""


@runtime_checkable
class Observes(Protocol):
    """Models something other than the images themselves, such as random binary pixels."""

    def observed(self, images: Tensor, noise: Noise) -> Tensor:
        """Return what is modeled of images ``(N, C, H, W)`` in the spec's range."""


@runtime_checkable
class HasLikelihood(Observes, Protocol):
    """Gives images a likelihood."""

    def log_likelihood(self, images: Tensor, labels: Tensor | None = None, *, samples: int, noise: Noise) -> Tensor:
        """Return ``(N, 2)`` float64 nats: importance-sampled log p(x) of observed images, and the ELBO."""


# -- of networks and augmentations


@runtime_checkable
class HasFeatures(Protocol):
    """A discriminator in two parts: ``features``, a method or a submodule, of images ``(N, C, H, W)``, and a head."""

    def head(self, features: Tensor, y: Tensor | None) -> Tensor:
        """Return the logits ``(N,)`` of features, given labels ``(N,)`` or None."""


@runtime_checkable
class JudgesPairs(Protocol):
    """A discriminator that judges a real and a fake batch in one pass."""

    def pair(self, real: Tensor, fake: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the logits ``(N,)`` of each batch, which have the same labels ``(N,)`` or None."""


@runtime_checkable
class Adapts(Protocol):
    """An augmentation that adapts to the discriminator's overfitting; ``p`` is the probability of each change."""

    def adapt(self, overfitting: Tensor, images: int) -> None:
        """Take in the mean sign of the discriminator's logits over so many images."""
