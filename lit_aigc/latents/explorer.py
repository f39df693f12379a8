"""Pictures of a latent space: walks along directions, and interpolations between latents and between classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from lit_aigc.errors import InputError
from lit_aigc.latents import geometry
from lit_aigc.latents.codes import decoded
from lit_aigc.machine.precision import full_precision
from lit_aigc.media.images import to_uint8
from lit_aigc.media.sheets import Panel, draw_sheet
from lit_aigc.modules.capabilities import Decodes
from lit_aigc.noise import Noise
from lit_aigc.spec import Condition

LATENTS = 8192  # from which directions are computed
STARTS = 2  # latents from which each direction is walked
STEPS = 7  # images of a walk: at -3, -2, ... 3 standard deviations
REACH = 3.0
MOST_CLASSES = 12  # rows of a picture of classes
_MOVED = 256  # latents moved toward each class, to measure how many arrive
_BLOCK = 256
_PRIOR = 1024  # latents from which the prior's moments are estimated
_MOST_NUMBERS = 2**26  # activations in memory


class Explorer:
    """Draws the latent space of a model, starting from the latents of the samples with the same seed.

    Latents are in standard deviations of the prior from its mean, in each dimension; under a standard normal prior
    these are the latents themselves.

    Args:
        module: The model, with the weights to look at.
        seed: Seed of the noise.
        start: Index of the first sample whose latent is used.

    Raises:
        InputError: If the model has no latents to decode.
    """

    def __init__(self, module: Decodes, seed: int = 0, start: int = 0) -> None:
        if not isinstance(module, Decodes):
            raise InputError(
                "Directions and interpolations need a model with latents, such as a GAN or a VAE: "
                f"{type(module).__name__} has none."
            )
        self.module, self.spec, self.start = module, module.spec, start
        self.noise = Noise(seed, start)
        self.classes = module.spec.num_classes if module.conditional else 0
        self.class_names = [self.spec.class_name(label) for label in range(self.spec.num_classes)]
        self.mean, self.deviation = prior_moments(module)

    def latents(self, n: int) -> Tensor:
        """Return the latents ``(n, d)`` of the samples from `start` on."""
        return (self.module.latents(n, noise=self.noise).cpu() - self.mean) / self.deviation

    def labels(self, n: int, condition: Condition | None = None) -> Tensor | None:
        """Return the classes ``(n,)`` asked for, or those of these samples; None for an unconditional model.

        Raises:
            InputError: If an unconditional model is asked for classes.
        """
        if not self.classes:
            if condition is not None:
                raise InputError("This model is unconditional: it has no classes. Leave the label out.")
            return None
        return condition.labels if condition else torch.arange(self.start, self.start + n) % self.classes

    def images(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Decode latents ``(n, d)`` and classes ``(n,)`` to uint8 images ``(n, C, H, W)`` in main memory."""
        return decoded(self.module, self.mean + self.deviation * z, labels)

    def _decode(self, z: Tensor, labels: Tensor | None, first: int) -> Tensor:
        z = self.mean + self.deviation * z
        return self.module.decode(z, None if labels is None else labels[first : first + len(z)])

    # -- principal directions

    def principal(self, k: int, condition: Condition | None = None) -> tuple[Image.Image, dict[str, Any]]:
        """Draw walks along the k strongest principal directions, and return the facts about them too.

        The principal components are those of the outputs of the generator's first layer, relative to the mean of the
        class. Latents that enter later, as in a hierarchy, stay fixed.

        Args:
            k: Number of directions.
            condition: The classes of the `STARTS` walks.

        Raises:
            InputError: If the latent space has fewer dimensions.
        """
        generator = self.module.generator
        starts = self.labels(STARTS, condition)
        probe = self.latents(STARTS)
        # Which layer runs first, and which latents reach it, is found by running the generator.
        layer = geometry.first_layer(lambda: self.images(probe, starts), generator)
        entering = self._entering(layer, probe, starts)
        with geometry.recorded(layer) as outputs:
            self._decode(probe[:1], starts, 0)
        # As many latents as activations fit in memory.
        n = max(k + 1, min(LATENTS, _MOST_NUMBERS // outputs[0].shape[1]))
        z, labels = self.latents(n), None if not self.classes else torch.arange(n) % self.classes
        with geometry.recorded(layer) as outputs:
            for first in range(0, n, _BLOCK):
                self._decode(z[first : first + _BLOCK], labels, first)
        found = geometry.principal_directions(z[:, entering], torch.cat(outputs).cpu(), k, labels)
        directions = found.directions.new_zeros(k, z.shape[1])
        directions[:, entering] = found.directions
        shares = found.explained.tolist()
        names = [f"{i + 1} ({share:.1%})" for i, share in enumerate(shares)]
        facts = {
            "layer": next(name for name, module in generator.named_modules() if module is layer),
            "latents": n,
            "explained_variance": shares,
            "explained_variance_together": sum(shares),
            "correlation": found.correlation.tolist(),
            "directions": directions.tolist(),
        }
        title = f"The {len(shares)} strongest directions: {sum(shares):.0%} of the first layer's variance"
        return self._walks(directions, starts, names, title), facts

    def _entering(self, layer: nn.Module, z: Tensor, labels: Tensor | None) -> Tensor:
        """Return the dimensions of the latent that a layer depends on, ``(d,)`` bool."""
        outputs: list[Tensor] = []
        device = self.module.device
        z = (self.mean + self.deviation * z).to(device).requires_grad_()
        hook = layer.register_forward_hook(lambda layer, inputs, output: outputs.append(output))
        with hook, torch.enable_grad(), self.module.evaluating():
            self.module.images_of(z, None if labels is None else labels.to(device))
        (slope,) = torch.autograd.grad(outputs[0].square().sum(), z)
        return slope.ne(0).any(dim=0).cpu()

    def _walks(self, directions: Tensor, labels: Tensor | None, names: Sequence[str], title: str) -> Image.Image:
        coordinates = torch.linspace(-REACH, REACH, STEPS)
        starts = self.latents(STARTS)
        panels = []
        for i in range(STARTS):
            z = torch.cat([geometry.walk(starts[i], direction, coordinates) for direction in directions])
            images = self.images(z, None if labels is None else labels[i].expand(len(z)))
            of_class = "" if labels is None else f", class {self.class_names[labels[i]]}"
            caption = f"from sample {self.start + i}{of_class}"
            panels.append(Panel(images, STEPS, caption, () if i else names, [f"{c:.0f}" for c in coordinates.tolist()]))
        return self._sheet(panels, f"{title}; columns: standard deviations")

    # -- classes

    def class_means(self, extractor: nn.Module) -> tuple[Image.Image, dict[str, Any]]:
        """Draw walks toward the mean latent of each class that a classifier sees, for an unconditional model.

        Args:
            extractor: A feature extractor with logits over the data's classes.
        """
        z = self.latents(LATENTS)
        directions, counts = geometry.class_directions(z, self._predicted(z, extractor), extractor.num_classes)
        shares = (counts / LATENTS).tolist()
        moved = [geometry.walk(z[:_MOVED], way, torch.tensor(REACH)) for way in directions]
        arrived = [(self._predicted(there, extractor) == i).float().mean().item() for i, there in enumerate(moved)]
        facts = {
            "classifier": extractor.name,
            "latents": LATENTS,
            "share_of_samples": dict(zip(self.class_names, shares, strict=True)),
            f"share_at_{REACH:g}": dict(zip(self.class_names, arrived, strict=True)),
            "directions": dict(zip(self.class_names, directions.tolist(), strict=True)),
        }
        rows = min(len(directions), MOST_CLASSES)
        title = "From the mean latent toward the mean of each class"
        return self._walks(directions[:rows], None, self.class_names[:rows], title), facts

    @torch.no_grad()
    def _predicted(self, z: Tensor, extractor: nn.Module) -> Tensor:
        """Return the classes ``(n,)`` that a classifier sees in the images of latents."""
        device = self.module.device
        with full_precision(device):
            logits = [extractor(self.images(block, None).to(device))[1].cpu() for block in z.split(_BLOCK)]
        return torch.cat(logits).argmax(1)

    def between_classes(self) -> Image.Image:
        """Draw interpolations from each class embedding to the next at fixed latents, for a conditional model."""
        rows = min(self.classes, MOST_CLASSES)
        source = torch.arange(rows).repeat_interleave(STEPS)
        target = (source + 1) % self.classes
        weights = torch.linspace(0, 1, STEPS).repeat(rows)
        columns = [f"{w:.0%}" for w in weights[:STEPS].tolist()]
        panels = []
        for i, latent in enumerate(self.latents(STARTS)):
            with geometry.blended_classes(self.module.generator, target, weights):
                images = to_uint8(self._decode(latent.expand(len(source), -1), source, 0), self.spec.value_range)
            names = () if i else self.class_names[:rows]
            panels.append(Panel(images.cpu(), STEPS, f"latent of sample {self.start + i}", names, columns))
        return self._sheet(panels, "From each class to the next one; columns: share of the next class's embedding")

    # -- between latents

    def interpolations(self, n: int, steps: int, condition: Condition | None = None) -> Image.Image:
        """Draw n rows of great circles between the latents of samples 0 and 1, 2 and 3, and so on.

        Args:
            n: Number of rows.
            steps: Images per row.
            condition: The class of each row; None: the classes in turn.
        """
        latents = self.latents(2 * n)
        z = torch.cat([geometry.great_circle(latents[2 * i], latents[2 * i + 1], steps) for i in range(n)])
        names = [f"{self.start + 2 * i} to {self.start + 2 * i + 1}" for i in range(n)]
        rows = self.labels(n, condition)
        if rows is not None:
            names = [self.class_names[row] for row in rows]
            rows = rows.repeat_interleave(steps)
        caption = f"latents of samples {self.start} and {self.start + 1}, and so on"
        panel = Panel(self.images(z, rows), steps, caption, names)
        return self._sheet([panel], "Along the great circle between the latents of two samples")

    def _sheet(self, panels: Sequence[Panel], title: str) -> Image.Image:
        return draw_sheet([panels], title, self.spec.attribution)


def prior_moments(module: Decodes) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation ``(d,)`` of a module's latents in each dimension, in main memory."""
    noise = Noise(0).stream("prior")
    eps = noise.stream("latent").normal(_PRIOR, module.latent_dim)  # from which the module makes its latents
    return geometry.moments(eps, module.latents(_PRIOR, noise=noise).cpu())
