"""Generative adversarial networks: alternating discriminator and generator steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_aigc.build import did_you_mean
from lit_aigc.errors import InputError
from lit_aigc.losses.gan import ADVERSARIAL_LOSSES
from lit_aigc.modules.base import GenerativeModule, Recipe, TrainingDiverged
from lit_aigc.noise import Noise
from lit_aigc.optimization import optimizer
from lit_aigc.spec import Batch, Condition, DataSpec

# What a discriminator that has collapsed looks like, over this many log windows in a row.
_PATIENCE = 10
_SAME_LOGIT_FOR_ALL = 1e-5
_NOTHING_LEFT_TO_LEARN = 1e-4


class GAN(GenerativeModule):
    """A GAN (Goodfellow et al., 2014), class-conditional or not.

    Each batch is one discriminator step; each `n_critic`-th batch is a generator step too.

    Args:
        generator: ``generator(z, y) -> images`` in the spec's range, with an attribute ``latent_dim``; z is
            ``(N, latent_dim)`` standard normal, y ``(N,)`` int64 labels or None.
        discriminator: ``discriminator(x, y) -> (N,)`` logits; where it has ``pair(real, fake, y)``, that serves its own
            step.
        spec: The facts of the data.
        conditional: Whether both networks are given class labels.
        loss: ``non_saturating`` or ``hinge``.
        n_critic: Discriminator steps for each generator step.
        generator_optimizer: Name and options of an optimizer of `torch.optim`.
        discriminator_optimizer: The same for the discriminator.
        recipe: Schedule, clipping, accumulation, averaged weights.

    Raises:
        InputError: If an option is out of range.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        spec: DataSpec,
        conditional: bool = False,
        loss: str = "non_saturating",
        n_critic: int = 1,
        generator_optimizer: Mapping[str, Any] | None = None,
        discriminator_optimizer: Mapping[str, Any] | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__(spec, conditional, recipe)
        if loss not in ADVERSARIAL_LOSSES:
            raise InputError(f"model.loss={loss!r} is unknown{did_you_mean(loss, ADVERSARIAL_LOSSES)}")
        if n_critic < 1:
            raise InputError(f"model.n_critic={n_critic}: expected at least one discriminator step a generator step.")
        layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        self.generator = generator.to(memory_format=layout)
        self.discriminator = discriminator.to(memory_format=layout)
        self.loss = ADVERSARIAL_LOSSES[loss]
        self.n_critic = n_critic
        self._optimizer_configs = (discriminator_optimizer or {}, generator_optimizer or {})
        self._suspicious_windows = 0
        self._shares_fakes = False
        self._fakes: Tensor | None = None
        self.average(self.generator)
        self.configure_optimizers()  # a wrong option shows now, not when training starts

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """The discriminator's optimizer, then the generator's."""
        networks = (self.discriminator, self.generator)
        return [optimizer(c, n.parameters()) for c, n in zip(self._optimizer_configs, networks, strict=True)]

    def train_batch(self, batch: Batch) -> Mapping[str, Tensor]:
        """One discriminator step, and a generator step if it is due."""
        discriminator_optimizer, generator_optimizer = self.optimizers()
        generates = (self.batches + 1) % self.n_critic == 0
        # One forward pass of the generator serves both steps, unless the batch comes in parts to save memory.
        self._shares_fakes = generates and self.recipe.accumulate == 1
        values = self.update(discriminator_optimizer, batch, self._discriminator_loss)
        if generates:
            self.discriminator.requires_grad_(False)
            values |= self.update(generator_optimizer, batch, self._generator_loss)
            self.discriminator.requires_grad_(True)
            self._fakes = None
            self.generator_updates += 1
            if self.ema:
                self.ema.update()
        return values

    def _discriminator_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        y = batch.labels if self.conditional else None
        with torch.set_grad_enabled(self._shares_fakes):
            self._fakes = self._generate(batch)
        real, fake = (logits.float() for logits in self._pair(batch.images, self._fakes.detach(), y))
        loss = self.loss.discriminator(real, fake)
        with torch.no_grad():
            accuracy = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
            spread = torch.cat([real, fake]).std(correction=0)
        return loss, {"d_loss": loss, "d_accuracy": accuracy, "d_spread": spread}

    def _pair(self, real: Tensor, fake: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        if hasattr(self.discriminator, "pair"):
            return self.discriminator.pair(real, fake.to(real.dtype), y)
        return self.discriminator(real, y), self.discriminator(fake, y)

    def _generator_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        y = batch.labels if self.conditional else None
        images = self._fakes if self._shares_fakes else self._generate(batch)
        loss = self.loss.generator(self.discriminator(images, y).float())
        return loss, {"g_loss": loss}

    def _generate(self, batch: Batch) -> Tensor:
        noise = Noise(self.seed, batch.start).stream("training")
        z = noise.normal(len(batch.images), self.generator.latent_dim, device=self.device)
        return self.generator(z, batch.labels if self.conditional else None)

    def check_health(self, means: Mapping[str, float]) -> None:
        """Stop when the discriminator has said nothing that a generator could learn from for ten windows in a row."""
        silent = means["d_spread"] < _SAME_LOGIT_FOR_ALL
        perfect = means["d_loss"] < _NOTHING_LEFT_TO_LEARN
        self._suspicious_windows = self._suspicious_windows + 1 if silent or perfect else 0
        if self._suspicious_windows < _PATIENCE:
            return
        seen = (
            f"it gives all images the same logit (spread {means['d_spread']:.1e})"
            if silent
            else f"it tells real from fake without error (loss {means['d_loss']:.1e})"
        )
        raise TrainingDiverged(
            f"The discriminator has collapsed: for {_PATIENCE * self.log_every} batches {seen}, so the generator "
            "learns nothing more. The last good checkpoint is kept. Lower discriminator_optimizer.lr, raise "
            "generator_optimizer.lr, or use data augmentation."
        )

    def sample_block(self, n: int, condition: Condition, noise: Noise) -> Tensor:
        """Images ``(n, C, H, W)`` from standard normal latents."""
        z = noise.stream("latent").normal(n, self.generator.latent_dim, device=self.device)
        return self.generator(z, condition.labels).float().contiguous()

    @torch.no_grad()
    def interpolate(self, n: int, *, condition: Condition | None = None, noise: Noise) -> Tensor:
        """Images along the great circle from the latent of the stream's first item to that of its second.

        Args:
            n: Number of images.
            condition: One entry an image; None: the first class for all.
            noise: The stream.
        """
        first, second = noise.stream("latent").normal(2, self.generator.latent_dim, device=self.device)
        angle = torch.acos(torch.clamp(torch.cosine_similarity(first, second, dim=0), -1, 1))
        t = torch.linspace(0, 1, n, device=self.device)[:, None]
        z = (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / torch.sin(angle)
        labels = None
        if self.conditional:
            labels = (
                condition.labels.to(self.device) if condition else torch.zeros(n, dtype=torch.int64, device=self.device)
            )
        with self.evaluating():
            return self.generator(z, labels).float().contiguous()
