"""Transforms of images: values against torchvision, scipy and slow references; gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
import torchvision.transforms.v2.functional as TF
from scipy.spatial.transform import Rotation
from torch import Tensor

from lit_aigc.augmentation.transforms import affine, color_map, cut_out, horizontal_flip, recolor, shift


def images(n: int = 12, channels: int = 3, height: int = 6, width: int = 8) -> Tensor:
    return torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(0))


def test_flip_mirrors_exactly_the_chosen() -> None:
    batch = images(3)
    flipped = horizontal_flip(batch, torch.tensor([True, False, True]))
    assert torch.equal(flipped[0], batch[0].flip(-1))
    assert torch.equal(flipped[1], batch[1])
    assert torch.equal(flipped[2, :, :, 0], batch[2, :, :, -1])


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_shift_is_padding_and_a_crop(mode: str) -> None:
    batch, pixels = images(), 3
    offsets = torch.randint(-pixels, pixels + 1, (len(batch), 2), generator=torch.Generator().manual_seed(1))
    offsets[0], offsets[1] = torch.tensor([pixels, -pixels]), torch.tensor([-pixels, pixels])
    moved = shift(batch, offsets, mode=mode, fill=-1.0)
    torch_mode = {"constant": "constant", "edge": "replicate", "reflect": "reflect"}[mode]
    padded = torch.nn.functional.pad(batch, (pixels,) * 4, mode=torch_mode, value=-1.0 if mode == "constant" else None)
    for item, (down, right) in enumerate(offsets.tolist()):
        top, left = pixels - down, pixels - right
        assert torch.equal(moved[item], padded[item, :, top : top + 6, left : left + 8])


def test_shift_moves_down_and_right() -> None:
    batch = torch.full((1, 1, 4, 4), -1.0)
    batch[0, 0, 1, 1] = 1.0
    moved = shift(batch, torch.tensor([[1, 2]]))
    assert moved[0, 0].nonzero().tolist() and (moved[0, 0] == 1).nonzero().tolist() == [[2, 3]]


@pytest.mark.parametrize("fill", [0.0, -1.0])
def test_a_shift_out_of_the_picture_leaves_only_fill(fill: float) -> None:
    assert (shift(images(2), torch.tensor([[6, 0], [0, -20]]), fill=fill) == fill).all()


@pytest.mark.parametrize("size", [(2, 3), (3, 4), (0, 5), (6, 8), (20, 1)])
def test_cut_out_covers_a_rectangle(size: tuple[int, int]) -> None:
    batch = images(5)
    centers = [(0, 0), (3, 4), (6, 8), (2, 7), (5, 0)]
    covered = cut_out(batch, torch.tensor(centers), size, fill=7.0)
    for before, after, (row, column) in zip(batch, covered, centers, strict=True):
        top, left = row - size[0] // 2, column - size[1] // 2
        expected = before.clone()
        expected[:, max(top, 0) : max(top + size[0], 0), max(left, 0) : max(left + size[1], 0)] = 7.0
        assert torch.equal(after, expected)


# -- affine


def matrices(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    matrix = torch.eye(2) + 0.4 * torch.randn(n, 2, 2, generator=generator)
    return matrix.double(), 3 * torch.randn(n, 2, generator=generator).double()


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 7), (16, 5)])
def test_affine_is_scipys_with_mirrored_edges(height: int, width: int) -> None:
    batch, (matrix, offset) = images(20, 2, height, width).double(), matrices(20)
    moved = affine(batch, matrix, offset)
    center = np.array([width - 1, height - 1]) / 2
    for item in range(20):
        inverse = np.linalg.inv(matrix[item].numpy())
        start = center - inverse @ (center + offset[item].numpy())  # of (x, y); scipy has (row, column)
        for channel in range(2):
            expected = scipy.ndimage.affine_transform(
                batch[item, channel].numpy(), inverse[::-1, ::-1], start[::-1], order=1, mode="mirror"
            )
            np.testing.assert_allclose(moved[item, channel].numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("degrees", [10.0, -75.0, 160.0])
def test_a_rotation_is_torchvisions_inside_the_circle(degrees: float) -> None:
    batch = images(2, 3, 16, 16)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = affine(batch, torch.tensor([[[cos, sin], [-sin, cos]]] * 2), torch.zeros(2, 2))
    expected = TF.rotate(batch, degrees, interpolation=TF.InterpolationMode.BILINEAR)
    place = torch.arange(16) - 7.5
    inside = (place[:, None] ** 2 + place**2).sqrt() < 7
    torch.testing.assert_close(turned[..., inside], expected[..., inside], atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [28, 32, 7])
def test_quarter_turns_flips_and_whole_pixels_move_pixels_to_pixels(size: int) -> None:
    batch = images(4, 3, size, size)
    quarter = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])  # counter-clockwise, y being down
    matrix = torch.stack([torch.linalg.matrix_power(quarter, k) for k in range(4)])
    for k, turned in enumerate(affine(batch, matrix, torch.zeros(4, 2))):
        torch.testing.assert_close(turned, torch.rot90(batch[k], k, (-2, -1)), atol=2e-5, rtol=0)
    mirror = torch.tensor([[-1.0, 0.0], [0.0, 1.0]]).expand(4, 2, 2)
    torch.testing.assert_close(affine(batch, mirror, torch.zeros(4, 2)), TF.hflip(batch), atol=2e-5, rtol=0)
    right_down = torch.tensor([[0, 0], [3, -2], [-1, 4], [2, 2]])
    moved = affine(batch, torch.eye(2).expand(4, 2, 2), right_down.float())
    torch.testing.assert_close(moved, shift(batch, right_down.flip(1), mode="reflect"), atol=2e-5, rtol=0)


def test_affine_has_first_and_second_derivatives() -> None:
    batch, (matrix, offset) = images(2, 1, 4, 3).double().requires_grad_(), matrices(2)
    assert torch.autograd.gradcheck(lambda x: affine(x, matrix, offset), batch)
    assert torch.autograd.gradgradcheck(lambda x: affine(x, matrix, offset) ** 3, batch)


# -- color


def color_options(n: int, **given: float) -> dict[str, Tensor]:
    neutral = {"brightness": 0.0, "contrast": 1.0, "luma_flip": 1.0, "hue": 0.0, "saturation": 1.0}
    return {name: torch.full((n,), value, dtype=torch.float64) for name, value in (neutral | given).items()}


def recolored(batch: Tensor, **given: float) -> Tensor:
    return recolor(batch, color_map(**color_options(len(batch), **given)))


def test_nothing_is_changed_by_neutral_colors() -> None:
    torch.testing.assert_close(recolored(images()), images(), atol=1e-6, rtol=0)


def test_each_change_of_color_by_its_own_formula() -> None:
    batch = images().double()
    gray = batch.mean(1, keepdim=True)
    for given, expected in (
        ({"brightness": 0.3}, batch + 0.3),
        ({"contrast": 1.7}, batch * 1.7),
        ({"luma_flip": -1.0}, batch - 2 * gray),
        ({"saturation": 0.4}, gray + 0.4 * (batch - gray)),
        ({"saturation": 0.0}, gray.expand_as(batch)),
        ({"hue": 2 * math.pi / 3}, batch[:, [2, 0, 1]]),  # red becomes green, green blue, blue red
        ({"hue": -2 * math.pi / 3}, batch[:, [1, 2, 0]]),
    ):
        torch.testing.assert_close(recolored(batch, **given), expected, atol=1e-6, rtol=0)


def test_all_colors_together_are_the_paper_s_chain_of_matrices() -> None:
    options = {"brightness": 0.2, "contrast": 1.4, "luma_flip": -1.0, "hue": 0.9, "saturation": 0.6}
    v = np.ones(3) / math.sqrt(3)
    along = np.outer(v, v)
    pixels = images().double().movedim(1, -1).numpy() + options["brightness"]
    chain = (
        (along + options["saturation"] * (np.eye(3) - along))
        @ Rotation.from_rotvec(options["hue"] * v).as_matrix()
        @ (np.eye(3) - 2 * along)
        * options["contrast"]
    )
    expected = torch.from_numpy(pixels @ chain.T).movedim(-1, 1)
    torch.testing.assert_close(recolored(images().double(), **options), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_another_number_of_channels_goes_where_gray_goes(channels: int) -> None:
    batch = images(channels=channels)
    options = {"brightness": 0.2, "contrast": 1.4, "luma_flip": -1.0, "hue": 0.9, "saturation": 0.6}
    torch.testing.assert_close(recolored(batch, **options), -1.4 * (batch + 0.2), atol=1e-6, rtol=0)
    as_rgb = recolored(batch[:, :1].expand(-1, 3, -1, -1), **options)
    torch.testing.assert_close(as_rgb[:, :1], recolored(batch[:, :1], **options), atol=1e-6, rtol=0)
