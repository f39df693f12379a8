import numpy as np
import torch
from PIL import ImageStat

from lit_aigc.media.sheets import GAP, MARGIN, PADDING, Panel, draw_sheet


def flat(levels, side=48):
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(len(levels), 1, side, side)


def find(sheet, level):
    """Box (left, top, right, bottom) of a grey level that the page has in one place only."""
    ys, xs = np.where((np.asarray(sheet) == level).all(-1))
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


def test_panels_of_a_band_stand_side_by_side_and_bands_below_each_other():
    sheet = draw_sheet(
        [[Panel(flat([1, 2, 3, 4]), 2, "generated"), Panel(flat([5, 6]), 1, "real")], [Panel(flat([7]), 1, "strip")]],
        "t",
    )
    boxes = {level: find(sheet, level) for level in range(1, 8)}
    assert all((right - left, bottom - top) == (48, 48) for left, top, right, bottom in boxes.values())
    assert boxes[1][0] == boxes[3][0] == boxes[7][0] == MARGIN
    assert boxes[2][0] == boxes[1][2] + PADDING
    assert boxes[5][0] == boxes[2][2] + GAP
    assert boxes[3][1] == boxes[6][1] == boxes[1][3] + PADDING
    assert boxes[7][1] > boxes[3][3] + GAP
    assert sheet.width == boxes[5][2] + MARGIN
    assert sheet.height == boxes[7][3] + MARGIN


def test_tiny_images_are_enlarged_by_a_whole_factor():
    for side, shown in ((1, 48), (28, 56), (32, 64), (47, 94), (48, 48), (64, 64)):
        left, top, right, bottom = find(draw_sheet([[Panel(flat([9], side), 1)]]), 9)
        assert (right - left, bottom - top) == (shown, shown)


def test_names_and_captions_are_written_outside_the_images():
    images = flat([40, 80])
    plain = draw_sheet([[Panel(images, 1, "generated")]])
    named = draw_sheet([[Panel(images, 1, "generated", ["shirt", "a name that is far too long"])]])
    left, top, _, bottom = find(named, 40)
    assert left > find(plain, 40)[0]
    for y0, y1 in ((top, bottom), (bottom + PADDING, bottom + PADDING + 48)):
        margin = named.convert("L").crop((0, y0, left, y1))
        assert ImageStat.Stat(margin).extrema[0][0] < 200, "something is written beside each row"
    assert left < 200


def test_colours_stay():
    image = torch.zeros(1, 3, 48, 48, dtype=torch.uint8)
    image[:, 0] = 200
    sheet = draw_sheet([[Panel(image, 1)]])
    assert sheet.getpixel((MARGIN + 24, sheet.height - MARGIN - 24)) == (200, 0, 0)


def test_panels_without_images_are_left_out():
    empty = Panel(flat([]), 4, "real")
    with_empty = draw_sheet([[Panel(flat([3]), 1, "a"), empty], [empty]])
    assert with_empty.size == draw_sheet([[Panel(flat([3]), 1, "a")]]).size
    assert draw_sheet([]).width > 0


def test_bands_with_names_of_columns_and_no_caption_are_closer():
    captioned, named = Panel(flat([11, 12]), 2, "real", (), ["a", "b"]), Panel(flat([13, 14]), 2, "", (), ["a", "b"])
    line = find(draw_sheet([[captioned]]), 11)[1] - find(draw_sheet([[named]]), 13)[1]
    assert line == find(draw_sheet([[Panel(flat([15]), 1)]]), 15)[1] - MARGIN > 10
    assert find(draw_sheet([[named, captioned]]), 13)[1] == find(draw_sheet([[captioned]]), 11)[1]
