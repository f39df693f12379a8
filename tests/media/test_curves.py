"""Curves as a picture."""

from __future__ import annotations

import numpy as np
from PIL import Image

from lit_aigc.media.curves import draw_curves


def test_a_picture_has_the_curves_on_white(tmp_path):
    path = draw_curves(
        {"losses": {"d_loss": ([0, 100], [0.0, 1.0])}, "fid": {"fid_x": ([50], [3.0])}}, tmp_path / "curves.png"
    )
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    assert (pixels == 255).all(-1).mean() > 0.7
    assert (pixels == (0x33, 0x66, 0xCC)).all(-1).sum() > 300, "a line and a dot in the first color"


def test_not_finite_values_do_not_break_the_picture(tmp_path):
    curve = ([1, 2, 3], [1.0, float("nan"), float("inf")])
    assert draw_curves({"a": {"b": curve, "c": ([1], [float("nan")])}}, tmp_path / "curves.png").exists()


def test_nothing_to_draw_writes_nothing(tmp_path):
    assert draw_curves({}, tmp_path / "curves.png") is None
    assert not list(tmp_path.iterdir())
