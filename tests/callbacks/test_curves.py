import types

import numpy as np
from PIL import Image

from lit_aigc.callbacks.curves import Curves, panels
from lit_aigc.loggers.csv import CsvLogger

CURVE = ([64, 128], [1.0, 2.0])


def test_panels_are_losses_other_training_values_and_metric_families():
    names = [
        "fid_inception",
        "train/d_loss",
        "train/g_loss",
        "train/d_accuracy",
        "fid_mnist_classifier",
        "is_inception",
        "train_seconds",
    ]
    sorted_curves = panels(dict.fromkeys(names, CURVE) | {"empty": ([], [])})
    assert {title: list(group) for title, group in sorted_curves.items()} == {
        "training losses": ["d_loss", "g_loss"],
        "fid": ["fid_inception", "fid_mnist_classifier"],
        "training: accuracy": ["d_accuracy"],
        "is": ["is_inception"],
    }
    assert next(iter(sorted_curves)) == "training losses"


def make_trainer(folder, logger, is_global_zero=True):
    return types.SimpleNamespace(default_root_dir=str(folder), is_global_zero=is_global_zero, loggers=[logger])


def test_the_callback_draws_at_the_end_and_after_an_error_and_logs_a_picture(tmp_path):
    logger = CsvLogger(str(tmp_path))
    logger.log_metrics({"train/d_loss": 0.5}, step=64)
    sent = []
    listener = types.SimpleNamespace(log_picture=lambda *args: sent.append(args))
    module = types.SimpleNamespace(samples_seen=64)
    Curves().on_exception(make_trainer(tmp_path, listener), module, RuntimeError())
    assert (tmp_path / "curves.png").exists()
    assert sent == []
    (tmp_path / "curves.png").unlink()
    Curves().on_fit_end(make_trainer(tmp_path, listener), module)
    ((key, picture, step),) = sent
    assert (key, step, picture.dtype, picture.shape[-1]) == ("curves", 64, np.uint8, 3)
    assert np.array_equal(picture, np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")))


def test_the_callback_does_nothing_without_numbers_or_on_other_ranks(tmp_path):
    module = types.SimpleNamespace(samples_seen=64)
    Curves().on_fit_end(make_trainer(tmp_path, None), module)
    CsvLogger(str(tmp_path)).log_metrics({"x": 1.0}, step=1)
    Curves().on_fit_end(make_trainer(tmp_path, None, is_global_zero=False), module)
    assert not (tmp_path / "curves.png").exists()
