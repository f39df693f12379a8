"""Training of VQ-VAEs: an autoencoder through discrete codes, and the prior that generates them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lit_aigc.errors import check
from lit_aigc.modules.base import GenerativeModule, Recipe
from lit_aigc.networks.vector_quantizer import as_rows, code_counts, perplexity
from lit_aigc.networks.vqvae import CodeModel
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, Condition, DataSpec


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss that the autoencoder minimizes, and for how long.

    Attributes:
        l1: Weight of the mean absolute error of the values of an image.
        l2: Weight of their mean squared error.
        commitment: Weight of the mean squared distance of the encoder's vectors from their codes.
        until: Share of the budget after which the autoencoder stays as it is, and only the prior keeps learning; the
            autoencoder's schedule runs over that share.
    """

    l1: float = 0.0
    l2: float = 1.0
    commitment: float = 0.25
    until: float = 1.0

    def __post_init__(self) -> None:
        no_target = "model.objective: l1 and l2 are both 0, so nothing asks for images that resemble the data."
        check(
            ("model.objective.l1", self.l1, self.l1 >= 0, "a weight of 0 or more"),
            ("model.objective.l2", self.l2, self.l2 >= 0, "a weight of 0 or more"),
            ("model.objective.commitment", self.commitment, self.commitment >= 0, "a weight of 0 or more"),
            ("model.objective.until", self.until, 0 < self.until <= 1, "a share of the budget in (0, 1]"),
            more=[] if self.l1 or self.l2 else [no_target],
        )


class VQVAE(GenerativeModule):
    """A VQ-VAE with an autoregressive prior (van den Oord et al., 2017), class-conditional (in the prior) or not.

    Each batch is a step of the autoencoder, one of the codebook's moving averages, and a step of the prior on the
    batch's codes; no gradient of the prior reaches the encoder. Dead codes are moved to vectors of the batch.

    Logs, of the ``val`` split and with averaged weights, ``reconstruction`` (mean squared error of a value),
    ``prior_nll`` (nats of the whole map of codes of an image) and ``codebook_perplexity`` (at most the number of
    codes); the same of training batches.

    Args:
        network: Encoder, codebook, decoder and prior.
        spec: The facts of the data.
        conditional: Whether the prior is given class labels.
        objective: The loss of the autoencoder.
        temperature: Of samples: below 1 likely codes become likelier.
        optimizer: Of the autoencoder: name and options of an optimizer of `torch.optim`.
        prior_optimizer: Of the prior.
        recipe: Schedule, clipping, accumulation, averaged weights.

    Raises:
        InputError: If an option is out of range.
    """

    of_tokens = False
    validation_keys = ("reconstruction", "prior_nll", "codebook_perplexity")

    def __init__(
        self,
        network: CodeModel,
        spec: DataSpec,
        conditional: bool = False,
        objective: Objective | None = None,
        temperature: float = 1.0,
        optimizer: Mapping[str, Any] | None = None,
        prior_optimizer: Mapping[str, Any] | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__(spec, conditional, recipe)
        self.objective = objective or Objective()
        self.temperature = _checked(temperature)
        self.network = network
        autoencoder = (optimizer, network.encoder, network.decoder)
        self.prepare(
            self.network,
            optimizers={"autoencoder": autoencoder, "prior": (prior_optimizer, network.prior)},
            compiled=(network.encoder, network.decoder, network.prior),
        )

    # -- training

    def rate_factor(self, index: int) -> float:
        """Return the factor on a learning rate: the autoencoder's schedule runs over the share in which it learns."""
        learns = index == 0 and self.progress < self.objective.until
        return self.recipe.rate_factor(self.progress / self.objective.until if learns else self.progress)

    def train_batch(self, batch: Batch) -> Mapping[str, Tensor]:
        """Make one step of the autoencoder and its codebook, while they learn, and one of the prior."""
        optimizer, prior_optimizer = self.optimizers()
        if self.progress < self.objective.until:
            values, codes = self._train_autoencoder(optimizer, batch)
        else:
            with torch.no_grad():
                values, codes = {}, self.network.encode(batch.images)

        def prior_loss(part: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            first = part.start - batch.start
            log_prob = self.network.prior.log_prob(codes[first : first + len(part.images)], self.labels_of(part))
            return -log_prob.mean() / self.network.prior.length, {"prior_nll": -log_prob.mean()}

        values |= self.update(prior_optimizer, batch, prior_loss, name="prior")
        counts = code_counts(codes, self.network.quantizer.codes)
        values["codebook_perplexity"] = perplexity(self.trainer.strategy.reduce(counts, reduce_op="sum"))
        return values

    def _train_autoencoder(self, optimizer: torch.optim.Optimizer, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        quantizer = self.network.quantizer
        # The codebook starts as vectors of the first batch.
        if not quantizer.started:
            with torch.no_grad():
                vectors = as_rows(self.network.encoder(batch.images).float())
            use = len(vectors) * self.trainer.world_size / quantizer.codes
            quantizer.start(self._candidates(vectors, batch), use)
        seen: list[tuple[Tensor, Tensor]] = []

        def loss(part: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            made = self.network(part.images)
            seen.append((as_rows(made.vectors.detach()), made.codes))
            difference = made.images - part.images.float()
            squared = difference.square().mean()
            value = self.objective.l2 * squared + self.objective.commitment * made.commitment
            if self.objective.l1:
                value = value + self.objective.l1 * difference.abs().mean()
            return value, {"loss": value, "reconstruction": squared, "commitment": made.commitment}

        values = self.update(optimizer, batch, loss, name="autoencoder", generates=False)
        # The codes follow the vectors by moving averages over all processes, and not by gradients.
        vectors, codes = (torch.cat(parts) for parts in zip(*seen, strict=True))
        statistics = quantizer.statistics(vectors, codes.flatten())
        quantizer.move(self.trainer.strategy.reduce(statistics, reduce_op="sum"))
        dead = quantizer.dead()
        if dead.device.type != "cpu" or dead.any():  # on a GPU the question costs more than the answer
            quantizer.revive(dead, self._candidates(vectors, batch))
        values["revived_codes"] = dead.sum()
        return values, codes

    def _candidates(self, vectors: Tensor, batch: Batch) -> Tensor:
        """Return up to as many vectors ``(C, dim)`` of the batch, of all processes, as codes, in random order.

        Args:
            vectors: ``(N * length, dim)`` of this process.
            batch: Where in the stream they are: the order depends on that alone.
        """
        noise = Noise(self.seed, batch.start).stream("codebook")
        rank = noise.uniform(len(batch.images), self.network.prior.length, device=self.device).flatten()
        # Every process offers its vectors of the lowest ranks; of all offers together the lowest are taken.
        number = min(self.network.quantizer.codes, len(rank))
        first = rank.topk(number, largest=False)
        ranked = torch.cat([first.values[:, None], vectors[first.indices]], dim=1)
        ranked = self.all_gather(ranked).reshape(-1, ranked.shape[1])
        return ranked[ranked[:, 0].argsort(stable=True), 1:][: self.network.quantizer.codes]

    # -- validation

    def validate_batch(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the error and the prior's nats of each image, and how often it has each code, ``(N, codes)``."""
        made = self.network(batch.images)
        counts = made.images.new_zeros(len(made.codes), self.network.quantizer.codes, dtype=torch.float32)
        return {
            "reconstruction": (made.images - batch.images).square().flatten(1).mean(dim=1),
            "prior_nll": -self.network.prior.log_prob(made.codes, self.labels_of(batch)),
            "uses": counts.scatter_add_(1, made.codes, torch.ones_like(made.codes, dtype=torch.float32)),
        }

    def validation_figures(self, means: Mapping[str, Tensor]) -> Mapping[str, float | Tensor]:
        """Return the means, and the perplexity of the codes that all images have together."""
        return {**means, "codebook_perplexity": perplexity(means["uses"])}

    # -- what a trained model can be asked

    def sample_block(self, n: int, condition: Condition, noise: Noise, temperature: float | None = None) -> Tensor:
        """Return images ``(n, C, H, W)`` of codes from the prior.

        Args:
            n: Number of images.
            condition: Their classes.
            noise: Item i is of image i.
            temperature: In place of the model's own.
        """
        temperature = self.temperature if temperature is None else _checked(temperature)
        images = self.network.sample(n, condition.labels, noise=noise.stream("codes"), temperature=temperature)
        return self._in_range(images)

    @torch.no_grad()
    def codes(self, images: Tensor) -> Tensor:
        """Return the codes ``(N, length)`` int64, in raster order, of images ``(N, C, H, W)`` in the spec's range."""
        with self.evaluating():
            return self.network.encode(images.to(self.device))

    @torch.no_grad()
    def images_of(self, codes: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` in the spec's range of codes ``(N, length)``."""
        with self.evaluating():
            return self._in_range(self.network.decode(codes.to(self.device)))

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` in the spec's range, through the codes and back."""
        return self.images_of(self.codes(images))

    def _in_range(self, images: Tensor) -> Tensor:
        return images.contiguous().clamp(*self.spec.value_range)


def _checked(temperature: float) -> float:
    check(("temperature", temperature, temperature > 0, "a positive number; 1 is the prior as it was learned"))
    return temperature
