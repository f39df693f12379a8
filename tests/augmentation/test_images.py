"""Augmentation: distributions, gradients, independence of the batch, and no leak into what a generator learns."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import scipy.stats
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lit_aigc.augmentation import images as augmentation
from lit_aigc.augmentation.images import GROUPS, TRANSFORMS, AdaptiveAugment, DiffAugment, HorizontalFlip, RandomShift
from lit_aigc.augmentation.transforms import shift
from lit_aigc.errors import InputError
from lit_aigc.noise import Noise

MAKE: dict[str, Callable] = {
    "flip": HorizontalFlip,
    "shift": lambda: RandomShift(2),
    "shift, edge": lambda: RandomShift(3, mode="edge"),
    "shift, reflect": lambda: RandomShift(2, mode="reflect"),
    "diff": lambda: DiffAugment(translation=0.4),
    "adaptive": lambda: AdaptiveAugment(p=0.3),
    "adaptive, always": lambda: AdaptiveAugment(p=1.0),
    "adaptive, color": lambda: AdaptiveAugment(["color"], p=0.5),
}
ALL = pytest.mark.parametrize("augment", [make() for make in MAKE.values()], ids=MAKE)
IN_GAN = pytest.mark.parametrize("augment", [MAKE[name]() for name in MAKE if "shift" not in name], ids=lambda a: "")


def images(n: int = 12, channels: int = 3, height: int = 6, width: int = 8) -> Tensor:
    return torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(0))


def only(*names: str, p: float = 1.0) -> AdaptiveAugment:
    """Adaptive augmentation of the named transforms alone."""
    return AdaptiveAugment(without=[name for name in TRANSFORMS if name not in names], p=p)


# -- all


@ALL
def test_an_image_is_changed_alike_in_any_batch(augment) -> None:
    batch, noise = images(20), Noise(5, start=100)
    whole = augment(batch, noise=noise)
    parts = [augment(batch[a:b], noise=noise.skip(a)) for a, b in [(0, 1), (1, 8), (8, 20)]]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(whole, batch)
    assert not torch.equal(whole, augment(batch, noise=noise.skip(1)))
    assert torch.equal(whole, augment(batch, noise=noise))


@ALL
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_are_exact(augment, channels: int) -> None:
    batch = images(3, channels, height=4, width=4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augment(x, noise=Noise(1)), batch)


@ALL
def test_layout_does_not_change_values(augment) -> None:
    batch = images()
    standard = augment(batch, noise=Noise(2))
    assert torch.equal(augment(batch.contiguous(memory_format=torch.channels_last), noise=Noise(2)), standard)


@IN_GAN
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(augment, dtype: torch.dtype, layout: torch.memory_format) -> None:
    batch = images().to(dtype=dtype, memory_format=layout)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        augmented = augment(batch, noise=Noise(2))
    assert augmented.dtype == dtype
    assert torch.equal(augmented, augment(batch.float(), noise=Noise(2)).to(dtype))
    if not isinstance(augment, HorizontalFlip):
        assert augmented.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("size", [28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_usual_sizes(size: int, channels: int) -> None:
    batch = images(4, channels, size, size).clamp(-1, 1)
    for augment in (DiffAugment(), AdaptiveAugment(p=0.8)):
        augmented = augment(batch, noise=Noise(0))
        assert augmented.shape == batch.shape
        assert augmented.isfinite().all()


@pytest.mark.parametrize("name", augmentation.BY_NAME)
def test_plain_names_build_without_arguments(name: str) -> None:
    assert augmentation.BY_NAME[name]()(images(), noise=Noise(0)).shape == images().shape


@pytest.mark.parametrize(
    "make",
    [
        lambda: HorizontalFlip(1.5),
        lambda: RandomShift(-1),
        lambda: RandomShift(1.5),
        lambda: RandomShift(2, mode="mirror"),
        lambda: RandomShift(6)(images(), noise=Noise(0)),
        lambda: DiffAugment(["colour"]),
        lambda: DiffAugment(contrast=1.5),
        lambda: DiffAugment(brightness=-0.1),
        lambda: AdaptiveAugment(["geometri"]),
        lambda: AdaptiveAugment(without=["flip"]),
        lambda: AdaptiveAugment(p=1.1),
        lambda: AdaptiveAugment(target=60),
        lambda: AdaptiveAugment(ramp=0),
        lambda: AdaptiveAugment(window=0),
    ],
)
def test_bad_options_are_refused(make) -> None:
    with pytest.raises(InputError, match=r"HorizontalFlip|RandomShift|DiffAugment|AdaptiveAugment"):
        make()


# -- flip and shift


def test_half_of_the_images_are_mirrored() -> None:
    batch = torch.tensor([0.0, 1.0]).expand(4000, 1, 1, 2)
    share = HorizontalFlip()(batch, noise=Noise(0))[:, 0, 0, 0].mean()
    assert abs(share - 0.5) < 4 * 0.5 / 4000**0.5
    assert HorizontalFlip(0.0)(batch, noise=Noise(0))[:, 0, 0, 0].sum() == 0
    assert HorizontalFlip(1.0)(batch, noise=Noise(0))[:, 0, 0, 0].sum() == 4000


def test_all_offsets_are_equally_likely_and_independent() -> None:
    batch = torch.full((9000, 1, 3, 3), -1.0)
    batch[:, 0, 1, 1] = 1.0
    counts = (RandomShift(1)(batch, noise=Noise(0)) == 1).sum(dim=0)[0]
    assert counts.sum() == 9000
    assert (counts - 1000).abs().max() < 4 * 1000**0.5


# -- DiffAugment


def uniform_between(values: Tensor, low: float, high: float) -> bool:
    return scipy.stats.kstest(values.double().numpy(), "uniform", (low, high - low)).pvalue > 1e-3


def test_diff_augment_adds_brightness() -> None:
    batch = images(2000, 3, 2, 2)
    added = DiffAugment(["color"], saturation=0.0, contrast=0.0)(batch, noise=Noise(0)) - batch
    assert (added.amax((1, 2, 3)) - added.amin((1, 2, 3))).max() < 1e-5  # the same everywhere
    assert uniform_between(added[:, 0, 0, 0], -0.5, 0.5)


def test_diff_augment_scales_saturation_around_gray() -> None:
    batch = images(2000, 3, 2, 2).double()
    changed = DiffAugment(["color"], brightness=0.0, contrast=0.0)(batch, noise=Noise(0))
    before, after = (x - x.mean(1, keepdim=True) for x in (batch, changed))
    torch.testing.assert_close(changed.mean(1), batch.mean(1))
    factor = (before * after).sum((1, 2, 3)) / (before**2).sum((1, 2, 3))
    torch.testing.assert_close(after, factor[:, None, None, None] * before)
    assert uniform_between(factor, 0, 2)
    gray = images(20, 1)
    changed = DiffAugment(["color"], brightness=0.0, contrast=0.0)(gray, noise=Noise(0))
    torch.testing.assert_close(changed, gray, atol=1e-6, rtol=0)


def test_diff_augment_scales_contrast_around_the_mean() -> None:
    batch = images(2000, 3, 2, 2).double()
    changed = DiffAugment(["color"], brightness=0.0, saturation=0.0)(batch, noise=Noise(0))
    before, after = (x - x.mean((1, 2, 3), keepdim=True) for x in (batch, changed))
    torch.testing.assert_close(changed.mean((1, 2, 3)), batch.mean((1, 2, 3)))
    factor = (before * after).sum((1, 2, 3)) / (before**2).sum((1, 2, 3))
    torch.testing.assert_close(after, factor[:, None, None, None] * before)
    assert uniform_between(factor, 0.5, 1.5)


def test_diff_augment_makes_its_three_changes_of_color_one_after_the_other() -> None:
    batch = images().double()
    changed = DiffAugment(["color"])(batch, noise=Noise(3))
    u = Noise(3).stream("diff_augment").stream("color").uniform(12, 3, 1, 1, 1).double()
    x = batch + (u[:, 0] - 0.5)
    x = (x - x.mean(1, keepdim=True)) * (2 * u[:, 1]) + x.mean(1, keepdim=True)
    x = (x - x.mean((1, 2, 3), keepdim=True)) * (u[:, 2] + 0.5) + x.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(changed, x)


def test_diff_augment_moves_by_every_offset_alike() -> None:
    batch = torch.zeros(9000, 1, 8, 8)
    batch[:, 0, 3, 4] = 1.0
    moved = DiffAugment(["translation"])(batch, noise=Noise(0))
    counts = moved.sum(0)[0]
    assert (moved.sum((1, 2, 3)) == 1).all()
    assert counts[2:5, 3:6].sum() == 9000  # an eighth of 8 pixels
    assert (counts[2:5, 3:6] - 1000).abs().max() < 4 * 1000**0.5


@pytest.mark.parametrize("size", [8, 7])
def test_diff_augment_covers_half_the_size_anywhere(size: int) -> None:
    batch = torch.ones(9000, 2, size, size)
    covered = DiffAugment(["cutout"], fill=5.0)(batch, noise=Noise(0))[:, 0] == 5.0
    rows, columns = covered.any(2), covered.any(1)
    assert torch.equal(covered, rows[:, :, None] & columns[:, None, :])
    positions = size + 1 - 4 % 2  # 0.5 * 8 and 0.5 * 7 both round to 4
    for line in (rows, columns):
        seen, counts = line.unique(dim=0, return_counts=True)
        assert len(seen) == positions
        assert (counts - 9000 / positions).abs().max() < 4 * (9000 / positions) ** 0.5
        assert line.sum(1).max() == 4
        assert line.sum(1).min() == 2


def test_diff_augment_does_what_it_is_told_in_order() -> None:
    batch = images()
    assert DiffAugment([])(batch, noise=Noise(0)) is batch or torch.equal(DiffAugment([])(batch, noise=Noise(0)), batch)
    one = DiffAugment(["color"])(DiffAugment(["cutout"])(batch, noise=Noise(4)), noise=Noise(4))
    torch.testing.assert_close(DiffAugment(["cutout", "color"])(batch, noise=Noise(4)), one)


# -- AdaptiveAugment: each transform


def ramps(n: int, size: int = 33) -> Tensor:
    """Images whose two channels are the pixel's own x and y from the centre."""
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return torch.stack([place.expand(size, size), place[:, None].expand(size, size)]).expand(n, -1, -1, -1)


def geometry_of(augment: AdaptiveAugment, n: int, noise: Noise, size: int = 33) -> tuple[Tensor, Tensor]:
    """The affine maps of the content, read off what becomes of ramps around the centre."""
    moved = augment(ramps(n, size), noise=noise)  # each pixel tells where it came from, inverse @ (position - offset)
    c = (size - 1) // 2
    inverse = torch.stack([moved[:, :, c, c + 1] - moved[:, :, c, c], moved[:, :, c + 1, c] - moved[:, :, c, c]], dim=2)
    matrix = torch.linalg.inv(inverse)
    return matrix, -(matrix @ moved[:, :, c, c, None])[:, :, 0]


def colors_of(augment: AdaptiveAugment, n: int, noise: Noise) -> tuple[Tensor, Tensor]:
    """The affine maps of the colors, read off black... red, green and blue."""
    pixels = torch.cat([torch.zeros(3, 1), torch.eye(3)], dim=1).double()[:, None]  # (3, 1, 4)
    mapped = augment(pixels.expand(n, 3, 1, 4), noise=noise)[:, :, 0]
    return mapped[:, :, 1:] - mapped[:, :, :1], mapped[:, :, 0]


def normal_with(values: Tensor, deviation: float) -> bool:
    return scipy.stats.kstest(values.double().numpy(), "norm", (0, deviation)).pvalue > 1e-3


def test_x_flip_mirrors_half() -> None:
    batch = images(1000)
    flipped = only("x_flip")(batch, noise=Noise(0))
    mirrored = torch.isclose(flipped, batch.flip(-1), atol=1e-5).all(dim=(1, 2, 3))
    same = torch.isclose(flipped, batch, atol=1e-5).all(dim=(1, 2, 3))
    assert (mirrored ^ same).all()
    assert abs(mirrored.double().mean() - 0.5) < 4 * 0.5 / 1000**0.5


def test_rotate_90_turns_equally_often_by_each() -> None:
    batch = images(1000, 3, 6, 6)
    turned = only("rotate_90")(batch, noise=Noise(0))
    candidates = torch.stack([torch.rot90(batch, k, (2, 3)) for k in range(4)])
    which = torch.isclose(turned, candidates, atol=1e-5).all(dim=(2, 3, 4))
    assert (which.sum(0) == 1).all()
    assert (which.sum(1) - 250).abs().max() < 4 * (250 * 0.75) ** 0.5


def test_integer_translation_moves_whole_pixels_mirroring_the_edges() -> None:
    batch = images(800, 1, 16, 16)
    moved = only("integer_translation")(batch, noise=Noise(0))
    offsets = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
    candidates = torch.stack([shift(batch, torch.tensor([o]).expand(800, 2), mode="reflect") for o in offsets])
    which = torch.isclose(moved, candidates, atol=1e-4).all(dim=(2, 3, 4))
    assert (which.sum(0) == 1).all()
    by_axis = which.sum(1).view(5, 5)
    for counts in (by_axis.sum(0), by_axis.sum(1)):  # round(U(-2, 2))
        assert scipy.stats.chisquare(counts, [100, 200, 200, 200, 100]).pvalue > 1e-3


def test_scale_is_log_normal() -> None:
    matrix, offset = geometry_of(only("scale"), 1000, Noise(0))
    torch.testing.assert_close(matrix, matrix[:, :1, :1] * torch.eye(2, dtype=torch.float64))
    assert normal_with(matrix[:, 0, 0].log2(), 0.2)
    assert offset.abs().max() < 1e-9


def test_rotation_is_uniform_and_happens_with_probability_p() -> None:
    matrix, _ = geometry_of(only("rotation"), 1000, Noise(0))
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(2, dtype=torch.float64).expand_as(matrix))
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(1000, dtype=torch.float64))
    assert uniform_between(torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]), -math.pi, math.pi)


def test_rotation_happens_before_and_after_the_stretch() -> None:
    """Karras et al. (2020): each with probability 1 - sqrt(1 - p)."""
    n, p = 4000, 0.4
    chance = 1 - math.sqrt(1 - p)
    matrix, _ = geometry_of(AdaptiveAugment(["geometry"], ["scale", "translation"], p=p), n, Noise(0))
    stretched, _ = geometry_of(only("anisotropic_scale", p=p), n, Noise(0))
    stretch = stretched[:, 0, 0]
    torch.testing.assert_close(stretched, torch.diag_embed(torch.stack([stretch, 1 / stretch], 1)))
    torch.testing.assert_close(torch.linalg.svdvals(matrix)[:, 0], torch.maximum(stretch, 1 / stretch))
    seen = (stretch.log2().abs() > 1e-3) & (stretch.log2().abs() < 0.4)
    assert abs((stretch != 1).double().mean() - p) < 4 * (p * (1 - p) / n) ** 0.5
    assert normal_with(stretch[(stretch - 1).abs() > 1e-9].log2(), 0.2)
    squares = (matrix @ matrix.mT, matrix.mT @ matrix)  # diagonal if there was no rotation after, none before
    turned = [square[seen, 0, 1].abs() > 1e-9 for square in squares]
    for share, expected in (
        (turned[0], chance),
        (turned[1], chance),
        (turned[0] & turned[1], chance**2),
        (turned[0] | turned[1], p),
    ):
        assert abs(share.double().mean() - expected) < 4 * (expected * (1 - expected) / seen.sum()) ** 0.5


def test_translation_is_normal() -> None:
    _, offset = geometry_of(only("translation"), 800, Noise(0))
    for axis in (0, 1):
        assert normal_with(offset[:, axis] / 33, 0.125)
    assert abs(torch.corrcoef(offset.T)[0, 1]) < 4 / 800**0.5


def test_geometry_is_the_chain_of_its_transforms() -> None:
    noise, n, size = Noise(8), 40, 129
    matrix, offset = geometry_of(AdaptiveAugment(["blit", "geometry"], ["anisotropic_scale"], p=0.9), n, noise, size)
    flip, turn, whole, scale, rotate, move = (
        geometry_of(only(name, p=0.9), n, noise, size) for name in TRANSFORMS[:7] if name != "anisotropic_scale"
    )
    torch.testing.assert_close(matrix, rotate[0] @ scale[0] @ turn[0] @ flip[0])
    expected = (rotate[0] @ scale[0] @ whole[1][:, :, None])[:, :, 0] + move[1]
    torch.testing.assert_close(offset, expected, atol=1e-6, rtol=0)


def test_colors_have_the_paper_s_distributions() -> None:
    n = 1000
    eye = torch.eye(3, dtype=torch.float64)
    _, offset = colors_of(only("brightness"), n, Noise(0))
    assert normal_with(offset[:, 0], 0.2)
    torch.testing.assert_close(offset, offset[:, :1].expand(-1, 3))
    contrast, _ = colors_of(only("contrast"), n, Noise(0))
    assert normal_with(contrast[:, 0, 0].log2(), 0.5)
    luma, _ = colors_of(only("luma_flip"), n, Noise(0))
    flipped = torch.linalg.det(luma) < 0
    assert abs(flipped.double().mean() - 0.5) < 4 * 0.5 / n**0.5
    torch.testing.assert_close(luma[flipped][0], eye - 2 / 3, atol=1e-6, rtol=0)
    hue, _ = colors_of(only("hue"), n, Noise(0))
    torch.testing.assert_close(hue @ hue.mT, eye.expand_as(hue), atol=1e-6, rtol=0)
    torch.testing.assert_close(hue.sum(2), torch.ones(n, 3, dtype=torch.float64), atol=1e-6, rtol=0)  # gray stays
    angle = torch.atan2((hue[:, 1, 0] - hue[:, 0, 1]) * math.sqrt(3), hue.diagonal(dim1=1, dim2=2).sum(1) - 1)
    assert scipy.stats.kstest(angle.numpy() / (2 * math.pi) + 0.5, "uniform").pvalue > 1e-3
    saturation, _ = colors_of(only("saturation"), n, Noise(0))
    factor = saturation[:, 0, 0] - saturation[:, 0, 1]
    torch.testing.assert_close(saturation, factor[:, None, None] * (eye - 1 / 3) + 1 / 3, atol=1e-6, rtol=0)
    assert normal_with(factor.log2(), 1.0)


def test_color_is_the_chain_of_its_transforms() -> None:
    noise, n = Noise(8), 40
    matrix, offset = colors_of(AdaptiveAugment(["color"], p=0.8), n, noise)
    expected_matrix, expected_offset = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for name in GROUPS["color"]:
        step, start = colors_of(only(name, p=0.8), n, noise)
        expected_matrix = step @ expected_matrix
        expected_offset = (step @ expected_offset.expand(n, 3)[:, :, None])[:, :, 0] + start
    torch.testing.assert_close(matrix, expected_matrix, atol=1e-6, rtol=0)
    torch.testing.assert_close(offset, expected_offset, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["hue", "saturation"])
def test_gray_images_have_no_hue_and_saturation(name: str) -> None:
    gray = images(50, 1)
    assert torch.equal(only(name)(gray, noise=Noise(0)), gray)
    assert not torch.equal(only("luma_flip")(gray, noise=Noise(0)), gray)


# -- AdaptiveAugment: p


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_p_0_is_the_identity(dtype: torch.dtype) -> None:
    batch = images().to(dtype)
    for augment in (AdaptiveAugment(), AdaptiveAugment([], p=1.0), only(p=1.0)):
        assert torch.equal(augment(batch, noise=Noise(0)), batch)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("p", [0.1, 0.6])
def test_a_share_p_of_the_images_is_transformed_and_the_others_are_untouched(name: str, p: float) -> None:
    n = 3000
    batch = images(n, 3, 8, 8)
    difference = (only(name, p=p)(batch, noise=Noise(1)) - batch).abs().amax((1, 2, 3))
    # Of the drawn values these leave an image where it is, but for rounding.
    neutral = {"x_flip": 1 / 2, "rotate_90": 1 / 4, "integer_translation": 1 / 4, "luma_flip": 1 / 2}.get(name, 0)
    share = p * (1 - neutral)
    assert abs((difference > 1e-4).double().mean() - share) < 4 * (share * (1 - share) / n) ** 0.5
    assert (difference == 0).double().mean() > 1 - p - 4 * (p * (1 - p) / n) ** 0.5


def test_transforms_are_independent_of_each_other() -> None:
    n, p = 3000, 0.5
    batch = images(n, 3, 8, 8)
    names = ["scale", "translation", "brightness", "saturation"]
    changed = torch.stack([(only(t, p=p)(batch, noise=Noise(1)) != batch).any(dim=(1, 2, 3)) for t in names])
    correlations = torch.corrcoef(changed.double()) - torch.eye(len(names))
    assert correlations.abs().max() < 4.5 / n**0.5


def test_drawn_values_are_independent_of_each_other() -> None:
    n, noise = 2000, Noise(6)
    color = {name: colors_of(only(name), n, noise) for name in GROUPS["color"]}
    geometry = {name: geometry_of(only(name), n, noise) for name in GROUPS["blit"] + GROUPS["geometry"]}
    values = [
        color["brightness"][1][:, 0],
        color["contrast"][0][:, 0, 0].log2(),
        torch.linalg.det(color["luma_flip"][0]),
        color["hue"][0][:, 0, 0],
        color["hue"][0][:, 0, 1] - color["hue"][0][:, 0, 2],
        (color["saturation"][0][:, 0, 0] - color["saturation"][0][:, 0, 1]).log2(),
        geometry["x_flip"][0][:, 0, 0],
        *(geometry[name][0][:, 0, axis] for name in ("rotate_90", "rotation") for axis in (0, 1)),
        *(geometry[name][0][:, 0, 0].log2() for name in ("scale", "anisotropic_scale")),
        *(geometry[name][1][:, axis] for name in ("integer_translation", "translation") for axis in (0, 1)),
    ]
    correlations = torch.corrcoef(torch.stack(values)) - torch.eye(len(values))
    assert correlations.abs().max() < 4.5 / n**0.5


def test_p_follows_the_overfitting() -> None:
    augment = AdaptiveAugment(target=0.6, ramp=1000)
    path = []
    for overfitting in (0.9, 0.7, 0.5, 0.6, -1.0, -1.0, 0.61):
        augment.adapt(torch.tensor(overfitting), 64)
        path.append(round(float(augment.p), 4))
    assert path == [0.064, 0.128, 0.064, 0.064, 0.0, 0.0, 0.064]
    for _ in range(40):
        augment.adapt(torch.tensor(1.0), 64)
    assert float(augment.p) == 1.0


def test_p_needs_the_ramp_from_0_to_1() -> None:
    augment = AdaptiveAugment()
    for _ in range(500_000 // 64 - 1):
        augment.adapt(torch.tensor(1.0), 64)
    assert 0.99 < float(augment.p) < 1.0


def test_p_stays_without_a_target_and_survives_a_lost_batch() -> None:
    fixed = AdaptiveAugment(p=0.3, target=None)
    fixed.adapt(torch.tensor(1.0), 10**6)
    assert float(fixed.p) == pytest.approx(0.3)
    augment = AdaptiveAugment(p=0.3)
    augment.adapt(torch.tensor(float("nan")), 64)
    assert float(augment.p) == pytest.approx(0.3)


@pytest.mark.parametrize("augment", [DiffAugment(), AdaptiveAugment(p=0.4), HorizontalFlip(), RandomShift(2)])
def test_augmenting_copies_nothing_to_the_device_and_waits_for_nothing(augment) -> None:
    """What asks a fake tensor for a value raises; 0-dim numbers of the CPU are passed as arguments."""
    copied = []

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            tensors = [value for value in (*args, result) if isinstance(value, Tensor) and value.dim()]
            if len({tensor.device.type for tensor in tensors}) > 1:
                copied.append(str(function))
            return result

    with FakeTensorMode(), Copies():
        for channels in (1, 3):
            batch = torch.empty(4, channels, 8, 8, device="cuda")
            assert augment(batch, noise=Noise(0)).device.type == "cuda"
    assert copied == []


@pytest.mark.parametrize("p", [0.1, 0.6, 1.0])
def test_images_are_the_same_where_all_are_changed_and_the_choice_is_made_after(p, monkeypatch) -> None:
    """As on a GPU."""
    batch, augment = images(20), AdaptiveAugment(p=p)
    chosen_before = augment(batch, noise=Noise(5))
    monkeypatch.setattr(augmentation, "_picks_out", lambda device: False)
    assert torch.equal(augment(batch, noise=Noise(5)), chosen_before)


def test_gradients_of_augmented_images_can_be_differentiated_again() -> None:
    """For R1 at the image before augmentation."""
    batch = images(2, 3, height=4, width=4).double().requires_grad_()
    for augment in (AdaptiveAugment(p=0.9), DiffAugment()):
        assert torch.autograd.gradgradcheck(lambda x, augment=augment: augment(x, noise=Noise(1)).pow(3), batch)


def test_p_is_part_of_the_state() -> None:
    augment = AdaptiveAugment(p=0.25)
    assert list(augment.state_dict()) == ["p"]
    other = AdaptiveAugment()
    other.load_state_dict(augment.state_dict())
    assert torch.equal(other(images(), noise=Noise(0)), augment(images(), noise=Noise(0)))


# -- AdaptiveAugment: no leak (Karras et al., 2020, section 2.2 and appendix C)


def orientations(counts: list[int]) -> Tensor:
    """Images of an arrow (a bright edge) in each of four orientations, so many of each."""
    upright = -torch.ones(1, 4, 4)
    upright[0, 0] = 1.0
    return torch.cat([torch.rot90(upright, k, (1, 2)).expand(count, 1, 4, 4) for k, count in enumerate(counts)])


def orientation_shares(batch: Tensor) -> Tensor:
    edges = torch.stack([torch.rot90(batch, -k, (2, 3))[:, 0, 0].mean(1) for k in range(4)])
    return torch.nn.functional.one_hot(edges.argmax(0), 4).double().mean(0)


def test_a_generator_that_matches_augmented_images_has_the_true_orientations() -> None:
    """Turned with p < 1, a distribution of orientations keeps its order, and only one distribution looks so turned."""
    n, truth = 20_000, torch.tensor([0.6, 0.25, 0.1, 0.05], dtype=torch.float64)
    data = orientations([int(n * share) for share in truth])
    seen = {p: orientation_shares(only("rotate_90", p=p)(data, noise=Noise(0))) for p in (0.4, 0.8, 1.0)}
    deviation = 0.5 / n**0.5
    for p in (0.4, 0.8):
        assert (seen[p] - ((1 - p) * truth + p / 4)).abs().max() < 4 * deviation
        assert seen[p].argsort().tolist() == truth.argsort().tolist()
        turning = torch.stack([(1 - p) * torch.eye(4)[k] + p / 4 for k in range(4)]).double()
        recovered = torch.linalg.solve(turning, seen[p])
        assert (recovered - truth).abs().max() < 4 * deviation / (1 - p)
    assert (seen[1.0] - 0.25).abs().max() < 4 * deviation  # at p = 1 nothing of the truth is left to learn
