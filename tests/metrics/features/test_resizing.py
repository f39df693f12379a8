"""Resizing: closed forms, and the libraries that the protocols come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lit_aigc.metrics.features.resizing import RESIZES, clean, legacy, tensorflow

PICTURE = torch.randint(0, 256, (2, 3, 24, 33), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SIZES = [(299, 299), (24, 33), (24, 40), (50, 33), (9, 11), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
def test_tensorflow_is_that_of_torch_fidelity(size):
    fidelity = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    expected = fidelity.interpolate_bilinear_2d_like_tensorflow1x(PICTURE.float(), size=size, align_corners=False)
    assert torch.allclose(tensorflow(PICTURE, *size), expected, rtol=0, atol=1e-3)


def test_tensorflow_starts_at_the_origin_and_legacy_at_the_centre():
    row = torch.tensor([0, 100], dtype=torch.uint8).view(1, 1, 1, 2)
    assert tensorflow(row, 1, 4).flatten().tolist() == [0, 50, 100, 100]
    assert legacy(row, 1, 4).flatten().tolist() == [0, 25, 75, 100]


def test_neither_bilinear_one_averages_when_it_shrinks():
    stripes = torch.tensor([0, 255] * 4, dtype=torch.uint8).view(1, 1, 1, 8)
    assert tensorflow(stripes, 1, 4).flatten().tolist() == [0] * 4  # every second pixel
    assert legacy(stripes, 1, 2).flatten().tolist() == [127.5] * 2  # of two pixels, though four are replaced
    assert clean(stripes, 1, 2).flatten().tolist() == pytest.approx([127.5] * 2, abs=20)


@pytest.mark.parametrize("size", SIZES)
def test_clean_is_pillow_s_bicubic_of_each_channel_in_float(size):
    expected = np.stack(
        [
            [
                np.asarray(Image.fromarray(channel.float().numpy(), "F").resize(size[::-1], Image.Resampling.BICUBIC))
                for channel in image
            ]
            for image in PICTURE
        ]
    )
    assert np.abs(clean(PICTURE, *size).numpy() - expected.clip(0, 255)).max() < 1e-2


@pytest.mark.parametrize("name", RESIZES)
def test_what_all_have_in_common(name):
    resize = RESIZES[name]
    assert torch.allclose(resize(PICTURE, 24, 33), PICTURE.float(), rtol=0, atol=1e-3)  # nothing to do
    assert torch.allclose(resize(torch.full_like(PICTURE, 77), 40, 7), torch.tensor(77.0), rtol=0, atol=1e-3)
    larger = resize(PICTURE, 48, 66)
    assert (larger.dtype, larger.min() >= 0, larger.max() <= 255) == (torch.float32, True, True)
    assert not torch.equal(larger, larger.round())  # not rounded
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(resize(PICTURE, 48, 66), larger)
