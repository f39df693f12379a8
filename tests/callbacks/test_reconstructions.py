"""What an encoder's pictures show: reconstructions, single units, ways between images, a map."""

from __future__ import annotations

import contextlib
import types

import numpy as np
import pytest
import torch
from PIL import Image

from lit_aigc.callbacks import reconstructions
from lit_aigc.callbacks.reconstructions import Reconstructions, _spread_images
from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.latents.codes import draw_map, pairs, spread
from lit_aigc.modules.base import GenerativeModule
from lit_aigc.modules.latent import LatentModule
from lit_aigc.spec import Batch, DataSpec
from lit_aigc.train.run import train

SIDE = 48  # shown as it is
LEVELS = torch.arange(40, 200, 4, dtype=torch.uint8)  # of the 40 validation images
LABELS = torch.arange(40) % 2


class Model(LatentModule):
    """The code of an image is (level in [-1, 1], 0, 0.25 times level); only its first unit is decoded.

    Without averaged weights all is black. A class takes 0.1 away, which decoding adds again.
    """

    latent_dim = 3

    def __init__(self, conditional=False):
        super().__init__(DataSpec("image", (1, SIDE, SIDE), num_classes=2, class_names=("even", "odd")), conditional)
        self.live = True
        self.samples_seen, self.progress = 640, 1.0
        self.dropout = torch.nn.Dropout()

    @contextlib.contextmanager
    def averaged(self):
        self.live = False
        yield
        self.live = True

    def encode(self, images, labels=None):
        assert not self.training and not self.live and not torch.is_grad_enabled()
        torch.rand(1)
        level = images.mean(dim=(1, 2, 3))
        if self.conditional:
            level = level - 0.1 * labels
        return torch.stack([level, torch.zeros_like(level), 0.25 * level], dim=1)

    def images_of(self, z, labels):
        level = z[:, 0] + (0.1 * labels if self.conditional else 0)
        return level[:, None, None, None].expand(-1, 1, SIDE, SIDE)


class Binary(Model):
    """Sees black and white images."""

    def observed(self, images, noise):
        return torch.where(images > 0, 1.0, -1.0)


class OfItsOwn(GenerativeModule):
    """A model without codes that are vectors: it turns images into their negatives."""

    def __init__(self):
        super().__init__(Model().spec)
        self.samples_seen, self.progress = 640, 1.0

    def reconstruct(self, images):
        return -images


class PictureLogger:
    def __init__(self):
        self.pictures = []

    def log_picture(self, key, picture, step):
        self.pictures.append((key, picture, step))


def real_batches(split, levels=LEVELS, labels=LABELS):
    assert split == "val"
    images = levels[:, None, None, None].expand(-1, 1, SIDE, SIDE)
    for i in range(0, len(images), 16):
        yield Batch(images[i : i + 16], None if labels is None else labels[i : i + 16], i)


def make_trainer(folder, is_global_zero=True, **data):
    return types.SimpleNamespace(
        datamodule=types.SimpleNamespace(real_batches=lambda split: real_batches(split, **data)),
        default_root_dir=str(folder),
        is_global_zero=is_global_zero,
        sanity_checking=False,
        loggers=[PictureLogger()],
    )


def panels_of(monkeypatch, tmp_path, model, **options):
    seen = []
    blank = Image.new("RGB", (1, 1))
    monkeypatch.setattr(reconstructions, "draw_sheet", lambda bands, *title: seen.extend(bands) or blank)
    Reconstructions(**options).draw(make_trainer(tmp_path), model)
    return seen


def drawn(monkeypatch, tmp_path, model, **options):
    """The bands of panels that the sheet is made of, as levels: one a panel, ``(rows, columns)``."""
    seen = []
    monkeypatch.setattr(
        reconstructions, "draw_sheet", lambda bands, *title: seen.extend(bands) or Image.new("RGB", (1, 1))
    )
    Reconstructions(**options).draw(make_trainer(tmp_path), model)
    return [[panel.images[:, 0, 0, 0].int().view(-1, panel.columns) for panel in band] for band in seen]


def levels_of(values):
    return torch.as_tensor(values).add(1).mul(127.5).add(0.5).floor().clamp(0, 255).int()


@pytest.mark.parametrize("conditional", [False, True])
def test_images_stand_beside_their_reconstructions(monkeypatch, tmp_path, conditional):
    band, *_ = drawn(monkeypatch, tmp_path, Model(conditional), rows=2, columns=4)
    expected = LEVELS[::5].int().view(2, 4)  # 8 of 40, evenly spaced
    for i, pair in enumerate(band):
        assert pair.tolist() == [[level, level] for level in expected[:, i].tolist()]


def test_what_a_binary_model_sees_is_what_is_shown(monkeypatch, tmp_path):
    band, *_ = drawn(monkeypatch, tmp_path, Binary(), rows=2, columns=4)
    shown = torch.stack([pair[:, 0] for pair in band], dim=1)
    assert torch.equal(shown, torch.where(LEVELS[::5].int().view(2, 4) > 127, 255, 0))


def test_the_most_active_units_are_varied_and_all_else_is_kept(monkeypatch, tmp_path):
    _, (first, last), _ = drawn(monkeypatch, tmp_path, Model(), rows=2, columns=4, units=2)
    steps = levels_of(torch.linspace(-3, 3, 7))
    for panel, image in ((first, LEVELS[0]), (last, LEVELS[15])):
        assert panel[0].tolist() == steps.tolist(), "unit 0 is what is decoded"
        assert panel[1].tolist() == [int(image)] * 7, "unit 2 is not"


def test_units_are_named_and_varied_as_far_as_the_prior_reaches(monkeypatch, tmp_path):
    model = Model()
    model.latents_of = lambda eps, labels: eps * torch.tensor([0.1, 1.0, 1.0]) + 0.2
    panels = panels_of(monkeypatch, tmp_path, model)[1]
    assert panels[0].row_names == ["unit 0", "unit 2", "unit 1"]
    assert panels[0].column_names == ["-3", "-2", "-1", "0", "1", "2", "3"]
    expected = levels_of(0.2 + 0.1 * torch.linspace(-3, 3, 7))
    assert (panels[0].images[:7, 0, 0, 0].int() - expected).abs().max() <= 1


@pytest.mark.parametrize("conditional", [False, True])
def test_the_way_from_one_image_to_another_of_the_same_class_if_there_are_classes(monkeypatch, tmp_path, conditional):
    *_, (first, between, last) = drawn(monkeypatch, tmp_path, Model(conditional), interpolations=4)
    assert first[:, 0].tolist() == LEVELS[[0, 5, 10, 15]].tolist()
    assert last[:, 0].tolist() == (LEVELS[[38, 37, 34, 33]] if conditional else LEVELS[[39, 34, 29, 24]]).tolist()
    share = torch.linspace(0, 1, between.shape[1])
    assert (between - (first + share * (last - first))).abs().max() <= 1


def test_the_sheet_is_written_and_logged_and_nothing_is_left_behind(tmp_path):
    model, trainer, state = Model().train(), make_trainer(tmp_path), torch.random.get_rng_state()
    model.dropout.eval()
    Reconstructions().on_validation_end(trainer, model)
    (path,) = (tmp_path / "samples").iterdir()
    assert path.name == "0000000640_reconstructions.png"
    ((key, picture, step),) = trainer.loggers[0].pictures
    assert (key, step) == ("reconstructions", 640)
    assert np.array_equal(picture, np.asarray(Image.open(path)))
    assert model.training and not model.dropout.training and model.live
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_map_is_drawn_when_training_is_done(tmp_path):
    model, trainer = Model(), make_trainer(tmp_path)
    made = Reconstructions()
    model.progress = 0.9  # paused
    made.on_train_end(trainer, model)
    assert not list(tmp_path.iterdir())
    model.progress = 1.0
    made.on_train_end(trainer, model)
    ((key, picture, step),) = trainer.loggers[0].pictures
    assert (key, step) == ("latent_map", 640)
    assert np.array_equal(picture, np.asarray(Image.open(tmp_path / "latent_map.png")))
    Reconstructions(map_images=0).on_train_end(make_trainer(tmp_path / "none"), model)
    assert not (tmp_path / "none").exists()


def test_a_model_without_vectors_gets_its_own_reconstructions_alone(monkeypatch, tmp_path):
    (band,) = drawn(monkeypatch, tmp_path, OfItsOwn(), rows=1, columns=4)
    assert [pair.tolist() for pair in band] == [[[level, 255 - level]] for level in LEVELS[::10].int().tolist()]
    Reconstructions().on_train_end(make_trainer(tmp_path), OfItsOwn())
    assert not list(tmp_path.iterdir())


def test_other_models_and_other_processes_draw_nothing(tmp_path):
    made, untouched = Reconstructions(), types.SimpleNamespace(progress=1.0)
    for trainer, model in (
        (make_trainer(tmp_path), untouched),
        (make_trainer(tmp_path, is_global_zero=False), Model()),
    ):
        made.on_validation_end(trainer, model)
        made.on_train_end(trainer, model)
    assert not list(tmp_path.iterdir())


def test_data_without_labels_and_few_images(tmp_path):
    for count in (1, 3):
        trainer = make_trainer(tmp_path / str(count), levels=LEVELS[:count], labels=None)
        made, model = Reconstructions(), Model()
        made.on_validation_end(trainer, model)
        made.on_train_end(trainer, model)
        assert [key for key, *_ in trainer.loggers[0].pictures] == ["reconstructions", "latent_map"]


def test_images_are_spread_over_the_split_and_few_are_kept():
    images, labels = _spread_images(real_batches("val"), 7)
    assert images[:, 0, 0, 0].tolist() == LEVELS[[0, 4, 8, 16, 20, 28, 32]].tolist()
    assert labels.tolist() == [0] * 7
    assert spread(10, 3).tolist() == [0, 3, 6] and spread(2, 5).tolist() == [0, 1]


@pytest.mark.parametrize("option", ["rows", "columns", "units", "interpolations", "map_images"])
def test_options_out_of_range(option):
    with pytest.raises(InputError, match=f"{option}=-1"):
        Reconstructions(**{option: -1})


def test_a_row_of_pairs_that_is_not_full_ends_in_white():
    images = LEVELS[:3, None, None, None].expand(-1, 1, 2, 2)
    first, second = pairs(images, 255 - images, 2)
    assert first.images[:, 0, 0, 0].tolist() == [40, 215, 48, 207]
    assert second.images[:, 0, 0, 0].tolist() == [44, 211, 255, 255]
    assert len(pairs(images, images, 8)) == 3


def colours(picture):
    values, counts = np.unique(np.asarray(picture).reshape(-1, 3), axis=0, return_counts=True)
    return {tuple(value): count for value, count in zip(values.tolist(), counts.tolist(), strict=True)}


TAB10 = ((31, 119, 180), (255, 127, 14), (44, 160, 44))


def test_a_map_has_a_colour_a_class_that_there_is():
    codes = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    seen = colours(draw_map(codes, torch.arange(60) % 2, ("a", "b", "nobody"), "title"))
    assert [seen.get(colour, 0) > 20 for colour in TAB10] == [True, True, False]  # dots in the legend
    plain = colours(draw_map(codes, None, ()))
    assert not any(plain.get(colour) for colour in TAB10[1:])


def test_of_very_many_classes_the_rest_is_grey():
    labels = torch.cat([torch.arange(30), torch.arange(10, 30), torch.arange(25, 30)])
    seen = colours(draw_map(torch.randn(55, 2), labels, [f"class {i}" for i in range(30)]))
    assert seen.get((191, 191, 191), 0) > 20


VAE = (
    *("model=vae", "model.network.encoder.latent_dim=3", "model.network.encoder.hidden=[8]"),
    "callbacks.reconstructions={_target_: lit_aigc.callbacks.reconstructions.Reconstructions, units: 2}",
)


def arguments_of_a_tiny_vae(tiny):
    others = [a for a in tiny if not a.startswith(("model", "callbacks.reconstructions"))]
    return [*others, *VAE]


def test_at_each_validation_of_a_training(tiny, tmp_path):
    run = train(load("train", [*arguments_of_a_tiny_vae(tiny), "validations=2", f"run_dir={tmp_path / 'run'}"]))
    files = sorted(file.name for file in (tmp_path / "run" / "samples").iterdir())
    assert files == ["0000000016_reconstructions.png", "0000000032_reconstructions.png"]
    assert Image.open(tmp_path / "run" / "latent_map.png").size[0] > 500
    assert run.exit_code == 0


def test_by_default_a_gan_gets_no_such_pictures(tiny, tmp_path):
    arguments = [a for a in tiny if not a.startswith("callbacks.reconstructions")]
    assert train(load("train", [*arguments, f"run_dir={tmp_path / 'run'}"])).exit_code == 0
    assert not (tmp_path / "run" / "samples").exists() and not (tmp_path / "run" / "latent_map.png").exists()
