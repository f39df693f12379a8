"""The training of VAEs by variational bounds, for any networks with latent variables."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lit_aigc.build import did_you_mean
from lit_aigc.errors import InputError
from lit_aigc.losses.vae import annealed, free_bits, importance_bound
from lit_aigc.modules.autoencoder import Autoencoder
from lit_aigc.modules.base import Recipe
from lit_aigc.networks.latent import LatentModel
from lit_aigc.noise import Noise
from lit_aigc.optimization.optimizers import optimizer as make_optimizer
from lit_aigc.spec import Batch, DataSpec

BOUNDS = ("elbo", "iwae")
ACTIVE = 0.01  # variance of a posterior mean over the data from which a unit counts (Burda et al., 2016, section 5.2)
_DRAWS = 256  # latents decoded at once when likelihoods are computed: few enough to stay in a cache


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is maximized.

    Attributes:
        bound: ``elbo``, or ``iwae`` for the importance-weighted one.
        samples: Latents drawn for an image: of the elbo their mean is taken.
        beta: Weight of the KL: 1 for a bound on the likelihood, more for latents that are better apart (Higgins et al.,
            "beta-VAE", 2017).
        warmup: Share of the budget over which that weight rises from 0.
        free_bits: Nats of each group of latents that cost nothing, in the mean over the images that a process takes at
            once: fewer than the batch with several processes or ``recipe.accumulate``.
    """

    bound: str = "elbo"
    samples: int = 1
    beta: float = 1.0
    warmup: float = 0.0
    free_bits: float = 0.0

    def __post_init__(self) -> None:
        wrong = [
            f"model.objective.{name}={getattr(self, name)}: expected {expected}"
            for name, expected, fine in (
                ("samples", "1 or more", self.samples >= 1),
                ("beta", "a weight of 0 or more", self.beta >= 0),
                ("warmup", "a share in [0, 1]", 0 <= self.warmup <= 1),
                ("free_bits", "0 nats or more", self.free_bits >= 0),
            )
            if not fine
        ]
        if self.bound not in BOUNDS:
            wrong.append(f"model.objective.bound={self.bound!r} is unknown{did_you_mean(self.bound, BOUNDS)}")
        elif self.bound == "iwae" and self.free_bits:
            wrong.append("model.objective.free_bits goes with bound=elbo only: there is no KL in the other.")
        if wrong:
            raise InputError("\n".join(wrong))


class VAE(Autoencoder):
    """A variational autoencoder (Kingma and Welling, 2014; Rezende et al., 2014), class-conditional or not.

    Logs, of the ``val`` split and with averaged weights, ``elbo`` (nats an image, the mean over one draw of latents
    each), its terms ``log_likelihood`` and ``kl`` with ``elbo = log_likelihood - kl``, ``active_units``, and, where the
    likelihood gives probabilities, ``bits_per_dim``.

    Args:
        network: Encoder, decoder and prior; its decoder has the likelihood.
        spec: The facts of the data.
        conditional: Whether the network is given class labels.
        objective: What is maximized.
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
        super().__init__(spec, conditional, recipe)
        if tuple(spec.value_range) != (-1.0, 1.0):
            raise InputError(f"A VAE's likelihoods are of images in [-1, 1], and these have {spec.value_range}.")
        self.objective = objective or Objective()
        layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        self.network = network.to(memory_format=layout)
        self.latent_dim = network.latent_dim
        self._optimizer_config = dict(optimizer or {})
        self._sums = torch.zeros(3, dtype=torch.float64)  # over the validation: images, log-likelihood, KL
        self._moments = torch.zeros(2, self.latent_dim, dtype=torch.float64)  # of the posterior means
        self.compile_parts(self.network)
        self.average(self.network)
        self.configure_optimizers()  # a wrong option shows now, not when training starts

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimizer, of all weights."""
        return [make_optimizer(self._optimizer_config, self.network.parameters())]

    # -- training

    def train_batch(self, batch: Batch) -> Mapping[str, Tensor]:
        """One step on the bound."""
        if self.batches == 0:
            self._check_support(batch.images)
        values = self.update(self.optimizers(), batch, self._loss)
        self.count_generator_update()
        return values

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
        if not -1.001 <= low <= high <= 1.001:  # not a number is outside, too
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

    def on_validation_epoch_start(self) -> None:
        """Starts the sums."""
        self._sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        self._moments = torch.zeros(2, self.latent_dim, dtype=torch.float64, device=self.device)

    @torch.no_grad()
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds the batch to the sums, in evaluation mode and with averaged weights."""
        with self.averaged(), self.evaluating():
            noise = Noise(0, batch.start).stream("validation")
            x, y = self.observed(batch.images, noise), self.labels_of(batch)
            eps = noise.stream("posterior").normal(len(x), self.latent_dim, device=self.device)
            code = self.network.encode(x, y)
            drawn = self.network.infer(code, eps, y)
            log_likelihood = self.network.likelihood.log_prob(drawn.parameters, x)
            means = self.network.infer(code, torch.zeros_like(eps), y).z.double()
        terms = [log_likelihood.new_tensor(len(x)), log_likelihood.sum(), drawn.kl.sum()]
        self._sums += torch.stack(terms).double()
        self._moments += torch.stack([means.sum(dim=0), means.square().sum(dim=0)])

    def on_validation_epoch_end(self) -> None:
        """Logs the bound and its terms over all processes."""
        total = self.trainer.strategy.reduce(torch.cat([self._sums, self._moments.flatten()]), reduce_op="sum")
        n, log_likelihood, kl = total[:3].tolist()
        first, second = total[3:].unflatten(0, (2, -1)) / n
        active = int((second - first.square() > ACTIVE).sum())
        elbo = (log_likelihood - kl) / n
        bits = -elbo / (math.prod(self.spec.shape) * math.log(2))
        values = (elbo, log_likelihood / n, kl / n, active, bits)
        self.log_values(dict(zip(self.validation_keys, values, strict=False)))

    # -- what a trained model can be asked

    def observed(self, images: Tensor, noise: Noise) -> Tensor:
        """What of images ``(N, C, H, W)`` in [-1, 1] is modelled: for Bernoulli pixels a random binarisation."""
        return self.network.likelihood.observe(images.to(self.device), noise.stream("observation"))

    @torch.no_grad()
    def log_likelihood(self, images: Tensor, labels: Tensor | None = None, *, samples: int, noise: Noise) -> Tensor:
        """Importance-sampled log p(x) of observed images, in nats: in expectation a lower bound (Burda et al., 2016).

        Args:
            images: ``(N, C, H, W)`` as `observed` returns them.
            labels: ``(N,)`` for a conditional model.
            samples: Latents drawn for an image; memory doesn't grow with them.
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
            total = first = None
            step = max(1, _DRAWS // len(images))
            for done in range(0, samples, step):
                k = min(step, samples - done)
                draws = [noise.stream(f"posterior {i}") for i in range(done, done + k)]  # the same in any chunks
                eps = torch.stack([draw.normal(len(images), self.latent_dim) for draw in draws], dim=1)
                repeated = tuple(part.repeat_interleave(k, dim=0) for part in code)
                drawn = self.network.infer(
                    repeated, eps.to(self.device).flatten(0, 1), None if y is None else y.repeat_interleave(k)
                )
                log_px = self.network.likelihood.log_prob(drawn.parameters, _repeated(images, k))
                log_weights = (log_px - drawn.log_ratio).double().unflatten(0, (-1, k))
                first = log_weights[:, 0] if first is None else first
                part = torch.logsumexp(log_weights, dim=1)
                total = part if total is None else torch.logaddexp(total, part)
        return torch.stack([total - math.log(samples), first], dim=1)


def _repeated(x: Tensor, k: int) -> Tensor:
    return x if k == 1 else x.repeat_interleave(k, dim=0)
