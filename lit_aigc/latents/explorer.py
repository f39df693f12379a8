"""Pictures of what a model with latents has learned: walks along directions, from latent to latent, class to class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from lit_aigc.errors import InputError
from lit_aigc.latents.geometry import (
    blended_classes,
    class_directions,
    first_layer,
    great_circle,
    moments,
    principal_directions,
    recorded,
    walk,
)
from lit_aigc.machine.precision import full_precision
from lit_aigc.media.images import to_uint8
from lit_aigc.media.sheets import Panel, draw_sheet
from lit_aigc.metrics.features.extractors import SHIPPED, extractor
from lit_aigc.metrics.generative import extractor_of_training
from lit_aigc.noise import Noise
from lit_aigc.runs.bundle import Bundle
from lit_aigc.spec import Condition

LATENTS = 8192  # that directions are computed from
STARTS = 2  # latents that each direction is walked from
STEPS = 7  # images of a walk: at -3, -2, ... 3 standard deviations
REACH = 3.0
MOST_CLASSES = 12  # rows of a picture of classes
_MOVED = 256  # latents that are moved towards each class, to see how many arrive
_BLOCK = 256
_PRIOR = 1024  # latents that tell where the prior lies
_MOST_NUMBERS = 2**26  # activations in memory


class Explorer:
    """A model with latents, its classes, and the latents to start from: those of the samples of the same seed.

    Latents are told in standard deviations of the prior from its mean, in each dimension: where the prior is standard
    normal, they are what they are.

    Args:
        module: A module with ``latent_dim``, ``latents(n, noise)``, ``images_of`` and ``decode`` (see
            `lit_aigc.modules.latent`), and the network that decodes as ``generator``; with the weights to look at.
        seed: Seed of the noise.
        start: Index of the first sample whose latent is used.

    Raises:
        InputError: If the module has no latents to decode.
    """

    def __init__(self, module: Any, seed: int = 0, start: int = 0) -> None:
        if not all(hasattr(module, name) for name in ("latents", "decode", "generator")):
            raise InputError(
                "Directions and interpolations need a model with latents, such as a GAN or a VAE: "
                f"{type(module).__name__} has none."
            )
        self.module, self.spec, self.start = module, module.spec, start
        self.noise = Noise(seed, start)
        self.classes = module.spec.num_classes if module.conditional else 0
        names = module.spec.class_names
        self.class_names = [names[i] if i < len(names) else str(i) for i in range(module.spec.num_classes)]
        self.mean, self.deviation = prior_moments(module)

    def latents(self, n: int) -> Tensor:
        """``(n, d)``: those of the samples from `start` on."""
        return (self.module.latents(n, noise=self.noise).cpu() - self.mean) / self.deviation

    def labels(self, n: int, condition: Condition | None = None) -> Tensor | None:
        """``(n,)``: the classes asked for, or those of these samples; None for an unconditional model.

        Raises:
            InputError: If an unconditional model is asked for classes.
        """
        if not self.classes:
            if condition is not None:
                raise InputError("This model is unconditional: it can't be asked for a label. Leave the label out.")
            return None
        return condition.labels if condition else torch.arange(self.start, self.start + n) % self.classes

    def images(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Latents ``(n, d)`` and classes ``(n,)`` to uint8 images ``(n, C, H, W)``, in memory."""
        blocks = [self._decode(z[i : i + _BLOCK], labels, i) for i in range(0, len(z), _BLOCK)]
        return torch.cat([to_uint8(block, self.spec.value_range).cpu() for block in blocks])

    def _decode(self, z: Tensor, labels: Tensor | None, first: int) -> Tensor:
        z = self.mean + self.deviation * z
        return self.module.decode(z, None if labels is None else labels[first : first + len(z)])

    # -- principal directions

    def principal(self, k: int, condition: Condition | None = None) -> tuple[Image.Image, dict[str, Any]]:
        """Walks along the k strongest principal directions, and the facts about them.

        The principal components are those of what the generator's first layer computes, relative to its class's mean.
        Latents that enter later, as in a hierarchy, stay as they are.

        Args:
            k: Number of directions.
            condition: The classes of the `STARTS` walks.

        Raises:
            InputError: If there are not so many dimensions.
        """
        generator = self.module.generator
        starts = self.labels(STARTS, condition)
        probe = self.latents(STARTS)
        layer = first_layer(lambda: self.images(probe, starts), generator)
        entering = self._entering(layer, probe, starts)
        with recorded(layer) as outputs:
            self._decode(probe[:1], starts, 0)
        n = max(k + 1, min(LATENTS, _MOST_NUMBERS // outputs[0].shape[1]))
        z, labels = self.latents(n), None if not self.classes else torch.arange(n) % self.classes
        with recorded(layer) as outputs:
            for first in range(0, n, _BLOCK):
                self._decode(z[first : first + _BLOCK], labels, first)
        found = principal_directions(z[:, entering], torch.cat(outputs).cpu(), k, labels)
        directions = found.directions.new_zeros(k, z.shape[1])
        directions[:, entering] = found.directions
        shares = found.explained.tolist()
        names = [f"{i + 1} ({share:.1%})" for i, share in enumerate(shares)]
        facts = {
            "layer": _name_of(layer, generator),
            "latents": n,
            "explained_variance": shares,
            "explained_variance_together": sum(shares),
            "correlation": found.correlation.tolist(),
            "directions": directions.tolist(),
        }
        title = f"The {len(shares)} strongest directions: {sum(shares):.0%} of the first layer's variance"
        return self._walks(directions, starts, names, title), facts

    def _entering(self, layer: nn.Module, z: Tensor, labels: Tensor | None) -> Tensor:
        """``(d,)`` bool: the latents that a layer sees anything of."""
        outputs: list[Tensor] = []
        hook = layer.register_forward_hook(lambda layer, inputs, output: outputs.append(output))
        device = self.module.device
        z = (self.mean + self.deviation * z).to(device).requires_grad_()
        try:
            with torch.enable_grad(), self.module.evaluating():
                self.module.images_of(z, None if labels is None else labels.to(device))
        finally:
            hook.remove()
        (slope,) = torch.autograd.grad(outputs[0].square().sum(), z)
        return slope.ne(0).any(dim=0).cpu()

    def _walks(self, directions: Tensor, labels: Tensor | None, names: Sequence[str], title: str) -> Image.Image:
        coordinates = torch.linspace(-REACH, REACH, STEPS)
        starts = self.latents(STARTS)
        panels = []
        for i in range(STARTS):
            z = torch.cat([walk(starts[i], direction, coordinates) for direction in directions])
            images = self.images(z, None if labels is None else labels[i].expand(len(z)))
            caption = f"from sample {self.start + i}" + (
                "" if labels is None else f", class {self.class_names[labels[i]]}"
            )
            panels.append(Panel(images, STEPS, caption, () if i else names, [f"{c:.0f}" for c in coordinates.tolist()]))
        return self._page(panels, f"{title}; columns: standard deviations")

    # -- classes

    def class_means(self, extractor: nn.Module) -> tuple[Image.Image, dict[str, Any]]:
        """For an unconditional model: walks towards the mean latent of each class, as a classifier sees the images.

        Args:
            extractor: A feature extractor whose logits are of the data's classes.
        """
        z = self.latents(LATENTS)
        directions, counts = class_directions(z, self._predicted(z, extractor), extractor.num_classes)
        shares = (counts / LATENTS).tolist()
        moved = [torch.cat([walk(latent, way, torch.tensor([REACH])) for latent in z[:_MOVED]]) for way in directions]
        arrived = [(self._predicted(there, extractor) == i).float().mean().item() for i, there in enumerate(moved)]
        facts = {
            "classifier": extractor.name,
            "latents": LATENTS,
            "share_of_samples": dict(zip(self.class_names, shares, strict=True)),
            f"share_at_{REACH:g}": dict(zip(self.class_names, arrived, strict=True)),
            "directions": dict(zip(self.class_names, directions.tolist(), strict=True)),
        }
        rows = min(len(directions), MOST_CLASSES)
        title = "From the mean latent towards the mean of each class"
        return self._walks(directions[:rows], None, self.class_names[:rows], title), facts

    @torch.no_grad()
    def _predicted(self, z: Tensor, extractor: nn.Module) -> Tensor:
        """``(n,)``: what a classifier takes the images of latents for."""
        device = self.module.device
        with full_precision(device):
            return torch.cat(
                [extractor(self.images(block, None).to(device))[1].argmax(1).cpu() for block in z.split(_BLOCK)]
            )

    def between_classes(self) -> Image.Image:
        """For a conditional model: from each class to the next by its embeddings, at the same latent."""
        rows = min(self.classes, MOST_CLASSES)
        source = torch.arange(rows).repeat_interleave(STEPS)
        target = (source + 1) % self.classes
        weights = torch.linspace(0, 1, STEPS).repeat(rows)
        panels = []
        for i, latent in enumerate(self.latents(STARTS)):
            with blended_classes(self.module.generator, target, weights):
                images = to_uint8(self._decode(latent.expand(len(source), -1), source, 0), self.spec.value_range)
            names = [f"{w:.0%}" for w in weights[:STEPS].tolist()]
            panels.append(
                Panel(
                    images.cpu(),
                    STEPS,
                    f"latent of sample {self.start + i}",
                    self.class_names[:rows] * (not i),
                    names,
                )
            )
        return self._page(panels, "From each class to the next one; columns: share of the next class's embedding")

    # -- between latents

    def interpolations(self, n: int, steps: int, condition: Condition | None = None) -> Image.Image:
        """Along the great circle between the latents of samples 0 and 1, 2 and 3, and so on: n rows.

        Args:
            n: Number of rows.
            steps: Images a row.
            condition: The class of each row; None: the classes in turn.
        """
        latents = self.latents(2 * n)
        z = torch.cat([great_circle(latents[2 * i], latents[2 * i + 1], steps) for i in range(n)])
        names = [f"{self.start + 2 * i} to {self.start + 2 * i + 1}" for i in range(n)]
        rows = self.labels(n, condition)
        if rows is not None:
            names = [self.class_names[row] for row in rows]
            rows = rows.repeat_interleave(steps)
        caption = f"latents of samples {self.start} and {self.start + 1}, and so on"
        panel = Panel(self.images(z, rows), steps, caption, names)
        return self._page([panel], "Along the great circle between the latents of two samples")

    def _page(self, panels: Sequence[Panel], title: str) -> Image.Image:
        named = f"{title}; data: {self.spec.attribution}" if self.spec.attribution else title
        return draw_sheet([panels], named)


def prior_moments(module: Any) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``(d,)`` of a module's latents in each dimension, in memory."""
    noise = Noise(0).stream("prior")
    eps = noise.stream("latent").normal(_PRIOR, module.latent_dim)  # what the module makes its latents of
    return moments(eps, module.latents(_PRIOR, noise=noise).cpu())


def classifier_of(bundle: Bundle, name: str | None) -> nn.Module | None:
    """A classifier of the classes of a bundle's data.

    Args:
        bundle: The bundle.
        name: Name of an extractor with logits; None: the one that training measured with, if it fits and is shipped.

    Raises:
        InputError: If the one asked for doesn't know these classes.
    """
    of_training = extractor_of_training(bundle.manifest["protocol"])
    if name is None and of_training not in SHIPPED:
        return None
    found = extractor(name or of_training)
    if 0 < found.num_classes == bundle.spec.num_classes:
        return found
    if name is None:
        return None
    raise InputError(
        f"extractor={name} tells {found.num_classes or 'no'} classes apart, the data have "
        f"{bundle.spec.num_classes or 'none'}: give a classifier of the data, or leave extractor out."
    )


def _name_of(layer: nn.Module, generator: nn.Module) -> str:
    return next(name for name, module in generator.named_modules() if module is layer)
