from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from lit_aigc.callbacks.neighbors import NearestNeighbors
from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.metrics.neighbors import nearest
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, DataSpec
from lit_aigc.train.run import train
from tests.metrics.toy import MeanColour

SIDE = 48


def noise_images(n, seed):
    return (Noise(seed).uniform(n, 1, SIDE, SIDE) * 256).to(torch.uint8)


class Split:
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def batch(self, start, indices):
        return Batch(self.images[indices], None, start)


class Data:
    """30 training images and 5 held-out ones."""

    spec = DataSpec("image", (1, SIDE, SIDE), (0.0, 255.0))

    def __init__(self):
        self.splits = {"train": Split(noise_images(30, 1)), "val": Split(noise_images(5, 2))}

    def split(self, name):
        return self.splits[name]

    def real_batches(self, name):
        images = self.splits[name].images
        return (Batch(images[i : i + 8], None, i) for i in range(0, len(images), 8))


class Model:
    """Sample i is training image i, `noisy` levels away; without averaged weights it is black."""

    device = "cpu"
    conditional = False
    progress = 1.0
    samples_seen = 640
    spec = Data.spec

    def __init__(self, noisy):
        self.noisy = noisy
        self.live = True

    @contextlib.contextmanager
    def averaged(self):
        self.live = False
        yield
        self.live = True

    def sample(self, n, *, condition=None, noise):
        if self.live:
            return torch.zeros(n, 1, SIDE, SIDE)
        images = noise_images(30, 1)[noise.start : noise.start + n].float()
        return images + self.noisy * torch.where(images < 128, 1.0, -1.0)


def make_trainer(folder, is_global_zero=True):
    return types.SimpleNamespace(
        datamodule=Data(), default_root_dir=str(folder), is_global_zero=is_global_zero, loggers=[PictureLogger()]
    )


class PictureLogger:
    def __init__(self):
        self.pictures = []

    def log_picture(self, key, picture, step):
        self.pictures.append((key, picture, step))


def callback(**options):
    return NearestNeighbors(**{"num_samples": 10, "neighbors": 3, "rows": 2, **options})


@pytest.mark.parametrize("noisy", [0, 4])
def test_samples_of_training_images_are_found_out(tmp_path, noisy):
    made, trainer = callback(), make_trainer(tmp_path)
    made.on_train_end(trainer, Model(noisy))
    told = made.summary()
    assert told["nearest_distance"] == noisy
    held_out, train_images = noise_images(5, 2), noise_images(30, 1)
    expected = nearest(held_out, [Batch(train_images, None, 0)], 1)[0].median()
    assert told["nearest_distance_real"] == pytest.approx(float(expected), abs=1e-9)
    protocol = told["protocol"]["nearest_distance"]
    assert (protocol["n_fake"], protocol["n_real"], protocol["n_train"]) == (10, 5, 30)
    ((key, picture, step),) = trainer.loggers[0].pictures
    assert (key, step) == ("neighbours", 640)
    assert np.array_equal(picture, np.asarray(Image.open(tmp_path / "samples" / "neighbours.png")))


def at(page, image):
    """Where an image is on a page, (top, left) of each place."""
    windows = np.lib.stride_tricks.sliding_window_view(page, (SIDE, SIDE))
    corner = (windows[..., :2, :2] == image[:2, :2]).all((2, 3))
    return [(int(y), int(x)) for y, x in np.argwhere(corner) if (windows[y, x] == image).all()]


def test_each_sample_stands_beside_its_nearest_training_images():
    made, data = callback(num_samples=3, rows=1), Data()
    model = Model(0)
    with model.averaged():
        page = np.asarray(made.compare(model, data)).astype(int)[..., 0]
    train_images = data.splits["train"].images
    _, places = nearest(train_images[:1], data.real_batches("train"), 3)
    assert places[0, 0] == 0
    (top, left), (_, beside), *_ = at(page, train_images[0, 0].numpy())
    assert beside > left + SIDE
    for i, place in enumerate(places[0, 1:].tolist()):
        assert (top, beside + (i + 1) * (SIDE + 2)) in at(page, train_images[place, 0].numpy())
    shuffled = Noise(0).stream("held out").bits(5, 1)[:, 0].argsort()
    assert at(page, data.splits["val"].images[shuffled[0], 0].numpy())


def test_features_of_an_extractor_go_beside():
    made, model, data = callback(num_samples=1, rows=1), Model(0), Data()
    sample = data.splits["train"].images[0, 0].numpy()
    with model.averaged():
        plain, both = (made.compare(model, data, network) for network in (None, MeanColour()))
    by_pixels, with_features = (at(np.asarray(page).astype(int)[..., 0], sample) for page in (plain, both))
    assert set(by_pixels) < set(with_features)
    assert max(left for _, left in with_features) > max(left for _, left in by_pixels) + 3 * SIDE


def test_only_the_first_process_does_it_and_only_at_the_end(tmp_path):
    made, model = callback(), Model(0)
    made.on_train_end(make_trainer(tmp_path, is_global_zero=False), model)
    model.progress = 0.9  # paused
    made.on_train_end(make_trainer(tmp_path), model)
    assert made.summary() == {}
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_compared_does_not_fail_its_run(tmp_path, caplog):
    model = Model(0)

    def refuse(*arguments, **options):
        raise InputError("it draws nothing")

    model.sample = refuse
    made = callback()
    made.on_train_end(make_trainer(tmp_path), model)
    assert made.summary() == {}
    assert "it draws nothing" in caplog.text


def test_data_without_splits_do_not_fail_the_run(tmp_path, caplog):
    trainer = make_trainer(tmp_path)
    trainer.datamodule = object()
    made = callback()
    made.on_train_end(trainer, Model(0))
    assert made.summary() == {}
    assert "no split(name)" in caplog.text


@pytest.mark.parametrize("option", ["num_samples", "neighbors", "rows"])
def test_options_out_of_range(option):
    with pytest.raises(InputError, match=f"{option}=0"):
        callback(**{option: 0})


def test_an_unknown_extractor_shows_before_training():
    with pytest.raises(InputError, match="no extractor"):
        callback(extractor="mnist").setup(None, None, "fit")


NODE = "{_target_: lit_aigc.callbacks.neighbors.NearestNeighbors, num_samples: 20, neighbors: 2}"


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_at_the_end_of_a_training(tiny, tmp_path, devices):
    arguments = [a for a in tiny if not a.startswith(("callbacks.neighbors", "trainer.devices"))]
    arguments += [f"callbacks.neighbors={NODE}", f"trainer.devices={devices}", f"run_dir={tmp_path / 'run'}"]
    if devices > 1:
        command = [sys.executable, "-m", "lit_aigc.train", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    else:
        summary = train(load("train", arguments)).summary
    assert 20 < summary["nearest_distance_real"] < 80
    assert summary["nearest_distance"] > 0
    assert summary["protocol"]["nearest_distance"]["n_train"] == 4000
    assert (tmp_path / "run" / "samples" / "neighbours.png").exists()
