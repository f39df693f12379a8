"""Training of VAEs by variational bounds, for any network with latent variables."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lit_aigc.build import did_you_mean
from lit_aigc.errors import InputError, check
from lit_aigc.losses.vae import annealed, free_bits, importance_bound
from lit_aigc.modules.base import Recipe
from lit_aigc.modules.latent import Autoencoder
from lit_aigc.networks.latent import LatentModel
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, DataSpec

BOUNDS = ("elbo", "iwae")
ACTIVE = 0.01  # variance of a posterior mean over the data above which a unit counts (Burda et al., 2016, section 5.2)
_DRAWS = 256  # latents decoded at once when likelihoods are computed: few enough to stay in a cache


@dataclasses.dataclass(frozen=True)
class Objective:
    """The variational bound to maximize.

    Attributes:
        bound: ``elbo``, or ``iwae`` for the importance-weighted one.
        samples: Latents drawn per image: the elbo is averaged over them.
        beta: Weight of the KL: 1 for a bound on the likelihood, more for latents that are more independent (Higgins et
            al.,
            "beta-VAE", 2017).
        warmup: Share of the budget over which that weight rises from 0.
        free_bits: Nats per group of latents that cost nothing, in the mean over the images that a process takes at
            once: fewer than the batch with several processes or ``recipe.accumulate``.
    """

    bound: str = "elbo"
    samples: int = 1
    beta: float = 1.0
    warmup: float = 0.0
    free_bits: float = 0.0

    def __post_init__(self) -> None:
        problems = []
        if self.bound not in BOUNDS:
            problems.append(f"model.objective.bound={self.bound!r} is unknown{did_you_mean(self.bound, BOUNDS)}")
        elif self.bound == "iwae" and self.free_bits:
            problems.append("model.objective.free_bits needs bound=elbo: the other has no KL.")
        check(
            ("model.objective.samples", self.samples, self.samples >= 1, "1 or more"),
            ("model.objective.beta", self.beta, self.beta >= 0, "a weight of 0 or more"),
            ("model.objective.warmup", self.warmup, 0 <= self.warmup <= 1, "a share in [0, 1]"),
            ("model.objective.free_bits", self.free_bits, self.free_bits >= 0, "0 nats or more"),
            more=problems,
        )


class VAE(Autoencoder):
    """A variational autoencoder (Kingma and Welling, 2014; Rezende et al., 2014), class-conditional or not.

    Logs, of the ``val`` split and with averaged weights, ``elbo`` (nats per image, with one draw of latents
    each), its terms ``log_likelihood`` and ``kl`` with ``elbo = log_likelihood - kl``, ``active_units``, and, where the
    likelihood gives probabilities, ``bits_per_dim``.

    Args:
        network: Encoder, decoder and prior; its decoder has the likelihood.
        spec: The facts of the data.
        conditional: Whether the network is given class labels.
        objective: The bound to maximize.
        optimizer: Name and options of an optimizer of `torch.optim`.
        recipe: Schedule, clipping, accumulation, averaged weights.

    Raises:
        InputError: If an option is out of range, or the network doesn't fit the data.
    """

    trains_all_at_once = True

    def __init__(
        self,
        network: LatentModel,
        spec: DataSpec,
        conditional: bool = False,
        objective: Objective | None = None,
        optimizer: Mapping[str, Any] | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__(network, spec, conditional, recipe)
        self.objective = objective or Objective()
        self.prepare(self.network, optimizers={"": (optimizer, self.network)})

    # -- training

    def train_batch(self, batch: Batch) -> Mapping[str, Tensor]:
        """Make one step on the bound."""
        if self.batches == 0:
            self._check_support(batch.images)
        return self.update(self.optimizers(), batch, self._loss)

    def _loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        noise = Noise(self.seed, batch.start).stream("training")
        k, goal = self.objective.samples, self.objective
        x = self.network.likelihood.observe(batch.images, noise.stream("observation"))
        eps = noise.stream("posterior").normal(len(x), k, self.latent_dim, device=self.device)
        drawn = self.network(x, eps, self.labels_of(batch))
        log_likelihood = self.network.likelihood.log_prob(drawn.parameters, _repeated(x, k))
        beta = annealed(goal.beta, self.progress, goal.warmup)
        if goal.bound == "iwae":
            loss = -importance_bound((log_likelihood - beta * drawn.log_ratio).unflatten(0, (-1, k))).mean()
        else:
            kl = free_bits(drawn.kl, goal.free_bits) if goal.free_bits else drawn.kl.mean(dim=0)
            loss = beta * kl.sum() - log_likelihood.mean()
        kl = drawn.kl.detach().sum(dim=1).mean()
        return loss, {"loss": loss, "log_likelihood": log_likelihood.mean(), "kl": kl}

    def _check_support(self, images: Tensor) -> None:
        low, high = (float(end) for end in images.aminmax())
        if not -1.001 <= low <= high <= 1.001:  # NaN is outside, too
            raise InputError(
                f"The images have values from {low:.3g} to {high:.3g}, and the likelihood is of [-1, 1]: scale them in "
                "the DataModule."
            )

    # -- validation

    @property
    def validation_keys(self) -> tuple[str, ...]:
        """The bound, its terms, and, where pixels have probabilities, the bound in bits."""
        bits = ("bits_per_dim",) if self.network.likelihood.discrete else ()
        return ("elbo", "log_likelihood", "kl", "active_units", *bits)

    def validate_batch(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the terms of the ELBO of each image, and the posterior mean with its square, ``(N, latent_dim)``."""
        noise = Noise(0, batch.start).stream("validation")
        x, y = self.observed(batch.images, noise), self.labels_of(batch)
        eps = noise.stream("posterior").normal(len(x), self.latent_dim, device=self.device)
        code = self.network.encode(x, y)
        drawn = self.network.infer(code, eps, y)
        mean = self.network.infer(code, torch.zeros_like(eps), y).z.double()
        return {
            "log_likelihood": self.network.likelihood.log_prob(drawn.parameters, x),
            "kl": drawn.kl.sum(dim=1),
            "mean": mean,
            "square": mean.square(),
        }

    def validation_figures(self, means: Mapping[str, Tensor]) -> Mapping[str, float | Tensor]:
        """Return the bound, its terms, and the number of latents that vary with the image."""
        elbo = means["log_likelihood"] - means["kl"]
        variances = means["square"] - means["mean"].square()
        bits_per_dim = -elbo / (math.prod(self.spec.shape) * math.log(2))
        return {**means, "elbo": elbo, "active_units": (variances > ACTIVE).sum(), "bits_per_dim": bits_per_dim}

    # -- what a trained model can be asked

    def observed(self, images: Tensor, noise: Noise) -> Tensor:
        """Return what is modeled of images ``(N, C, H, W)`` in [-1, 1]: for Bernoulli pixels a random binarization."""
        return self.network.likelihood.observe(images.to(self.device), noise.stream("observation"))

    @torch.no_grad()
    def log_likelihood(self, images: Tensor, labels: Tensor | None = None, *, samples: int, noise: Noise) -> Tensor:
        """Return the importance-sampled log p(x) of observed images, in nats: in expectation a lower bound.

        See Burda, Grosse and Salakhutdinov (2016), equation 8.

        Args:
            images: ``(N, C, H, W)`` as `observed` returns them.
            labels: ``(N,)`` for a conditional model.
            samples: Latents drawn per image; each takes 8 bytes of memory.
            noise: Item i is of image i.

        Returns:
            ``(N, 2)`` float64: the estimate from all samples, and that from the first alone, the ELBO.

        Raises:
            InputError: If a conditional model is given no labels.
        """
        if self.conditional and labels is None:
            raise InputError("This model is class-conditional: its likelihood of images needs their labels.")
        y = labels.to(self.device) if self.conditional else None
        with self.evaluating():
            code = self.network.encode(images, y)
            log_weights = []
            step = max(1, _DRAWS // len(images))
            for done in range(0, samples, step):
                k = min(step, samples - done)
                draws = [noise.stream(f"posterior {i}") for i in range(done, done + k)]  # the same in any chunks
                eps = torch.stack([draw.normal(len(images), self.latent_dim) for draw in draws], dim=1)  # (N, k, d)
                # From here on k rows per image, next to each other.
                repeated = tuple(part.repeat_interleave(k, dim=0) for part in code)
                classes = None if y is None else y.repeat_interleave(k)
                drawn = self.network.infer(repeated, eps.to(self.device).flatten(0, 1), classes)
                log_px = self.network.likelihood.log_prob(drawn.parameters, _repeated(images, k))
                log_weights.append((log_px - drawn.log_ratio).double().unflatten(0, (-1, k)))  # (N, k)
        weights = torch.cat(log_weights, dim=1)  # (N, samples)
        return torch.stack([importance_bound(weights), weights[:, 0]], dim=1)


def _repeated(x: Tensor, k: int) -> Tensor:
    return x if k == 1 else x.repeat_interleave(k, dim=0)
