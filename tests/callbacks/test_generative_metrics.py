from __future__ import annotations

import json

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from lit_aigc.callbacks.generative_metrics import GenerativeMetrics
from lit_aigc.errors import InputError
from lit_aigc.metrics.table import METRICS, by_default
from lit_aigc.spec import Batch
from tests.callbacks import gloo_process
from tests.metrics.toy import MeanColour, Toy, ToyData
from tests.processes import end, start


class FakeTrainer:
    sanity_checking = False
    global_rank = 0
    world_size = 1

    def __init__(self) -> None:
        self.datamodule = ToyData()


def callback(**options: object) -> GenerativeMetrics:
    return GenerativeMetrics(**{"extractor": MeanColour(), "reference": "train", "num_samples": 150, **options})


def test_some_processes_and_one_give_the_same_numbers(tmp_path):
    """PITFALLS 4 and 5: 11 batches of real images, 2 blocks of samples, so the third process has none of these."""
    outs = [tmp_path / f"{rank}.json" for rank in range(3)]
    running = [start(gloo_process.main, rank, 3, tmp_path / "store", out) for rank, out in enumerate(outs)]
    made, module = callback(num_samples=100, metrics=list(METRICS)), Toy(conditional=True)
    made.setup(FakeTrainer(), module, "fit")
    values, protocol = made.measure(FakeTrainer(), module)
    names = {*by_default(), "precision", "recall", "class_fid"}
    by_class = {f"class_fid_mean_colour_{label}" for label in (0, 1)}
    assert set(values) == {f"{name}_mean_colour" for name in names} | by_class
    assert protocol["class_fid"] == {"n_real": [51, 50], "n_fake": [50, 50]}
    assert protocol["n_real"] == 101
    assert protocol["n_fake"] == 100
    assert end(*running) == [0] * 3
    real = gloo_process.real_figures(0, 1)
    assert 0.5 < real["precision_mean_colour"] <= 1
    for out in outs:
        others, other_protocol, other_real = json.loads(out.read_text())
        assert others == pytest.approx(values, rel=1e-9, abs=1e-12)
        assert other_protocol == protocol
        assert other_real == pytest.approx(real, rel=1e-6, abs=1e-12)


def test_class_fid_is_refused_with_statistics_that_have_no_classes():
    made = callback(metrics=["class_fid"], reference="shipped")
    with pytest.raises(InputError, match="set reference=train"):
        made.setup(FakeTrainer(), Toy(conditional=True), "fit")
    with pytest.raises(InputError, match="samples asked for by class"):
        callback(metrics=["class_fid"]).setup(FakeTrainer(), Toy(), "fit")


def test_averaged_weights_are_measured_and_everything_is_left_as_it_was():
    """PITFALLS 2: raw 0, average 1."""
    module = Toy()
    module.brightness.data.fill_(1.0)
    module.ema.update()  # the average starts at 1
    module.brightness.data.fill_(0.0)
    module.train()
    module.dropout.eval()
    made, trainer = callback(metrics=["is"]), FakeTrainer()
    made.setup(trainer, module, "fit")
    state = torch.random.get_rng_state()
    seen = []
    made._network.register_forward_hook(lambda network, inputs, outputs: seen.append(inputs[0].float().mean()))
    _, protocol = made.measure(trainer, module)
    assert min(seen) > 220  # of an average of 1; live weights would give 127
    assert protocol["weights"] == "averaged"
    assert module.brightness.item() == 0.0
    assert module.training
    assert not module.dropout.training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_extractor_is_no_part_of_the_model():
    """PITFALLS 17."""
    module, made = Toy(), callback()
    before = set(module.state_dict())
    made.setup(FakeTrainer(), module, "fit")
    made.measure(FakeTrainer(), module)
    assert set(module.state_dict()) == before


def test_real_set_is_read_once():
    module, made, trainer = Toy(), callback(), FakeTrainer()
    reads = []
    trainer.datamodule.real_batches = lambda split, **ranks: (
        reads.append(split) or ToyData().real_batches(split, **ranks)
    )
    made.setup(trainer, module, "fit")
    first, second = made.measure(trainer, module), made.measure(trainer, module)
    assert first == second
    assert first[1]["n_real"] == 101
    assert reads == ["train"]


class Trace(L.Callback):
    """What a checkpoint callback would see at each validation."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seen.append(float(trainer.callback_metrics["fid_mean_colour"]))


class Data(L.LightningDataModule):
    """Two training batches an epoch, one validation batch."""

    real_batches = ToyData.real_batches

    def loader(self, n: int) -> DataLoader:
        return DataLoader([Batch(torch.zeros(4, 1, 8, 8), torch.zeros(4).long(), 0)] * n, batch_size=None)

    def train_dataloader(self) -> DataLoader:
        return self.loader(2)

    def val_dataloader(self) -> DataLoader:
        return self.loader(1)


def fit(made: GenerativeMetrics, trace: Trace, tmp_path, **options: object) -> L.Trainer:
    module = Toy()
    module.ema = None
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        callbacks=[made, trace],
        **options,
    )
    trainer.fit(module, datamodule=Data())
    return trainer


def test_monitor_has_a_value_at_every_validation(tmp_path):
    """PITFALLS 11: measured at the first, third and fifth of five; in between the last value is there."""
    made, trace = callback(every=2), Trace()
    trainer = fit(made, trace, tmp_path, max_epochs=5)
    assert len(trace.seen) == 5
    assert trace.seen[0] == trace.seen[1] != trace.seen[2] == trace.seen[3] != trace.seen[4]
    assert made.summary()["fid_mean_colour"] == pytest.approx(float(trainer.callback_metrics["fid_mean_colour"]))
    assert made.summary()["protocol"]["mean_colour"]["sample_seed"] == 0


def test_state_goes_through_a_checkpoint(tmp_path):
    made = callback(every=2)
    trainer = fit(made, Trace(), tmp_path, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    state = torch.load(tmp_path / "a.ckpt", weights_only=True)["callbacks"][made.state_key]
    other = callback(every=2)
    other.load_state_dict(state)
    assert other.values == made.values
    assert other.protocol == made.protocol
    trace = Trace()
    fit(other, trace, tmp_path, max_epochs=1)  # the second validation, which isn't measured
    assert trace.seen == [pytest.approx(made.values["fid_mean_colour"])]


def test_names_keep_states_apart():
    assert callback().state_key != callback(seed=1).state_key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 1}, "num_samples=1: expected 2"),
        ({"every": 0}, "expected 1"),
        ({"reference": "trian"}, "did you mean 'train'"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        callback(**options)


def test_what_cannot_be_computed_is_refused_before_training():
    for options, message in (
        ({"extractor": "mnist_clasifier"}, "no extractor"),
        ({"reference": "shipped"}, "no reference statistics are shipped"),
        ({"metrics": ["accuracy"]}, "these have no classes"),
    ):
        with pytest.raises(InputError, match=message):
            callback(**options).setup(FakeTrainer(), Toy(), "fit")


def test_no_values_no_summary():
    assert callback().summary() == {}
