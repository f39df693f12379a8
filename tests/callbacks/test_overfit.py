"""Training on one batch over and over."""

from __future__ import annotations

import types

from lit_aigc.callbacks.overfit import OverfitOneBatch
from lit_aigc.config.compose import compose, load
from lit_aigc.train.run import train


class Data:
    start_batch = 7

    def train_dataloader(self):
        return iter(range(self.start_batch, 100))


def test_the_first_batch_is_repeated_also_where_a_run_resumes():
    trainer = types.SimpleNamespace(datamodule=Data())
    OverfitOneBatch().setup(trainer, None, "fit")
    batches = iter(trainer.datamodule.train_dataloader())
    assert [next(batches) for _ in range(5)] == [0] * 5


def test_it_is_added_to_the_other_callbacks(tiny, tmp_path):
    config = load("train", [*tiny, "debug=overfit", "log_every=1", f"run_dir={tmp_path / 'run'}"])
    assert {"overfit", "curves"} <= set(config["callbacks"])
    run = train(config)
    assert run.exit_code == 0
    starts = [batch.start for batch, _ in zip(run.datamodule.train_dataloader(), range(3), strict=False)]
    assert starts == [0, 0, 0]


def test_the_limits_of_debugging_win_over_the_experiments():
    config = compose("train", ["experiment=dcgan_cifar10", "debug=limit"])
    assert config["budget"] == {"minutes": None, "samples": None, "batches": 4}
    assert (config["monitor"], config["validations"]) == (None, 1)
