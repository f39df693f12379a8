"""Augmentation: values against slow references, gradients, and independence of the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_aigc import augmentation
from lit_aigc.augmentation import HorizontalFlip, RandomShift, horizontal_flip, shift
from lit_aigc.errors import InputError
from lit_aigc.noise import Noise

ALL = [HorizontalFlip(), RandomShift(2), RandomShift(3, mode="edge"), RandomShift(2, mode="reflect")]


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


@pytest.mark.parametrize("augment", ALL, ids=lambda augment: type(augment).__name__)
def test_an_image_is_changed_alike_in_any_batch(augment) -> None:
    batch, noise = images(20), Noise(5, start=100)
    whole = augment(batch, noise=noise)
    parts = [augment(batch[a:b], noise=noise.skip(a)) for a, b in [(0, 1), (1, 8), (8, 20)]]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(whole, batch)
    assert not torch.equal(whole, augment(batch, noise=noise.skip(1)))


@pytest.mark.parametrize("augment", ALL, ids=lambda augment: type(augment).__name__)
def test_gradients_are_exact(augment) -> None:
    batch = images(4, channels=2, height=5, width=4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augment(x, noise=Noise(1)), batch)


@pytest.mark.parametrize("augment", ALL, ids=lambda augment: type(augment).__name__)
def test_layout_does_not_change_values(augment) -> None:
    batch = images()
    standard = augment(batch, noise=Noise(2))
    assert torch.equal(augment(batch.contiguous(memory_format=torch.channels_last), noise=Noise(2)), standard)


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
    ],
)
def test_bad_options_are_refused(make) -> None:
    with pytest.raises(InputError, match=r"HorizontalFlip|RandomShift"):
        make()
