"""Networks with latent variables, whatever their structure, as the objective of a VAE uses them."""

from __future__ import annotations

import functools
from typing import NamedTuple

from torch import Tensor, nn

from lit_aigc.errors import check
from lit_aigc.networks.layers.densities import normal_log_prob
from lit_aigc.networks.likelihood import Likelihood
from lit_aigc.networks.prior import StandardNormal

Code = tuple[Tensor, ...]
"""An encoded posterior: tensors of ``(N, ...)``."""


class Inference(NamedTuple):
    """Latents sampled from the posteriors of images, decoded.

    Attributes:
        parameters: ``(N, maps, H, W)`` for the likelihood.
        z: ``(N, latent_dim)``: the latents as `LatentModel.decode` takes them.
        kl: ``(N, G)`` nats: KL of the posterior from the prior, with a column for each group of latents that has free
            bits of its own; in closed form if there is one, else the single-sample estimate `log_ratio`.
        log_ratio: ``(N,)``: log q(z | x) - log p(z) of these latents.
    """

    parameters: Tensor
    z: Tensor
    kl: Tensor
    log_ratio: Tensor


class LatentModel(nn.Module):
    """A model of images by latents. A subclass implements the four steps; y are labels ``(N,)`` or None.

    Attributes:
        latent_dim: Number of latents per image.
        likelihood: Likelihood of images, given the parameters that `decode` returns.
    """

    latent_dim: int
    likelihood: Likelihood

    def encode(self, x: Tensor, y: Tensor | None = None) -> Code:
        """Encode images ``(N, C, H, W)`` for their posteriors."""
        raise NotImplementedError

    def infer(self, code: Code, eps: Tensor, y: Tensor | None = None) -> Inference:
        """Sample the posterior with standard normal ``eps`` (N, latent_dim), where 0 gives its mean, and decode."""
        raise NotImplementedError

    def draw(self, eps: Tensor, y: Tensor | None = None) -> Tensor:
        """Map standard normal noise ``(N, latent_dim)`` to latents of the prior."""
        return eps

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map latents ``(N, latent_dim)`` to parameters ``(N, maps, H, W)``."""
        raise NotImplementedError

    def forward(self, x: Tensor, eps: Tensor, y: Tensor | None = None) -> Inference:
        """Encode N images once and sample k latents for each.

        Args:
            x: ``(N, C, H, W)``.
            eps: ``(N, k, latent_dim)`` standard normal.
            y: ``(N,)`` or None.

        Returns:
            The inference of N * k latents, those of one image next to each other.
        """
        code = self.encode(x, y)
        k = eps.shape[1]
        if k > 1:
            code = tuple(part.repeat_interleave(k, dim=0) for part in code)
            y = None if y is None else y.repeat_interleave(k)
        return self.infer(code, eps.flatten(0, 1), y)


class SingleLevel(LatentModel):
    """One vector of latents with a normal posterior (Kingma and Welling, 2014).

    Args:
        encoder: ``encoder(x, y) -> (mean, log_var)``, ``(N, latent_dim)`` each; with an attribute ``latent_dim``.
        decoder: ``decoder(z, y) -> (N, maps, H, W)``; with attributes ``latent_dim`` and ``likelihood``.
        prior: Prior of the latents (see `lit_aigc.networks.prior`); None: standard normal.

    Raises:
        InputError: If encoder and decoder differ in ``latent_dim``.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, prior: nn.Module | None = None) -> None:
        super().__init__()
        ours, theirs = encoder.latent_dim, decoder.latent_dim
        check(("encoder.latent_dim", ours, ours == theirs, f"that of the decoder, decoder.latent_dim={theirs}"))
        self.encoder, self.decoder = encoder, decoder
        self.prior = prior or StandardNormal()
        self.latent_dim = encoder.latent_dim

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood of the decoder."""
        return self.decoder.likelihood

    def encode(self, x: Tensor, y: Tensor | None = None) -> Code:
        """Return mean and log-variance of the posterior, ``(N, latent_dim)`` each."""
        mean, log_var = self.encoder(x, y)
        return mean.float(), log_var.float()

    def infer(self, code: Code, eps: Tensor, y: Tensor | None = None) -> Inference:
        """See `LatentModel`; each dimension is a group, or all form one if the KL has no closed form."""
        mean, log_var = code
        z = mean + (0.5 * log_var).exp() * eps
        kl = self.prior.kl(mean, log_var)
        log_ratio = normal_log_prob(z, mean, log_var).sum(dim=1) - self.prior.log_prob(z, self._posterior(y))
        if kl is None:
            kl = log_ratio[:, None]  # an unbiased estimate from one sample
        return Inference(self.decode(z, y), z, kl, log_ratio)

    def draw(self, eps: Tensor, y: Tensor | None = None) -> Tensor:
        """See `LatentModel`."""
        return self.prior.draw(eps, self._posterior(y))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See `LatentModel`."""
        return self.decoder(z, y)

    def _posterior(self, y: Tensor | None) -> functools.partial:
        return functools.partial(self.encoder, y=y)


def checked_latent_dim(latent_dim: int) -> int:
    """Return the size of a latent.

    Raises:
        InputError: If it is below 1.
    """
    check(("latent_dim", latent_dim, latent_dim >= 1, "1 or more"))
    return latent_dim
