"""Generative adversarial networks: alternating discriminator and generator steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_aigc.errors import check
from lit_aigc.losses import gan_regularization as regularizers
from lit_aigc.modules.adversarial import AdversarialModule, gan_statistics, logit_statistics
from lit_aigc.modules.base import CHECKPOINT_KEY, Recipe
from lit_aigc.modules.capabilities import Adapts
from lit_aigc.modules.latent import LatentModule
from lit_aigc.modules.means import LogWindow
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, DataSpec


@dataclasses.dataclass(frozen=True)
class Regularization:
    """Weights of the terms added to the adversarial loss; 0 is off, and all can be combined.

    Attributes:
        r1: Of half the squared gradient at real images (Mescheder et al., 2018), the discriminator's.
        r2: Of the same at fake images.
        gradient_penalty: Of (gradient norm - 1)^2 between real and fake (Gulrajani et al., 2017), the discriminator's.
        feature_matching: Of the squared distance of mean features (Salimans et al., 2016), the generator's.
        every: Batches between two evaluations of the first three, which then weigh `every` times as much (lazy
            regularization, Karras et al., 2020).
        clip_weights: Largest size of the discriminator's weights (Arjovsky et al., 2017), or None.
        before_augmentation: Whether `r1` and `r2` take the gradient at the image before it is augmented (Karras et al.,
            2020; Huang et al., 2024), or at what the discriminator sees.
    """

    r1: float = 0.0
    r2: float = 0.0
    gradient_penalty: float = 0.0
    feature_matching: float = 0.0
    every: int = 1
    clip_weights: float | None = None
    before_augmentation: bool = True

    def __post_init__(self) -> None:
        weights = {name: getattr(self, name) for name in ("r1", "r2", "gradient_penalty", "feature_matching")}
        clip = self.clip_weights
        check(
            *((f"model.regularization.{name}", w, w >= 0, "a weight of 0 or more") for name, w in weights.items()),
            ("model.regularization.every", self.every, self.every >= 1, "a number of batches, 1 or more"),
            ("model.regularization.clip_weights", clip, clip is None or clip > 0, "a positive number or null"),
        )


class GAN(AdversarialModule, LatentModule):
    """A GAN (Goodfellow et al., 2014), class-conditional or not.

    Each batch is one discriminator step; every `n_critic`-th batch is a generator step too.

    Args:
        generator: ``generator(z, y) -> images`` in the spec's range, with an attribute ``latent_dim``; z is
            ``(N, latent_dim)`` standard normal, y ``(N,)`` int64 labels or None.
        discriminator: ``discriminator(x, y) -> (N,)`` logits; where it has ``pair(real, fake, y)``, that serves its own
            step. Feature matching needs ``features`` and ``head`` (see `lit_aigc.networks.layers.discriminator`).
        spec: The facts of the data.
        conditional: Whether both networks are given class labels.
        loss: A name of `lit_aigc.losses.gan.ADVERSARIAL_LOSSES`.
        regularization: What is added to the loss.
        augment: ``augment(images, *, noise) -> images`` for all that the discriminator sees, or None. Where it has
            ``adapt(overfitting, images)``, that gets the mean sign of the real logits, or of real minus fake logits
            where the loss looks at differences only, over as many batches as its ``window`` says (default 1).
        n_critic: Discriminator steps per generator step.
        generator_optimizer: Name and options of an optimizer of `torch.optim`.
        discriminator_optimizer: The same for the discriminator.
        recipe: Schedule, clipping, accumulation, averaged weights.

    Raises:
        InputError: If an option is out of range, or the networks can't do what is asked.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        spec: DataSpec,
        conditional: bool = False,
        loss: str = "non_saturating",
        regularization: Regularization | None = None,
        augment: Callable[..., Tensor] | None = None,
        n_critic: int = 1,
        generator_optimizer: Mapping[str, Any] | None = None,
        discriminator_optimizer: Mapping[str, Any] | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__(spec, conditional, recipe)
        check(("model.n_critic", n_critic, n_critic >= 1, "at least one discriminator step per generator step"))
        self.regularization = regularization or Regularization()
        weights = self.regularization
        self.penalizes_gradients = weights.r1 > 0 or weights.r2 > 0 or weights.gradient_penalty > 0
        self.generator = generator
        self.latent_dim = generator.latent_dim
        self.augment = augment
        self._adapts = isinstance(augment, Adapts)  # once: asking takes as long as a small layer
        self.n_critic = n_critic
        self._signs = LogWindow()  # of the discriminator's logits, for `augment.adapt`
        optimizers = {"d": discriminator_optimizer, "g": generator_optimizer}
        matching = "model.regularization.feature_matching" if weights.feature_matching else ""
        self.set_players(generator, discriminator, loss, optimizers, needs_features=matching)

    # -- training

    def after_discriminator(self, values: dict[str, Tensor], batch: Batch) -> None:
        """Clip the weights, and let the augmentation follow the mean sign of the logits."""
        if self.regularization.clip_weights is not None:
            regularizers.clip_weights(list(self.discriminator.parameters()), self.regularization.clip_weights)
        if not self._adapts:
            return
        self._signs.add({"sign": values.pop("d_sign")})
        batches = self._signs.counts["sign"]
        # Once per window: until then no process waits for another.
        if batches >= getattr(self.augment, "window", 1):
            mean = self._signs.means(self.trainer.strategy.reduce)["sign"]
            images = batches * len(batch.images) * self.trainer.world_size
            self.augment.adapt(torch.tensor(mean, device=self.device), images)
            self._signs.clear()
        values["augment_p"] = self.augment.p

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `AdversarialModule`."""
        y = self.labels_of(batch)
        with torch.set_grad_enabled(self._shares):
            self._outputs = self._generate(batch)
        # Lazy regularization: the penalties are off in the batches between.
        weights = self.regularization if self.batches % self.regularization.every == 0 else Regularization()

        # A penalty on the gradient at images needs them as leaves of the graph.
        real, real_leaf = self._seen(batch.images, batch, "real", penalized=weights.r1 > 0)
        fake, fake_leaf = self._seen(self._outputs, batch, "fake", penalized=weights.r2 > 0)
        real_logits, fake_logits = self.logits_of_pair(real, fake, y, twice=weights.r1 > 0 or weights.r2 > 0)
        loss = self.loss.discriminator(real_logits, fake_logits)

        values = {"d_loss": loss, **logit_statistics(real_logits, fake_logits, self.loss.pairs)}
        if self.log_is_due:
            values |= {"real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()}
            values |= gan_statistics(batch.images, self._outputs, y, self.spec.num_classes)
        if self._adapts:
            values["d_sign"] = (real_logits - fake_logits if self.loss.pairs else real_logits).sign().mean()

        penalties: dict[str, Tensor] = {}
        if weights.r1:
            penalties["r1"] = regularizers.zero_centered_penalty(real_logits, real_leaf, self.loss_scale)
        if weights.r2:
            penalties["r2"] = regularizers.zero_centered_penalty(fake_logits, fake_leaf, self.loss_scale)
        if weights.gradient_penalty:
            share = Noise(self.seed, batch.start).stream("penalty").uniform(len(real), 1, device=self.device)[:, 0]
            points = regularizers.interpolate(real, fake, share).detach().requires_grad_()
            logits = self.discriminator.forward(points, y).float()
            penalties["gradient_penalty"] = regularizers.one_centered_penalty(logits, points, self.loss_scale)
        for name, penalty in penalties.items():
            loss = loss + getattr(weights, name) * weights.every * penalty
        return loss, values | penalties

    def opponent_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `AdversarialModule`: the generator's, with the weighted distance of features where they are matched."""
        y, matching = self.labels_of(batch), self.regularization.feature_matching
        images = self._outputs if self._shares else self._generate(batch)
        fake = self._augmented(images, batch, "generator")
        real_features = real_logits = None
        if matching or self.loss.compares:
            with torch.no_grad():
                real = self._augmented(batch.images, batch, "real")
                real_features, real_logits = self._judged(real, y, with_logits=self.loss.compares)
        fake_features, fake_logits = self._judged(fake, y)
        loss = self.loss.generator(real_logits, fake_logits)
        if not matching:
            return loss, {"g_loss": loss}
        distance = regularizers.feature_matching(real_features, fake_features)
        return loss + matching * distance, {"feature_matching": distance, "g_loss": loss}

    def _judged(self, images: Tensor, y: Tensor | None, with_logits: bool = True) -> tuple[Tensor | None, Any]:
        """Return the features of images, where they are matched, and the logits ``(N,)``."""
        if not self.regularization.feature_matching:
            return None, self.discriminator(images, y).float()
        features = self.discriminator.features(images)
        return features, self.discriminator.head(features, y).float() if with_logits else None

    def _generate(self, batch: Batch) -> Tensor:
        noise = Noise(self.seed, batch.start).stream("training")
        z = noise.normal(len(batch.images), self.latent_dim, device=self.device)
        return self.generator(z, self.labels_of(batch))

    def _seen(self, images: Tensor, batch: Batch, which: str, penalized: bool) -> tuple[Tensor, Tensor]:
        """Return images as the discriminator's own step sees them, and the leaf where a penalty takes the gradient."""
        if penalized and self.regularization.before_augmentation:
            leaf = images.detach().requires_grad_()
            return self._augmented(leaf, batch, which), leaf
        leaf = self._augmented(images.detach(), batch, which).detach().requires_grad_(penalized)
        return leaf, leaf

    def _augmented(self, images: Tensor, batch: Batch, which: str) -> Tensor:
        if self.augment is None:
            return images
        return self.augment(images, noise=Noise(self.seed, batch.start).stream("augment").stream(which))

    # -- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save, besides what the bases save, the open window of the augmentation, with every process's total."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY]["signs"] = self._signs.state_dict(self.of_all).get("sign", ([0.0], 0))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` saved; another number of processes resumes with the mean."""
        super().on_load_checkpoint(checkpoint)
        signs = checkpoint[CHECKPOINT_KEY].get("signs", ([0.0], 0))
        window = {"sign": signs} if signs[1] else {}
        self._signs.load_state_dict(window, self.global_rank, self.world_size, self.device)

    # -- sampling

    def images_of(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """See `LatentModule`."""
        return self.generator.forward(z, labels)
