import numpy as np
import pytest
import torch
from PIL import Image

from lit_aigc.media.images import make_grid, save_images, save_png, to_pil, to_uint8, upscale


def test_to_uint8_is_the_inverse_of_normalization():
    levels = torch.arange(256, dtype=torch.uint8)
    for low, high in ((-1.0, 1.0), (0.0, 1.0), (-3.0, 5.0)):
        floats = levels.float() / 255 * (high - low) + low
        assert torch.equal(to_uint8(floats, (low, high)), levels)


def test_to_uint8_rounds_to_the_nearest_level_and_clamps():
    x = torch.tensor([0.0, 0.49, 0.5, 1.49, 1.51, 254.6, 300.0, -7.0, float("inf"), float("-inf"), float("nan")])
    assert to_uint8(x / 255, (0, 1)).tolist() == [0, 0, 1, 1, 2, 255, 255, 0, 255, 0, 0]


def test_to_uint8_keeps_grey_levels_and_takes_bfloat16():
    levels = torch.tensor([[3, 200]], dtype=torch.uint8)
    assert to_uint8(levels, (-1, 1)) is levels
    assert to_uint8(torch.tensor([-1.0, 1.0], dtype=torch.bfloat16), (-1, 1)).tolist() == [0, 255]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_same_levels(tmp_path, channels):
    image = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    with Image.open(save_png(image, tmp_path / "a.png")) as opened:
        array = np.asarray(opened)
    assert array.shape == ((5, 7) if channels == 1 else (5, 7, 3))
    assert np.array_equal(array.reshape(5, 7, channels).transpose(2, 0, 1), image.numpy())


def test_to_pil_refuses_what_is_no_image():
    with pytest.raises(ValueError, match="to_uint8"):
        to_pil(torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match=r"\(2, 4, 4\)"):
        to_pil(torch.zeros(2, 4, 4, dtype=torch.uint8))


def test_save_images_names_files_by_the_index_of_the_sample(tmp_path):
    images = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 1, 2, 2)
    paths = save_images(images, tmp_path / "out", start=11)
    assert [path.name for path in paths] == ["000011.png", "000012.png", "000013.png"]
    assert np.asarray(Image.open(paths[2])).tolist() == [[2, 2], [2, 2]]


def test_make_grid_lays_out_by_rows_with_padding_between_only():
    images = torch.arange(1, 4, dtype=torch.uint8)[:, None, None, None].expand(3, 1, 1, 1)
    assert make_grid(images, columns=2, padding=1, background=9)[0].tolist() == [[1, 9, 2], [9, 9, 9], [3, 9, 9]]
    assert make_grid(images, columns=8, padding=0)[0].tolist() == [[1, 2, 3]]


def test_upscale_repeats_pixels():
    assert upscale(torch.tensor([[1, 2]]), 2).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]
