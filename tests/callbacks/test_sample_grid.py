import contextlib
import dataclasses
import types

import numpy as np
import pytest
import torch
from PIL import Image

from lit_aigc.callbacks import sample_grid
from lit_aigc.callbacks.sample_grid import SampleGrid
from lit_aigc.data.loaders import ResidentImages
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, DataSpec

SIDE = 48  # shown as it is


class Model(torch.nn.Module):
    """Paints a sample in one level: its class times 20, plus its noise in 0..9, plus 100 without averaged weights."""

    device = "cpu"

    def __init__(self, conditional, num_classes=3):
        super().__init__()
        names = ("a", "b", "c")[:num_classes]
        self.spec = DataSpec("image", (1, SIDE, SIDE), (0.0, 1.0), num_classes, names)
        self.conditional = conditional
        self.samples_seen = 640
        self.live = True
        self.asked = []

    @contextlib.contextmanager
    def averaged(self):
        self.live = False
        yield
        self.live = True

    @contextlib.contextmanager
    def evaluating(self):
        was_training = self.training
        self.eval()
        yield
        self.train(was_training)

    def sample(self, n, *, condition=None, noise):
        assert not self.training
        assert not torch.is_grad_enabled()
        self.asked.append((n, condition, noise))
        classes = condition.labels if condition is not None else torch.zeros(n, dtype=torch.int64)
        levels = classes * 20 + noise.integers(n, 10) + 100 * self.live
        return (levels / 255.0)[:, None, None, None].expand(n, 1, SIDE, SIDE).float()


class Interpolating(Model):
    def interpolate(self, n, *, condition=None, noise):
        assert not self.live
        self.asked.append(("interpolate", n, condition, noise))
        return torch.full((n, 1, SIDE, SIDE), 0.5)


class PictureLogger:
    def __init__(self):
        self.pictures = []

    def log_picture(self, key, picture, step):
        self.pictures.append((key, picture, step))


def make_trainer(folder, labels=(2, 0, 1, 1, 0, 2, 0, 1), is_global_zero=True):
    levels = torch.arange(200, 200 + len(labels), dtype=torch.uint8)
    images = levels[:, None, None, None].expand(-1, 1, SIDE, SIDE)
    labels = torch.tensor(labels)

    def real_batches(split):
        assert split == "val"
        yield Batch(images[:5], labels[:5], 0)
        yield Batch(images[5:], labels[5:], 5)

    return types.SimpleNamespace(
        datamodule=types.SimpleNamespace(real_batches=real_batches),
        default_root_dir=str(folder),
        is_global_zero=is_global_zero,
        sanity_checking=False,
        loggers=[PictureLogger()],
    )


def cells(sheet, columns, left, top):
    """The level at the centre of each cell of the grid whose first cell begins at (left, top)."""
    page = np.asarray(sheet)[..., 0]
    ys = range(top + SIDE // 2, page.shape[0], SIDE + 2)
    return [[int(page[y, left + SIDE // 2 + (SIDE + 2) * x]) for x in range(columns)] for y in ys]


def first_cell(sheet):
    """Left and top of the first generated image: where the page first has a long run that isn't white."""
    dark = (np.asarray(sheet)[..., 0] < 150).astype(int)
    tops, lefts = np.where(np.lib.stride_tricks.sliding_window_view(dark, (SIDE, SIDE)).all((2, 3)))
    return int(lefts[tops == tops.min()].min()), int(tops.min())


def test_a_conditional_model_gets_a_row_a_class_with_real_images_of_the_class_beside(tmp_path):
    model, trainer = Model(conditional=True).train(), make_trainer(tmp_path)
    SampleGrid(columns=4, real_columns=2).on_validation_end(trainer, model)
    (path,) = (tmp_path / "samples").iterdir()
    assert path.name == "0000000640.png"
    sheet = Image.open(path)
    left, top = first_cell(sheet)
    drawn = Noise(0).integers(12, 10).view(3, 4)
    expected = [[int(20 * row + level) for level in drawn[row]] for row in range(3)]
    assert cells(sheet, 4, left, top)[:3] == expected
    real_left = left + 4 * (SIDE + 2) - 2 + 18
    assert cells(sheet, 2, real_left, top)[:3] == [[201, 204], [202, 203], [200, 205]]
    assert model.training, "left in the mode it was in"
    assert model.live, "left with live weights"


def test_a_class_without_a_validation_image_is_shown_by_training_images(tmp_path):
    trainer = make_trainer(tmp_path, labels=(2, 0, 0, 2, 2, 0))
    levels = torch.tensor([160, 161, 162], dtype=torch.uint8)[:, None, None, None]
    pixels = levels.expand(-1, SIDE, SIDE, 1)
    train = ResidentImages(pixels, torch.tensor([0, 1, 1]))
    trainer.datamodule.split = {"train": train}.__getitem__
    sheet = SampleGrid(columns=4, real_columns=3).draw(trainer, Model(conditional=True))
    left, top = first_cell(sheet)
    real = cells(sheet, 3, left + 4 * (SIDE + 2) - 2 + 18, top)[:3]
    assert real == [[201, 202, 205], [161, 162, 255], [200, 203, 204]]


def test_the_loggers_get_the_same_picture(tmp_path):
    trainer = make_trainer(tmp_path)
    SampleGrid().on_validation_end(trainer, Model(conditional=True))
    ((key, picture, step),) = trainer.loggers[0].pictures
    assert (key, step) == ("samples", 640)
    assert np.array_equal(picture, np.asarray(Image.open(tmp_path / "samples" / "0000000640.png")))


def test_the_sheet_names_whom_the_data_are_of(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(
        sample_grid, "draw_sheet", lambda bands, *title: titles.append(title) or Image.new("RGB", (1, 1))
    )
    model, trainer = Model(conditional=True), make_trainer(tmp_path)
    SampleGrid().draw(trainer, model)
    model.spec = dataclasses.replace(model.spec, attribution="Somebody \u2013 CC BY 4.0")
    SampleGrid().draw(trainer, model)
    assert titles == [("640 samples seen", ""), ("640 samples seen", "Somebody \u2013 CC BY 4.0")]


@pytest.mark.parametrize("num_classes", [0, 3])
def test_another_model_gets_rows_and_no_condition(tmp_path, num_classes):
    model, trainer = Model(conditional=False, num_classes=num_classes), make_trainer(tmp_path)
    sheet = SampleGrid(rows=2, columns=3, real_columns=2).draw(trainer, model)
    assert model.asked == [(6, None, Noise(0))]
    left, top = first_cell(sheet)
    assert cells(sheet, 3, left, top)[:2] == Noise(0).integers(6, 10).view(2, 3).tolist()
    assert cells(sheet, 2, left + 3 * (SIDE + 2) - 2 + 18, top)[:2] == [[200, 201], [202, 203]]


def test_latents_are_the_same_at_every_validation(tmp_path):
    model, trainer, grid = Interpolating(conditional=True), make_trainer(tmp_path), SampleGrid()
    first = grid.draw(trainer, model)
    asked, model.asked = model.asked, []
    assert np.array_equal(np.asarray(grid.draw(trainer, model)), np.asarray(first))
    assert [a[-1] for a in model.asked] == [a[-1] for a in asked]


def test_interpolation_strips_have_one_class_and_their_own_latents(tmp_path):
    model = Interpolating(conditional=True)
    SampleGrid(columns=4, real_columns=2, interpolations=2).draw(make_trainer(tmp_path), model)
    (_, n0, condition0, noise0), (_, n1, condition1, noise1) = model.asked[1:]
    assert n0 == n1 == 6
    assert condition0.labels.tolist() == [0] * 6
    assert condition1.labels.tolist() == [2] * 6
    assert noise1 == noise0.skip(2)
    assert noise0 != Noise(0)


def test_missing_real_images_stay_white(tmp_path):
    trainer = make_trainer(tmp_path, labels=(0, 0, 1, 0, 0))
    trainer.datamodule.split = lambda name: ResidentImages(torch.zeros(1, SIDE, SIDE, 1), torch.tensor([0]))
    sheet = SampleGrid(columns=4, real_columns=2).draw(trainer, Model(True))
    left, top = first_cell(sheet)
    assert cells(sheet, 2, left + 4 * (SIDE + 2) - 2 + 18, top)[:3] == [[200, 201], [202, 255], [255, 255]]


def test_more_classes_than_rows_shows_the_first(tmp_path):
    model = Model(conditional=True)
    SampleGrid(rows=2, columns=1).draw(make_trainer(tmp_path), model)
    assert model.asked[0][1].labels.tolist() == [0, 1]


def test_only_rank_0_draws(tmp_path):
    model = Model(conditional=True)
    SampleGrid().on_validation_end(make_trainer(tmp_path, is_global_zero=False), model)
    assert model.asked == []
    assert not list(tmp_path.iterdir())


def test_no_more_pictures_stay_than_are_to_be_kept(tmp_path):
    model, callback = Model(False, 0), SampleGrid(rows=1, columns=1, real_columns=0, keep=3)
    trainer = make_trainer(tmp_path)
    for model.samples_seen in (0, 10, 20, 30, 40, 50):
        callback.on_validation_end(trainer, model)
    assert [int(path.stem) for path in sorted((tmp_path / "samples").iterdir())] in ([0, 20, 50], [0, 30, 50])
