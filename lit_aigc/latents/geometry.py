"""The latent space of a model: paths through it, and the directions along which its images change.

Pure functions on tensors. Latents are standard normal, or in units in which they are approximately (see `moments`):
along any direction of norm 1 their coordinate has standard deviation 1.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_aigc.errors import InputError

_WEIGHTED = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
_OVERSAMPLING = 16  # components that the randomized decomposition computes beyond those needed
_ITERATIONS = 8
_NO_CORRELATION = 1e-12


def great_circle(first: Tensor, second: Tensor, steps: int) -> Tensor:
    """Return latents along the great circle from one to another (Shoemake, 1985), including both ends.

    Unlike those of linear interpolation, all of them have about the norm that the generator was trained on.

    Args:
        first: ``(d,)``.
        second: ``(d,)``.
        steps: Number of latents, 2 or more.

    Returns:
        ``(steps, d)``.
    """
    t = torch.linspace(0, 1, steps, device=first.device, dtype=first.dtype)[:, None]
    angle = torch.acos(F.cosine_similarity(first, second, dim=0).clamp(-1, 1))
    if torch.sin(angle) < 1e-4:  # on one ray: no angle to divide
        return torch.lerp(first[None], second[None], t)
    return (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / torch.sin(angle)


def moments(noise: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Estimate the mean and standard deviation of a prior from latents and the standard normal noise behind them.

    Args:
        noise: ``(n, d)`` standard normal.
        latents: ``(n, d)``.

    Returns:
        Mean and standard deviation ``(d,)``: exactly 0 and 1 where the latents are the noise.
    """
    deviation = latents.std(dim=0) / noise.std(dim=0)
    return latents.mean(dim=0) - deviation * noise.mean(dim=0), deviation


def walk(latent: Tensor, direction: Tensor, coordinates: Tensor) -> Tensor:
    """Set the coordinate of a latent along a direction to several values, and keep everything else.

    Args:
        latent: ``(d,)``, or ``(n, d)``.
        direction: ``(d,)`` of norm 1.
        coordinates: ``(n,)``, in standard deviations of the latents; of several latents also one for all, ``()``.

    Returns:
        ``(n, d)``.
    """
    return latent + (coordinates - latent @ direction)[:, None] * direction


@dataclasses.dataclass(frozen=True)
class Principal:
    """Principal components of a layer's activations, and the latent directions along them.

    Attributes:
        directions: ``(k, d)`` of norm 1, strongest first.
        explained: ``(k,)`` share of the activations' variance that each component explains.
        correlation: ``(k,)`` in [0, 1]: the correlation of each component with its direction's coordinate. 1: the
            component is linear in the latent; 0: it is unrelated to the direction.
    """

    directions: Tensor
    explained: Tensor
    correlation: Tensor


def principal_directions(latents: Tensor, activations: Tensor, k: int, groups: Tensor | None = None) -> Principal:
    """Find latent directions by PCA of a generator's activations, as GANSpace (Härkönen et al., 2020, section 3).

    The latents are regressed on the coordinates of the activations along their principal components: a direction is
    the change of the mean latent as one coordinate grows.

    Args:
        latents: ``(n, d)`` standard normal.
        activations: ``(n, m)`` of a layer for these latents.
        k: Number of directions, at most d.
        groups: ``(n,)`` int64, such as class labels: activations are taken relative to the mean of their group, so that
            differences between groups don't count.

    Returns:
        The directions; the entry of each with the largest magnitude is positive, since the sign is arbitrary.

    Raises:
        InputError: If k is larger than d, or the activations are all the same.
    """
    n, d = latents.shape
    if not 1 <= k <= d:
        raise InputError(f"{k} directions of a latent space of {d} dimensions: expected from 1 to {d}.")
    z, x = _centered(latents.float(), groups), _centered(activations.float(), groups)
    variance = x.square().sum(dtype=torch.float64)
    if not variance > 0:
        raise InputError("The first layer of the generator is the same for all latents: there are no directions.")
    left, singular = _principal(x, k)  # (n, k), (k,)
    # Regression on orthogonal coordinates: one product. Of unit columns, times sqrt(n): the coordinates as z-scores.
    regressed = left.T @ z * n**-0.5  # (k, d)
    norms = regressed.norm(dim=1, keepdim=True)
    directions = regressed / norms.clamp_min(_NO_CORRELATION)
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    directions = directions * torch.where(largest < 0, -1.0, 1.0)
    moved = z @ directions.T  # (n, k)
    correlation = (moved * left).sum(dim=0).abs() / moved.norm(dim=0).clamp_min(_NO_CORRELATION)
    explained = (singular.double().square() / variance).to(directions.dtype)
    return Principal(directions, explained, correlation.clamp(max=1.0))


def principal_plane(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Project codes onto their first two principal components.

    Args:
        codes: ``(n, d)``.

    Returns:
        Coordinates ``(n, 2)``, of which the one with the largest magnitude is positive, since the sign is arbitrary;
        and the share ``(2,)`` of the variance that each explains. Both are 0 where codes have no such component.
    """
    x = _centered(codes.float(), None)
    left, singular = _principal(x, 2)
    points = left * singular
    points = points * torch.where(points.gather(0, points.abs().argmax(dim=0, keepdim=True)) < 0, -1.0, 1.0)
    shares = singular.square() / x.square().sum().clamp_min(torch.finfo(x.dtype).tiny)
    missing = 2 - len(shares)
    return F.pad(points, (0, missing)), F.pad(shares, (0, missing))


def _principal(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the first k (at most n or m) left singular vectors ``(n, k)`` and values ``(k,)`` of ``(n, m)``."""
    kept = min(k + _OVERSAMPLING, *x.shape)
    with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
        torch.manual_seed(0)
        left, singular, _ = torch.pca_lowrank(x, q=kept, center=False, niter=_ITERATIONS)
    return left[:, :k], singular[:k]


def _centered(x: Tensor, groups: Tensor | None) -> Tensor:
    if groups is None:
        return x - x.mean(dim=0)
    return x - class_means(x, groups, int(groups.max()) + 1)[0][groups]


def class_means(x: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Compute the mean of each class.

    Args:
        x: ``(n, d)``.
        labels: ``(n,)`` int64.
        num_classes: Number of classes.

    Returns:
        Means ``(num_classes, d)``, zero for a class without items, and the number of items ``(num_classes,)``.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    sums = x.new_zeros(num_classes, x.shape[1]).index_add_(0, labels, x)
    return sums / counts.clamp_min(1)[:, None], counts


def class_directions(latents: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Find the direction from the mean of all latents to the mean of those whose images are of each class.

    Args:
        latents: ``(n, d)``.
        labels: ``(n,)`` int64: the classes that a classifier sees in their images.
        num_classes: Number of classes.

    Returns:
        Directions ``(num_classes, d)`` of norm 1, zero for a class without images, and the number of images of each
        class ``(num_classes,)``.
    """
    means, counts = class_means(latents, labels, num_classes)
    differences = (means - latents.mean(dim=0)) * (counts > 0)[:, None]
    return F.normalize(differences, dim=1), counts


def most_active(codes: Tensor, k: int) -> Tensor:
    """Return up to k units ``(k,)`` whose codes differ most between images, the most active first.

    Args:
        codes: ``(n, d)``: means of posteriors (Burda et al., "Importance Weighted Autoencoders", 2016, section 5.2).
        k: Number of units.
    """
    return codes.var(dim=0, correction=0).topk(min(k, codes.shape[1])).indices


def first_layer(generate: Callable[[], object], generator: nn.Module) -> nn.Module:
    """Return the linear layer or convolution of a generator that runs first.

    Args:
        generate: Runs the generator.
        generator: The generator.

    Raises:
        InputError: If no such layer runs.
    """
    order: list[nn.Module] = []
    layers = [module for module in generator.modules() if isinstance(module, _WEIGHTED)]
    with hooked(layers, lambda layer, inputs, output: order.append(layer)):
        generate()
    if not order:
        raise InputError(f"{type(generator).__name__} has no linear layer or convolution to take directions from.")
    return order[0]


@contextlib.contextmanager
def hooked(layers: Sequence[nn.Module], hook: Callable[..., Tensor | None]) -> Iterator[None]:
    """Inside, call ``hook(layer, inputs, output)`` after each of the layers; what it returns replaces the output."""
    with contextlib.ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.register_forward_hook(hook))
        yield


@contextlib.contextmanager
def recorded(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, each pass through a layer appends its output ``(n, m)``, flattened, to the list."""
    outputs: list[Tensor] = []
    with hooked([layer], lambda layer, inputs, output: outputs.append(output.detach().flatten(1))):
        yield outputs


@contextlib.contextmanager
def blended_classes(generator: nn.Module, labels: Tensor, weights: Tensor) -> Iterator[None]:
    """Inside, the class embeddings of a generator are blended with those of other classes.

    Args:
        generator: A generator whose classes enter by `nn.Embedding`, in one place or in many.
        labels: ``(n,)`` int64: the other classes.
        weights: ``(n,)``, 0 for the class that the generator is given, 1 for that of `labels`.

    Raises:
        InputError: If it has no embeddings.
    """
    embeddings = [module for module in generator.modules() if isinstance(module, nn.Embedding)]
    if not embeddings:
        raise InputError(f"{type(generator).__name__} has no class embeddings to interpolate.")

    def blend(embedding: nn.Embedding, inputs: object, output: Tensor) -> Tensor:
        other = F.embedding(labels.to(output.device), embedding.weight)
        return torch.lerp(output, other, weights.to(output)[:, None])

    with hooked(embeddings, blend):
        yield
