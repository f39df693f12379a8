"""The monitor is checked against what will be measured, before training."""

from __future__ import annotations

from types import SimpleNamespace

import lightning as L
import pytest

from lit_aigc.callbacks.checkpoint import CheckpointWriter
from lit_aigc.callbacks.clock import Budget, Clock, PauseAfter
from lit_aigc.callbacks.curves import Curves
from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.modules.classifier import ImageClassifier
from lit_aigc.train.run import train
from tests.reliability.runs import MODELS, arguments

METRICS = (
    "callbacks.generative_metrics={_target_: lit_aigc.callbacks.generative_metrics.GenerativeMetrics,"
    " extractor: mnist_classifier, reference: shipped, num_samples: 64}"
)


def test_a_misspelt_monitor_stops_before_the_first_batch(command, tiny, tmp_path):
    outcome = command("train", *tiny, METRICS, "monitor=fid", f"run_dir={tmp_path}/run")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "monitor=fid (null for no best.ckpt) is not measured, did you mean 'fid_mnist_classifier'?" in outcome.err
    assert not (tmp_path / "run").exists()


def test_a_monitor_whose_metrics_are_off_takes_one_plain_line(command, tiny, tmp_path, caplog):
    """The default one, which follows the metrics, none."""
    default = [argument for argument in tiny if argument != "monitor=null"]
    said = []
    for number, asked in enumerate((default, [*tiny, "monitor=fid_mnist_classifier"])):
        outcome = command("train", *asked, "budget.batches=1", f"run_dir={tmp_path}/{number}")
        assert (outcome.code, outcome.err) == (0, "")
        assert not (tmp_path / f"{number}/checkpoints/best.ckpt").exists()
        said.append([r.getMessage() for r in caplog.records if r.name == "lit_aigc.callbacks.checkpoint"])
    line = "monitor=fid_mnist_classifier is not measured (nothing is): no best.ckpt is written."
    assert said == [[], [line]]


class Own(L.Callback):
    """May log anything."""


class Model(SimpleNamespace):
    """Of ours, by its module."""

    __module__ = "lit_aigc.modules.made_up"
    validation_keys = ImageClassifier.validation_keys


class Measuring(Curves):
    __module__ = "lit_aigc.callbacks.made_up"
    validation_keys = ("fid_x", "kid_x")


@pytest.mark.parametrize(
    ("monitor", "callbacks", "batches", "says"),
    [
        ("val_loss", [], 0, ""),
        ("val_los", [], 0, "did you mean 'val_loss'"),
        ("kid_x", [Measuring()], 0, ""),
        ("fid_y", [Measuring()], 0, "did you mean 'fid_x'"),
        ("nothing", [Measuring()], 0, "known: fid_x, kid_x, val_accuracy, val_loss"),
        ("nothing", [Measuring(), Own()], 0, ""),
        ("nothing", [], 0, "warns"),
        ("nothing", [Measuring()], 7, "warns"),
        (None, [Measuring()], 0, ""),
    ],
)
def test_what_is_checked(caplog, tmp_path, monitor, callbacks, batches, says):
    writer = CheckpointWriter(tmp_path, Clock(Budget(batches=1), PauseAfter()), monitor)
    trainer = SimpleNamespace(callbacks=callbacks, is_global_zero=True)
    if says in ("", "warns"):
        writer.on_fit_start(trainer, Model(batches=batches))
    else:
        with pytest.raises(InputError, match=says):
            writer.on_fit_start(trainer, Model(batches=batches))
    assert ("no best.ckpt" in caplog.text) == (says == "warns")


@pytest.mark.parametrize("family", MODELS)
def test_each_family_names_what_it_logs(family, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = [*arguments(family, tmp_path), "budget.batches=1", "validations=1", f"run_dir={tmp_path}/run"]
    finished = train(load("train", [*options, METRICS] if family == "vae" else options))
    parts = (finished.module, *finished.trainer.callbacks)
    expected = {key for part in parts for key in getattr(part, "validation_keys", ())}
    assert {key for key in finished.trainer.callback_metrics if "_real_" not in key} == expected
    assert ("fid_mnist_classifier" in expected) == (family == "vae")
