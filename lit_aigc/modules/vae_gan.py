"""VAE-GANs: an autoencoder that compares images by a discriminator's features and is trained to fool it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_aigc.errors import check
from lit_aigc.losses.gan_regularization import learned_similarity, zero_centered_penalty
from lit_aigc.modules.adversarial import AdversarialModule, gan_statistics, logit_statistics
from lit_aigc.modules.base import Recipe
from lit_aigc.modules.latent import Autoencoder
from lit_aigc.networks.latent import LatentModel
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, DataSpec


class Outputs(NamedTuple):
    """The autoencoder's outputs for N images.

    Attributes:
        reconstructions: ``(N, C, H, W)``.
        kl: ``(N,)`` nats.
        fakes: ``(2N, C, H, W)``: the reconstructions again, and images of latents from the prior. No gradient flows
            from them to the latents, and so none to the encoder.
    """

    reconstructions: Tensor
    kl: Tensor
    fakes: Tensor


class VAEGAN(AdversarialModule, Autoencoder):
    """A VAE-GAN (Larsen et al., "Autoencoding beyond pixels using a learned similarity metric", 2016).

    Each batch is a discriminator step and an autoencoder step. With S the squared distance, halved, of a reconstruction
    from its image in the discriminator's features (the negative log-likelihood of a unit Gaussian there, but for a
    constant), and A the adversarial loss of reconstructions and of samples from the prior,

        the encoder minimizes ``gamma * (beta * KL + S)``, the decoder ``gamma * S + A``, the discriminator its loss.

    Algorithm 1 of the paper has ``KL + S`` for the encoder: Adam doesn't see the factor. One loss and one optimizer
    serve both, as A is of images that are decoded once more, from latents that carry no gradient. Two differences: the
    losses are means over both kinds of fakes, so that real and fake images weigh the same, and A doesn't saturate by
    default.

    Logs, of the ``val`` split and with averaged weights, ``kl`` (nats) and ``similarity`` (S), both per image, and
    ``reconstruction``, the mean squared error of pixels, with one draw of latents per image.

    Args:
        network: Encoder, decoder and prior. Its likelihood serves by its mean only: the images, which a ``Bernoulli``
            keeps within [-1, 1].
        discriminator: With ``features`` and ``head`` (see `lit_aigc.networks.layers.discriminator`).
        spec: The facts of the data.
        conditional: Whether the networks are given class labels.
        loss: A name of `lit_aigc.losses.gan.ADVERSARIAL_LOSSES`.
        gamma: Weight of the similarity against the adversarial loss: less for sharper images, more for closer ones.
        beta: Weight of the KL against the similarity: more for samples like the reconstructions, less for closer ones.
        r1: Weight of half the squared gradient at real images (Mescheder et al., 2018), the discriminator's.
        autoencoder_optimizer: Name and options of an optimizer of `torch.optim`.
        discriminator_optimizer: The same for the discriminator.
        recipe: Schedule, clipping, accumulation, averaged weights.

    Raises:
        InputError: If an option is out of range, or the networks can't do what is asked.
    """

    validation_keys = ("kl", "similarity", "reconstruction")
    opponent = "autoencoder_optimizer"
    penalty = "model.r1=1"

    def __init__(
        self,
        network: LatentModel,
        discriminator: nn.Module,
        spec: DataSpec,
        conditional: bool = False,
        loss: str = "non_saturating",
        gamma: float = 0.01,
        beta: float = 1.0,
        r1: float = 0.0,
        autoencoder_optimizer: Mapping[str, Any] | None = None,
        discriminator_optimizer: Mapping[str, Any] | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__(network, spec, conditional, recipe)
        check(
            ("model.gamma", gamma, gamma > 0, "a weight above 0"),
            ("model.beta", beta, beta >= 0, "a weight of 0 or more"),
            ("model.r1", r1, r1 >= 0, "a weight of 0 or more"),
        )
        self.penalizes_gradients = r1 > 0
        self.gamma, self.beta, self.r1 = gamma, beta, r1
        optimizers = {"d": discriminator_optimizer, "ae": autoencoder_optimizer}
        self.set_players(network, discriminator, loss, optimizers, needs_features="A VAE-GAN")

    @property
    def remedy(self) -> str:
        """See `AdversarialModule`."""
        return f"add {self.damping}" if self.synchronizes_statistics else "raise model.r1"

    # -- training

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `AdversarialModule`."""
        y = self.labels_of(batch)
        with torch.set_grad_enabled(self._shares):
            self._outputs = self._make(batch)
        real = batch.images.detach().requires_grad_(self.r1 > 0)
        reconstructions, samples = self._outputs.fakes.detach().chunk(2)
        real_logits, reconstruction_logits = self.logits_of_pair(real, reconstructions, y, twice=self.r1 > 0)
        sample_logits = self.discriminator(samples.to(real.dtype), y).float()
        fake_logits = torch.cat([reconstruction_logits, sample_logits])
        loss = self.loss.discriminator(real_logits.repeat(2), fake_logits)
        values = {"d_loss": loss, **logit_statistics(real_logits.repeat(2), fake_logits, self.loss.pairs)}
        if self.log_is_due:
            logits = {"real": real_logits, "reconstruction": reconstruction_logits, "sample": sample_logits}
            values |= {f"{name}_logit": each.mean() for name, each in logits.items()}
            values |= gan_statistics(batch.images, samples, y, self.spec.num_classes)
        if self.r1:
            values["r1"] = zero_centered_penalty(real_logits, real, self.loss_scale)
            loss = loss + self.r1 * values["r1"]
        return loss, values

    def opponent_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `AdversarialModule`: the autoencoder's."""
        y = self.labels_of(batch)
        outputs = self._outputs if self._shares else self._make(batch)
        with torch.no_grad():
            real_features = self.discriminator.features(batch.images)
            real_logits = self.discriminator.head(real_features, y).float() if self.loss.compares else None
        similarity = learned_similarity(real_features, self.discriminator.features(outputs.reconstructions)).mean()
        fake_logits = torch.cat(self.logits_of_pair(*outputs.fakes.chunk(2), y, twice=False))
        adversarial = self.loss.generator(None if real_logits is None else real_logits.repeat(2), fake_logits)
        kl = outputs.kl.mean()
        loss = self.gamma * (self.beta * kl + similarity) + adversarial
        return loss, {"loss": loss, "g_loss": adversarial, "kl": kl, "similarity": similarity}

    def _make(self, batch: Batch) -> Outputs:
        y, n = self.labels_of(batch), len(batch.images)
        noise = Noise(self.seed, batch.start).stream("training")
        eps = noise.stream("posterior").normal(n, 1, self.latent_dim, device=self.device)
        drawn = self.network(batch.images, eps, y)
        prior = self.network.draw(noise.stream("prior").normal(n, self.latent_dim, device=self.device), y)
        z = torch.cat([drawn.z, prior]).detach()
        mean = self.network.likelihood.mean
        fakes = mean(self.network.decode(z, None if y is None else y.repeat(2)))
        return Outputs(mean(drawn.parameters), drawn.kl.sum(dim=1), fakes)

    # -- validation

    def validate_batch(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the terms of the encoder's loss, and the error of the reconstruction, of each image."""
        noise = Noise(0, batch.start).stream("validation").stream("posterior")
        eps = noise.normal(len(batch.images), 1, self.latent_dim, device=self.device)
        drawn = self.network.forward(batch.images, eps, self.labels_of(batch))
        images = self.network.likelihood.mean(drawn.parameters)
        real_features, features = (self.discriminator.features(x) for x in (batch.images, images))
        error = (images.clamp(*self.spec.value_range) - batch.images).square().flatten(1).mean(dim=1)
        return {
            "kl": drawn.kl.sum(dim=1),
            "similarity": learned_similarity(real_features, features),
            "reconstruction": error,
        }
