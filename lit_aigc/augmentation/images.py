"""Augmentations of image batches: differentiable, and drawn item by item.

What is drawn comes from a `Noise`, so that an image is changed alike in any batch and on any number of processes.
`HorizontalFlip` and `RandomShift` are for data; `DiffAugment` and `AdaptiveAugment` for all that a discriminator sees,
real and generated. Gradients with respect to the images pass through all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lit_aigc.augmentation.transforms import affine, color_map, constants, cut_out, horizontal_flip, recolor, shift
from lit_aigc.build import did_you_mean
from lit_aigc.errors import InputError
from lit_aigc.machine.precision import full_precision
from lit_aigc.noise import Noise

PADDING_MODES = ("constant", "edge", "reflect")
POLICIES = ("color", "translation", "cutout")
GROUPS = {
    "blit": ("x_flip", "rotate_90", "integer_translation"),
    "geometry": ("scale", "rotation", "anisotropic_scale", "translation"),
    "color": ("brightness", "contrast", "luma_flip", "hue", "saturation"),
}
"""The transforms of `AdaptiveAugment`, in the order in which they are applied."""
TRANSFORMS = tuple(name for names in GROUPS.values() for name in names)


class HorizontalFlip:
    """Mirror each image left to right with the given probability."""

    def __init__(self, probability: float = 0.5):
        if not 0 <= probability <= 1:
            raise InputError(f"HorizontalFlip: probability is {probability!r}, expected a number from 0 to 1.")
        self.probability = probability

    def __call__(self, images: Tensor, *, noise: Noise) -> Tensor:
        """Images ``(N, C, H, W)`` to the same shape; image i draws item i of `noise`."""
        drawn = noise.stream("horizontal_flip").uniform(len(images), 1, device=images.device)[:, 0]
        return horizontal_flip(images, drawn < self.probability)


class RandomShift:
    """Move each image by up to `pixels` in both directions: the random crop with padding of CIFAR-10 recipes."""

    def __init__(self, pixels: int = 4, mode: str = "constant", fill: float = -1.0):
        if isinstance(pixels, bool) or not isinstance(pixels, int) or pixels < 0:
            raise InputError(f"RandomShift: pixels is {pixels!r}, expected a whole number, 0 or more.")
        if mode not in PADDING_MODES:
            raise InputError(f"RandomShift: mode is {mode!r}, expected one of {', '.join(PADDING_MODES)}.")
        self.pixels, self.mode, self.fill = pixels, mode, fill

    def __call__(self, images: Tensor, *, noise: Noise) -> Tensor:
        """Images ``(N, C, H, W)`` to the same shape; image i draws item i of `noise`.

        Raises:
            InputError: The shift is as large as the image.
        """
        if self.pixels >= min(images.shape[-2:]):
            height, width = images.shape[-2:]
            raise InputError(
                f"RandomShift: pixels={self.pixels} is too much for images of {height}x{width}; use fewer."
            )
        noise, n, steps = noise.stream("random_shift"), len(images), 2 * self.pixels + 1
        down = noise.stream("down").integers(n, steps, device=images.device)
        right = noise.stream("right").integers(n, steps, device=images.device)
        return shift(images, torch.stack([down, right], dim=1) - self.pixels, mode=self.mode, fill=self.fill)


class DiffAugment:
    """Every image is changed (Zhao et al., "Differentiable augmentation for data-efficient GAN training", 2020).

    Args:
        policies: What is done, in this order: ``color`` (brightness, saturation, contrast), ``translation``,
            ``cutout``.
        brightness: Up to so much is added or subtracted.
        saturation: A pixel's distance from its grey is multiplied by 1 - this to 1 + this; nothing for grey images.
        contrast: The same for the distance from the image's mean.
        translation: Moved by up to this share of the size, in whole pixels.
        cutout: Height and width of the covered rectangle, as a share of the image's.
        fill: What comes in by translation and cutout; 0 is mid grey.

    Raises:
        InputError: If an option is out of range.
    """

    def __init__(
        self,
        policies: Sequence[str] = ("color", "translation", "cutout"),
        brightness: float = 0.5,
        saturation: float = 1.0,
        contrast: float = 0.5,
        translation: float = 0.125,
        cutout: float = 0.5,
        fill: float = 0.0,
    ) -> None:
        _check_names("DiffAugment: policies", policies, POLICIES)
        shares = {"saturation": saturation, "contrast": contrast, "translation": translation, "cutout": cutout}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise InputError(f"DiffAugment: {name} is {value!r}, expected a number from 0 to 1.")
        if brightness < 0:
            raise InputError(f"DiffAugment: brightness is {brightness!r}, expected 0 or more.")
        self.policies, self.fill = tuple(policies), fill
        self.brightness, self.saturation, self.contrast = brightness, saturation, contrast
        self.translation, self.cutout = translation, cutout

    def __call__(self, images: Tensor, *, noise: Noise) -> Tensor:
        """Images ``(N, C, H, W)`` in [-1, 1] to the same shape, dtype and layout; image i draws item i of `noise`.

        Values may leave [-1, 1]. Computed in float32 at least.
        """
        x = _at_least_float32(images)
        for policy in self.policies:
            x = getattr(self, f"_{policy}")(x, noise.stream("diff_augment").stream(policy))
        return _like(x, images)

    def _color(self, x: Tensor, noise: Noise) -> Tensor:
        drawn = noise.uniform(len(x), 3, 1, 1, 1, device=x.device).to(x.dtype)
        brightness, saturation, contrast = (2 * drawn - 1).unbind(1)  # (N, 1, 1, 1)
        saturation, contrast = 1 + self.saturation * saturation, 1 + self.contrast * contrast
        grey = x.mean(1, keepdim=True)
        mean = grey.mean((2, 3), keepdim=True)
        # In one pass: add the brightness; scale the distance from grey; scale the distance from the mean.
        constant = contrast * (1 - saturation) * grey + (1 - contrast) * mean + self.brightness * brightness
        return torch.addcmul(constant, contrast * saturation, x)

    def _translation(self, x: Tensor, noise: Noise) -> Tensor:
        most = [int(size * self.translation + 0.5) for size in x.shape[2:]]
        drawn = noise.uniform(len(x), 2, device=x.device).unbind(1)
        offsets = [_whole(u, 2 * pixels + 1) - pixels for u, pixels in zip(drawn, most, strict=True)]
        return shift(x, torch.stack(offsets, dim=1), fill=self.fill)

    def _cutout(self, x: Tensor, noise: Noise) -> Tensor:
        size = [int(length * self.cutout + 0.5) for length in x.shape[2:]]
        # From one edge to the other: an even rectangle has its middle between pixels, so one place more.
        places = [length + 1 - cut % 2 for length, cut in zip(x.shape[2:], size, strict=True)]
        drawn = noise.uniform(len(x), 2, device=x.device).unbind(1)
        centers = torch.stack([_whole(u, count) for u, count in zip(drawn, places, strict=True)], dim=1)
        return cut_out(x, centers, size, fill=self.fill)


def _whole(u: Tensor, count: int) -> Tensor:
    """``floor(u * count)``, exact: u is uniform with 24 bits, as `Noise` draws it."""
    return (u * 2**24).long() * count >> 24


class AdaptiveAugment(nn.Module):
    """Each transform is applied to each image with probability p, and p follows how much the discriminator overfits
    (Karras et al., "Training generative adversarial networks with limited data", 2020).

    All that moves an image is one bilinear resampling. The paper's wavelet filters around it are left out: they are
    made against the aliasing of photographs of 256 px and more, would reach over a good part of an image of 28 to
    64 px, and real and generated images are resampled alike.

    Args:
        groups: ``blit``, ``geometry``, ``color``; see `GROUPS`.
        without: Single transforms to leave out, such as ``x_flip`` and ``rotate_90`` for digits. Images with other
            than 3 channels get no hue and saturation.
        p: Where p starts.
        target: The mean sign of the discriminator's logits for real images that p is steered to; None keeps p.
        ramp: The number of images over which p would go from 0 to 1.
        window: Batches between two moves of p, over which the sign is averaged: 4 in the paper.

    Attributes:
        p: Scalar buffer in [0, 1], moved by `adapt` and by loading a state only. At 0 images pass unchanged.

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
        _check_names("AdaptiveAugment: groups", groups, GROUPS)
        _check_names("AdaptiveAugment: without", without, TRANSFORMS)
        if not 0 <= p <= 1:
            raise InputError(f"AdaptiveAugment: p is {p!r}, expected a probability from 0 to 1.")
        if target is not None and not -1 < target < 1:
            raise InputError(f"AdaptiveAugment: target is {target!r}, expected a number between -1 and 1, or null.")
        if ramp < 1:
            raise InputError(f"AdaptiveAugment: ramp is {ramp!r}, expected a number of images, at least 1.")
        if window < 1:
            raise InputError(f"AdaptiveAugment: window is {window!r}, expected a number of batches, at least 1.")
        self.transforms = {name for group in groups for name in GROUPS[group]} - set(without)
        self.target, self.ramp, self.window = target, ramp, window
        self.register_buffer("p", torch.tensor(float(p)))
        self._p = float(np.float32(p))
        self.register_load_state_dict_post_hook(lambda module, _: module._read_p())

    def _read_p(self) -> None:
        """Keep p as a number too: reading the buffer for each batch would wait for the device."""
        self._p = float(self.p)

    @torch.no_grad()
    def adapt(self, overfitting: Tensor, images: int) -> None:
        """Move p by ``images / ramp``: up if the discriminator overfits more than the target, down if less.

        Args:
            overfitting: Scalar, the mean of ``sign(D(real))`` over all processes since the last call.
            images: Number of real images, of all processes, since the last call.
        """
        if self.target is not None:
            self.p.add_(torch.sign(overfitting - self.target) * (images / self.ramp)).clamp_(0, 1)
            self._read_p()

    def forward(self, images: Tensor, *, noise: Noise) -> Tensor:
        """Images ``(N, C, H, W)`` in [-1, 1] to the same shape, dtype and layout; image i draws item i of `noise`.

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
    """What is drawn for a batch of images: small, in float64, on their device unless that is MPS, which has no float64.

    Each transform has its own place in the noise, so that leaving one out changes no other.

    Attributes:
        decision: By transform ``(N,)`` uniform: it is applied where this is below p.
        applied: By transform ``(N,)``, 1 or 0.
        uniform: By transform ``(2, N)``.
        normal: By transform ``(2, N)``.
    """

    def __init__(self, noise: Noise, n: int, p: float, possible: Iterable[str], device: torch.device) -> None:
        def by_transform(draws: Tensor) -> dict[str, Tensor]:
            return dict(zip(TRANSFORMS, draws.double().movedim(0, -1), strict=True))

        count, on = len(TRANSFORMS), "cpu" if device.type == "mps" else device
        self.p = p
        self.decision = by_transform(noise.stream("decision").uniform(n, count, device=on))
        self.applied = {name: ((u < p) & (name in possible)).double() for name, u in self.decision.items()}
        self.uniform = by_transform(noise.stream("uniform").uniform(n, count, 2, device=on))
        self.normal = by_transform(noise.stream("normal").normal(n, count, 2, device=on))

    def changed(self, *groups: str) -> Tensor:
        """Which images, ``(N,)`` bool, get any transform of the groups."""
        return sum(self.applied[name] for group in groups for name in GROUPS[group]) > 0


def _geometry(draws: _Draws, height: int, width: int) -> tuple[Tensor, Tensor]:
    """What the transforms of ``blit`` and ``geometry`` make together, for `affine`."""
    on, uniform, normal = draws.applied, draws.uniform, draws.normal
    eighth = constants(draws.decision["scale"], width / 8, height / 8)[:, None]
    flip = 1 - 2 * on["x_flip"] * (uniform["x_flip"][0] < 0.5)
    quarter_turns = on["rotate_90"] * (4 * uniform["rotate_90"][0]).floor()
    blit = _rotation(quarter_turns * (math.pi / 2)).round() * _along_axes(flip, torch.ones_like(flip))
    whole_pixels = on["integer_translation"] * (eighth * (2 * uniform["integer_translation"] - 1)).round()  # (2, N)

    # Two rotations, so that the stretch between them has any direction; each with the chance that makes p together.
    chance = 1 - math.sqrt(1 - draws.p)
    angles = 2 * math.pi * on["rotation"] * uniform["rotation"]
    before = _rotation(angles[0] * (draws.decision["rotation"] < chance))
    after = _rotation(angles[1] * (draws.decision["rotation"] >= chance * (1 - chance)))
    scale = 2 ** (0.2 * on["scale"] * normal["scale"][0])
    stretch = 2 ** (0.2 * on["anisotropic_scale"] * normal["anisotropic_scale"][0])
    free = (after * _along_axes(stretch, 1 / stretch)) @ (before * scale[:, None, None])

    offset = (free @ whole_pixels.T[:, :, None])[:, :, 0] + (on["translation"] * eighth * normal["translation"]).T
    return free @ blit, offset


def _colors(draws: _Draws) -> Tensor:
    """What the transforms of ``color`` make together, for `recolor`."""
    on, uniform, normal = draws.applied, draws.uniform, draws.normal
    return color_map(
        brightness=0.2 * on["brightness"] * normal["brightness"][0],
        contrast=2 ** (0.5 * on["contrast"] * normal["contrast"][0]),
        luma_flip=1 - 2 * on["luma_flip"] * (uniform["luma_flip"][0] < 0.5),
        hue=2 * math.pi * on["hue"] * uniform["hue"][0],
        saturation=2 ** (on["saturation"] * normal["saturation"][0]),
    )


def _rotation(angle: Tensor) -> Tensor:
    """``(N,)`` radians to ``(N, 2, 2)``."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)


def _along_axes(x: Tensor, y: Tensor) -> Tensor:
    """``(N, 1, 2)`` factors on the columns of a matrix: scaling by x and y before it."""
    return torch.stack([x, y], dim=1)[:, None]


def _change(
    images: Tensor, which: Tensor, change: Callable[..., Tensor], maps: Callable[[], tuple[Tensor, ...]]
) -> Tensor:
    """Change some images of a batch, each by its own map; the others stay as they are to the bit."""
    if not _picks_out(images.device):
        return torch.where(which.to(images.device)[:, None, None, None], change(images, *maps()), images)
    places = which.nonzero()[:, 0]
    if not len(places):
        return images
    if len(places) == len(images):
        return change(images, *maps())
    return images.index_copy(0, places, change(images[places], *(each[places] for each in maps())))


def _picks_out(device: torch.device) -> bool:
    """Whether to change only the images that need it: on a GPU, counting them would take longer than changing all."""
    return device.type == "cpu"


def _at_least_float32(images: Tensor) -> Tensor:
    return images.to(torch.promote_types(images.dtype, torch.float32), memory_format=torch.contiguous_format)


def _like(augmented: Tensor, images: Tensor) -> Tensor:
    """In the dtype and the memory layout that the images came in."""
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return augmented.to(images.dtype, memory_format=torch.channels_last if last else torch.contiguous_format)


def _check_names(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise InputError(f"{what}: {name!r} is unknown{did_you_mean(name, known)}")


BY_NAME = {"horizontal_flip": HorizontalFlip, "random_shift": RandomShift}
"""What a plain name in ``data.augment`` stands for; everything else is a ``_target_``."""
