from __future__ import annotations

import pytest
import torch

from lit_aigc.data.halves import HalfOfTraining
from lit_aigc.data.loaders import ResidentImages
from lit_aigc.data.sources import Mnist5k, Preparation, SourceImages, TorchvisionImages
from lit_aigc.errors import InputError


def split(values: range) -> ResidentImages:
    pixels = torch.tensor(list(values), dtype=torch.uint8)[:, None, None, None].expand(-1, 2, 2, 1)
    return ResidentImages(pixels, torch.tensor(list(values)) % 10)


@pytest.fixture
def ten_images(monkeypatch):
    """A training split of 0 … 9, of which torchvision's source gives the last 2 as validation, and a test split."""
    parts = {"train": split(range(8)), "val": split(range(8, 10)), "test": split(range(100, 103))}
    monkeypatch.setattr(TorchvisionImages, "read", lambda self, root, preparation: SourceImages(parts, ("a",)))
    monkeypatch.setattr(
        Mnist5k, "read", lambda self, root, preparation: SourceImages({"train": split(range(1, 3))}, ())
    )


def first_pixels(images: ResidentImages) -> list[int]:
    return images.pixels[:, 0, 0, 0].tolist()


@pytest.mark.usefixtures("ten_images")
@pytest.mark.parametrize(("half", "expected"), [("first", [0, 1, 2, 3, 4]), ("second", [5, 6, 7, 8, 9])])
def test_halves_are_of_the_whole_training_split(half, expected):
    source = HalfOfTraining("MNIST", half)
    splits = source.read("root", Preparation()).splits
    assert first_pixels(splits["train"]) == expected
    assert splits["train"].labels.tolist() == expected
    assert first_pixels(splits["val"]) == first_pixels(splits["test"]) == [100, 101, 102]
    assert source.name == f"mnist_{half}_half"


@pytest.mark.usefixtures("ten_images")
def test_digits_of_mnist5k_are_left_out():
    splits = HalfOfTraining("MNIST", "first", without_mnist5k=True).read("root", Preparation()).splits
    assert first_pixels(splits["train"]) == splits["train"].labels.tolist() == [0, 3, 4]


@pytest.mark.reference_data
def test_all_digits_of_mnist5k_lie_in_the_first_half(reference_data):
    sizes = {
        half: len(HalfOfTraining("MNIST", half, True).read(str(reference_data), Preparation(32)).splits["train"])
        for half in ("first", "second")
    }
    assert sizes == {"first": 25_000, "second": 30_000}


def test_unknown_half_is_refused():
    with pytest.raises(InputError, match="expected first or second"):
        HalfOfTraining("MNIST", "third")
