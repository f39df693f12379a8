"""The picture: what is drawn, where, and that nothing overlaps."""

import numpy as np
import pytest
from PIL import Image

from lit_aigc.compare.picture import (
    COLORS,
    GAP,
    draw_comparison,
    quality_over_time,
    short_names,
    spread_apart,
)
from lit_aigc.compare.records import SAMPLES
from lit_aigc.compare.report import Report

KEY = "fid_mnist_classifier"


def strip(path, level, side=28, channels=1):
    """A row of images of one grey level each: level, level + 1, ..."""
    row = np.repeat(np.arange(level, level + SAMPLES, dtype=np.uint8), side)[None].repeat(side, axis=0)
    image = Image.fromarray(row)
    (image if channels == 1 else image.convert("RGB")).save(path)
    return path.name


def find(page, level):
    """Box (left, top, right, bottom) of an image of one grey level; letters have a few pixels of it at most."""
    there = (page == level).all(-1)
    ys, xs = np.where(there.sum(1) >= 30)[0], np.where(there.sum(0) >= 30)[0]
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


@pytest.mark.parametrize(("side", "channels", "shown"), [(28, 1, 56), (32, 3, 64), (64, 3, 64)])
def test_samples_stand_side_by_side_at_one_scale_real_ones_on_top(made_up, plan, tmp_path, side, channels, shown):
    real = strip(tmp_path / "real.png", 1, side, channels)
    a, b = (strip(tmp_path / f"{name}.png", level, side, channels) for name, level in (("a", 40), ("b", 80)))
    records = [
        made_up("worse_mnist", 0, 4.0, samples=b, real=real),
        made_up("better_mnist", 0, 2.0, samples=a, real=real),
        made_up("better_mnist", 1, 2.5, samples="never looked at.png"),
    ]
    report = Report(records, plan("worse_mnist", "better_mnist"), None, None)
    assert draw_comparison(report, tmp_path / "out.png")
    page = np.asarray(Image.open(tmp_path / "out.png").convert("RGB"))
    boxes = [find(page, level) for level in (1, 40, 80)]
    assert all((right - left, bottom - top) == (shown, shown) for left, top, right, bottom in boxes)
    assert len({left for left, *_ in boxes}) == 1
    tops = [top for _, top, *_ in boxes]
    assert tops == sorted(tops), "real, then the better, then the worse"
    assert tops[1] - tops[0] == tops[2] - tops[1] > shown
    assert find(page, 41)[0] == boxes[1][2] + GAP
    assert find(page, 40 + SAMPLES - 1)[2] < page.shape[1]


def test_each_line_has_its_colour_and_the_margin_stays_white(made_up, plan, tmp_path):
    names = [f"a{i}_mnist" for i in range(4)]
    records = [made_up(name, seed, 1.0 + i + 0.2 * seed) for i, name in enumerate(names) for seed in range(2)]
    assert draw_comparison(Report(records, plan(*names), None, None), tmp_path / "out.png")
    page = np.asarray(Image.open(tmp_path / "out.png").convert("RGB"))
    for colour in COLORS[:4]:
        rgb = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
        assert (page == rgb).all(-1).sum() > 200, colour
    border = np.concatenate([page[:8].reshape(-1, 3), page[-8:].reshape(-1, 3), page[:, :8].reshape(-1, 3)])
    assert (border == 255).all()
    assert (page[:, -8:] == 255).all()


def test_values_below_zero_and_single_points_do_not_break_it(made_up, plan, tmp_path):
    curve = {"train_seconds": [1.0], "samples_seen": [1], KEY: [-0.1]}
    report = Report([made_up("a", 0, -0.1, curve=curve)], plan("a"), None, None)
    assert draw_comparison(report, tmp_path / "out.png")


def test_nothing_to_draw_writes_nothing(made_up, plan, tmp_path):
    failed = made_up("a", 0, None, status="failed", error="x", metrics={}, curve={})
    assert not draw_comparison(Report([failed], plan("a"), None, None), tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_quality_over_time_is_mean_and_range_over_the_seeds(made_up, plan):
    curves = [
        {"train_seconds": [10.0, 20.0, 30.0], "samples_seen": [1, 2, 3], KEY: [8.0, 4.0, 2.0]},
        {"train_seconds": [12.0, 22.0, 32.0], "samples_seen": [1, 2, 3], KEY: [6.0, None, 1.0]},
    ]
    records = [made_up("a", seed, 2.0, curve=curve) for seed, curve in enumerate(curves)]
    (row,) = Report(records[:1], plan("a"), None, None).rows
    assert quality_over_time(row, KEY) == [(10.0, 8.0, 8.0, 8.0), (20.0, 4.0, 4.0, 4.0), (30.0, 2.0, 2.0, 2.0)]
    (row,) = Report(records, plan("a"), None, None).rows
    assert quality_over_time(row, KEY)[0] == (11.0, 7.0, 6.0, 8.0)
    assert quality_over_time(row, KEY)[-1] == (31.0, 1.5, 1.0, 2.0), "validations that not all measured are left out"


def test_names_lose_the_words_that_all_end_in():
    assert short_names(["dcgan_fashion_mnist", "wgan_gp_fashion_mnist"]) == ["dcgan", "wgan_gp"]
    assert short_names(["mnist", "wgan_mnist"]) == ["mnist", "wgan_mnist"]
    assert short_names(["dcgan_mnist"]) == ["dcgan_mnist"]
    assert short_names([]) == []


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([10.0, 50.0], [10.0, 50.0]),
        ([50.0, 51.0, 10.0], [50.0, 60.0, 10.0]),
        ([99.0, 98.0], [100.0, 90.0]),
        ([0.0, 0.0, 0.0], [0.0, 10.0, 20.0]),
        ([5.0], [5.0]),
        ([], []),
    ],
)
def test_labels_move_apart_in_their_order(places, expected):
    assert spread_apart(places, 10, 0, 100) == expected
