"""Augmentations of image batches: differentiable, and random item by item.

Randomness comes from a `Noise`, so that an image changes in the same way in any batch and on any number of processes.
`HorizontalFlip` and `RandomShift` are for data; `DiffAugment` and `AdaptiveAugment` for everything that a discriminator
sees, real and generated. Gradients with respect to the images pass through all of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lit_aigc.augmentation.transforms import affine, color_map, constants, cut_out, horizontal_flip, recolor, shift
from lit_aigc.build import did_you_mean
from lit_aigc.errors import check, not_whole
from lit_aigc.machine.precision import full_precision
from lit_aigc.noise import Noise

PADDING_MODES = ("constant", "edge", "reflect")
POLICIES = ("color", "translation", "cutout")
GROUPS = {
    "blit": ("x_flip", "rotate_90", "integer_translation"),
    "geometry": ("scale", "rotation", "anisotropic_scale", "translation"),
    "color": ("brightness", "contrast", "luma_flip", "hue", "saturation"),
}
"""The transforms of `AdaptiveAugment`, in the order of application."""
TRANSFORMS = tuple(name for names in GROUPS.values() for name in names)


class HorizontalFlip:
    """Mirror each image left to right with the given probability."""

    def __init__(self, probability: float = 0.5):
        check(("HorizontalFlip: probability", probability, 0 <= probability <= 1, "a number from 0 to 1"))
        self.probability = probability

    def __call__(self, images: Tensor, *, noise: Noise) -> Tensor:
        """Augment images ``(N, C, H, W)``; image i uses item i of `noise`."""
        u = noise.stream("horizontal_flip").uniform(len(images), 1, device=images.device)[:, 0]
        return horizontal_flip(images, u < self.probability)


@dataclasses.dataclass(eq=False)
class RandomShift:
    """Shift each image by up to `pixels` in both directions: the random crop with padding of CIFAR-10 recipes."""

    pixels: int = 4
    mode: str = "constant"
    fill: float = -1.0

    def __post_init__(self):
        check(
            ("RandomShift: mode", self.mode, self.mode in PADDING_MODES, f"one of {', '.join(PADDING_MODES)}"),
            more=not_whole("RandomShift: pixels", self.pixels, least=0),
        )

    def __call__(self, images: Tensor, *, noise: Noise) -> Tensor:
        """Augment images ``(N, C, H, W)``; image i uses item i of `noise`.

        Raises:
            InputError: The shift is as large as the image.
        """
        height, width = images.shape[-2:]
        fits = self.pixels < min(height, width)
        check(("RandomShift: pixels", self.pixels, fits, f"fewer, for images of {height}x{width}"))
        noise, n, steps = noise.stream("random_shift"), len(images), 2 * self.pixels + 1
        down = noise.stream("down").integers(n, steps, device=images.device)
        right = noise.stream("right").integers(n, steps, device=images.device)
        return shift(images, torch.stack([down, right], dim=1) - self.pixels, mode=self.mode, fill=self.fill)


@dataclasses.dataclass(eq=False)
class DiffAugment:
    """Augment every image (Zhao et al., "Differentiable augmentation for data-efficient GAN training", 2020).

    Args:
        policies: What to do, in this order: ``color`` (brightness, saturation, contrast), ``translation``,
            ``cutout``.
        brightness: Largest amount added or subtracted.
        saturation: Each pixel's distance from gray is multiplied by 1 - this to 1 + this; no effect on gray images.
        contrast: The same for the distance from the mean of the image.
        translation: Largest shift as a share of the size, in whole pixels.
        cutout: Height and width of the covered rectangle, as a share of the image's.
        fill: Value of pixels that translation and cutout leave empty; 0 is mid gray.

    Raises:
        InputError: If an option is out of range.
    """

    policies: Sequence[str] = ("color", "translation", "cutout")
    brightness: float = 0.5
    saturation: float = 1.0
    contrast: float = 0.5
    translation: float = 0.125
    cutout: float = 0.5
    fill: float = 0.0

    def __post_init__(self):
        shares = {name: getattr(self, name) for name in ("saturation", "contrast", "translation", "cutout")}
        check(
            *((f"DiffAugment: {name}", value, 0 <= value <= 1, "from 0 to 1") for name, value in shares.items()),
            ("DiffAugment: brightness", self.brightness, self.brightness >= 0, "0 or more"),
            more=_unknown("DiffAugment: policies", self.policies, POLICIES),
        )

    def __call__(self, images: Tensor, *, noise: Noise) -> Tensor:
        """Augment images ``(N, C, H, W)`` in [-1, 1]; shape, dtype and layout stay, image i uses item i of `noise`.

        Values may leave [-1, 1]. Computed in float32 at least.
        """
        x = _at_least_float32(images)
        for policy in self.policies:
            x = getattr(self, f"_{policy}")(x, noise.stream("diff_augment").stream(policy))
        return _like(x, images)

    def _color(self, x: Tensor, noise: Noise) -> Tensor:
        u = noise.uniform(len(x), 3, 1, 1, 1, device=x.device).to(x.dtype)
        brightness, saturation, contrast = (2 * u - 1).unbind(1)  # (N, 1, 1, 1) each, in [-1, 1)
        saturation = 1 + self.saturation * saturation
        contrast = 1 + self.contrast * contrast
        gray = x.mean(1, keepdim=True)
        mean = gray.mean((2, 3), keepdim=True)
        # In one pass: add the brightness; scale the distance from gray; scale the distance from the mean.
        constant = contrast * (1 - saturation) * gray + (1 - contrast) * mean + self.brightness * brightness
        return torch.addcmul(constant, contrast * saturation, x)

    def _translation(self, x: Tensor, noise: Noise) -> Tensor:
        most = [int(size * self.translation + 0.5) for size in x.shape[2:]]
        uniform = noise.uniform(len(x), 2, device=x.device).unbind(1)
        offsets = [_whole(u, 2 * pixels + 1) - pixels for u, pixels in zip(uniform, most, strict=True)]
        return shift(x, torch.stack(offsets, dim=1), fill=self.fill)

    def _cutout(self, x: Tensor, noise: Noise) -> Tensor:
        size = [int(length * self.cutout + 0.5) for length in x.shape[2:]]
        # The center is anywhere in the image. That of an even rectangle is between pixels, so it has one more position.
        counts = [length + 1 - cut % 2 for length, cut in zip(x.shape[2:], size, strict=True)]
        uniform = noise.uniform(len(x), 2, device=x.device).unbind(1)
        centers = torch.stack([_whole(u, count) for u, count in zip(uniform, counts, strict=True)], dim=1)
        return cut_out(x, centers, size, fill=self.fill)


def _whole(u: Tensor, count: int) -> Tensor:
    """Return ``floor(u * count)`` exactly, for uniform numbers of 24 bits from `Noise`."""
    return (u * 2**24).long() * count >> 24


class AdaptiveAugment(nn.Module):
    """Apply each transform to each image with probability p, which follows how much the discriminator overfits
    (Karras et al., "Training generative adversarial networks with limited data", 2020).

    All geometric transforms together are one bilinear resampling, without the paper's wavelet filters. These prevent
    aliasing in photographs of 256 px and more, but would cover a good part of an image of 28 to 64 px; and real and
    generated images are resampled alike.

    Args:
        groups: ``blit``, ``geometry``, ``color``; see `GROUPS`.
        without: Single transforms to leave out, such as ``x_flip`` and ``rotate_90`` for digits. Images without
            exactly 3 channels get no hue and saturation.
        p: Initial p.
        target: Mean sign of the discriminator's logits for real images that p is adjusted to reach; None: p is fixed.
        ramp: Number of images in which p can go from 0 to 1.
        window: Batches between two updates of p, over which the sign is averaged; 4 in the paper.

    Attributes:
        p: Scalar buffer in [0, 1], changed only by `adapt` and by loading a state. At 0, images stay unchanged.

    Raises:
        InputError: If an option is out of range.
    """

    p: Tensor

    def __init__(
        self,
        groups: Sequence[str] = ("blit", "geometry", "color"),
        without: Sequence[str] = (),
        p: float = 0.0,
        target: float | None = 0.6,
        ramp: int = 500_000,
        window: int = 4,
    ) -> None:
        super().__init__()
        in_range = target is None or -1 < target < 1
        check(
            ("AdaptiveAugment: p", p, 0 <= p <= 1, "a probability from 0 to 1"),
            ("AdaptiveAugment: target", target, in_range, "a number between -1 and 1, or null"),
            ("AdaptiveAugment: ramp", ramp, ramp >= 1, "a number of images, at least 1"),
            ("AdaptiveAugment: window", window, window >= 1, "a number of batches, at least 1"),
            more=[
                *_unknown("AdaptiveAugment: groups", groups, GROUPS),
                *_unknown("AdaptiveAugment: without", without, TRANSFORMS),
            ],
        )
        self.transforms = {name for group in groups for name in GROUPS[group]} - set(without)
        self.target, self.ramp, self.window = target, ramp, window
        self.register_buffer("p", torch.tensor(float(p)))
        self._p = float(np.float32(p))
        self.register_load_state_dict_post_hook(lambda module, _: module._read_p())

    def _read_p(self) -> None:
        """Keep a copy of p on the host: reading the buffer for each batch would wait for the device."""
        self._p = float(self.p)

    @torch.no_grad()
    def adapt(self, overfitting: Tensor, images: int) -> None:
        """Change p by ``images / ramp``: up if the discriminator overfits more than the target, down if less.

        Args:
            overfitting: Scalar, the mean of ``sign(D(real))`` over all processes since the last call.
            images: Number of real images, of all processes, since the last call.
        """
        if self.target is not None:
            self.p.add_(torch.sign(overfitting - self.target) * (images / self.ramp)).clamp_(0, 1)
            self._read_p()

    def forward(self, images: Tensor, *, noise: Noise) -> Tensor:
        """Augment images ``(N, C, H, W)`` in [-1, 1]; shape, dtype and layout stay, image i uses item i of `noise`.

        Values may leave [-1, 1]. Computed in float32 at least.
        """
        possible = {name for name in self.transforms if images.shape[1] == 3 or name not in ("hue", "saturation")}
        if self._p == 0 or not possible:
            return images
        draws = _Draws(noise.stream("adaptive_augment"), len(images), self._p, possible, images.device)
        x = _at_least_float32(images)
        with full_precision(x.device):
            x = _change(x, draws.changed("blit", "geometry"), affine, lambda: _geometry(draws, *x.shape[2:]))
            x = _change(x, draws.changed("color"), recolor, lambda: (_colors(draws),))
        return _like(x, images)


class _Draws:
    """Random numbers for a batch of images: few, in float64, on the device of the images (for MPS on the CPU).

    Each transform has its own position in the noise, so leaving one out changes no other.

    Attributes:
        decision: By transform, ``(N,)`` uniform numbers; the transform is applied where they are below p.
        applied: By transform, ``(N,)``, 1 or 0.
        uniform: By transform, ``(2, N)``.
        normal: By transform, ``(2, N)``.
    """

    def __init__(self, noise: Noise, n: int, p: float, possible: Iterable[str], device: torch.device) -> None:
        def by_transform(draws: Tensor) -> dict[str, Tensor]:
            return dict(zip(TRANSFORMS, draws.double().movedim(0, -1), strict=True))

        count = len(TRANSFORMS)
        on = "cpu" if device.type == "mps" else device  # MPS has no float64
        self.p = p
        self.decision = by_transform(noise.stream("decision").uniform(n, count, device=on))
        self.applied = {name: ((u < p) & (name in possible)).double() for name, u in self.decision.items()}
        self.uniform = by_transform(noise.stream("uniform").uniform(n, count, 2, device=on))
        self.normal = by_transform(noise.stream("normal").normal(n, count, 2, device=on))

    def changed(self, *groups: str) -> Tensor:
        """Return which images, ``(N,)`` bool, get any transform of the groups."""
        return sum(self.applied[name] for group in groups for name in GROUPS[group]) > 0


def _geometry(draws: _Draws, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Combine the transforms of ``blit`` and ``geometry`` to matrices and offsets for `affine`."""
    on, uniform, normal = draws.applied, draws.uniform, draws.normal

    # Pixel blitting: flips, quarter turns and whole pixels.
    eighth = constants(draws.decision["scale"], width / 8, height / 8)[:, None]
    flip = 1 - 2 * on["x_flip"] * (uniform["x_flip"][0] < 0.5)
    quarter_turns = on["rotate_90"] * (4 * uniform["rotate_90"][0]).floor()
    blit = _rotation(quarter_turns * (math.pi / 2)).round() * _along_axes(flip, torch.ones_like(flip))
    whole_pixels = on["integer_translation"] * (eighth * (2 * uniform["integer_translation"] - 1)).round()  # (2, N)

    # Free geometry. Of two rotations, one is before the stretch and one after it, so that it may have any direction.
    # Their probabilities are such that an image is rotated with probability p.
    chance = 1 - math.sqrt(1 - draws.p)
    angles = 2 * math.pi * on["rotation"] * uniform["rotation"]
    before = _rotation(angles[0] * (draws.decision["rotation"] < chance))
    after = _rotation(angles[1] * (draws.decision["rotation"] >= chance * (1 - chance)))
    scale = 2 ** (0.2 * on["scale"] * normal["scale"][0])
    stretch = 2 ** (0.2 * on["anisotropic_scale"] * normal["anisotropic_scale"][0])
    free = (after * _along_axes(stretch, 1 / stretch)) @ (before * scale[:, None, None])

    # The whole pixels come before the free geometry, which moves them along; the free translation comes last.
    moved = (free @ whole_pixels.T[:, :, None])[:, :, 0]
    offset = moved + (on["translation"] * eighth * normal["translation"]).T
    return free @ blit, offset


def _colors(draws: _Draws) -> Tensor:
    """Combine the transforms of ``color`` to maps for `recolor`."""
    on, uniform, normal = draws.applied, draws.uniform, draws.normal
    return color_map(
        brightness=0.2 * on["brightness"] * normal["brightness"][0],
        contrast=2 ** (0.5 * on["contrast"] * normal["contrast"][0]),
        luma_flip=1 - 2 * on["luma_flip"] * (uniform["luma_flip"][0] < 0.5),
        hue=2 * math.pi * on["hue"] * uniform["hue"][0],
        saturation=2 ** (on["saturation"] * normal["saturation"][0]),
    )


def _rotation(angle: Tensor) -> Tensor:
    """Return rotation matrices ``(N, 2, 2)`` for ``(N,)`` radians."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)


def _along_axes(x: Tensor, y: Tensor) -> Tensor:
    """Return factors ``(N, 1, 2)`` on the columns of matrices: scaling by x and y before them."""
    return torch.stack([x, y], dim=1)[:, None]


def _change(
    images: Tensor, which: Tensor, change: Callable[..., Tensor], maps: Callable[[], tuple[Tensor, ...]]
) -> Tensor:
    """Change some images of a batch, each by its own map; the others stay bit for bit."""
    if not _picks_out(images.device):
        return torch.where(which.to(images.device)[:, None, None, None], change(images, *maps()), images)
    items = which.nonzero()[:, 0]
    if not len(items):
        return images
    if len(items) == len(images):
        return change(images, *maps())
    changed = change(images[items], *(each[items] for each in maps()))
    return images.index_copy(0, items, changed)


def _picks_out(device: torch.device) -> bool:
    """Return whether to change only selected images: on a GPU, counting them would take longer than changing all."""
    return device.type == "cpu"


def _at_least_float32(images: Tensor) -> Tensor:
    return images.to(torch.promote_types(images.dtype, torch.float32), memory_format=torch.contiguous_format)


def _like(augmented: Tensor, images: Tensor) -> Tensor:
    """Convert to the dtype and memory layout of the original images."""
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return augmented.to(images.dtype, memory_format=torch.channels_last if last else torch.contiguous_format)


def _unknown(what: str, names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return a sentence for each name that isn't known."""
    return [f"{what}: {name!r} is unknown{did_you_mean(name, known)}" for name in names if name not in known]


BY_NAME = {"horizontal_flip": HorizontalFlip, "random_shift": RandomShift}
"""Augmentations that ``data.augment`` may name without a ``_target_``."""
