"""A DataModule under a plain Lightning Trainer: epochs, resuming within one, and how many batches there are."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from lit_aigc.data.images import ImageData
from lit_aigc.data.sources import Mnist5k

BATCH = 500
EPOCH = 4000 // BATCH  # batches


class Plain(L.LightningModule):
    """A module that knows nothing of this package; it keeps where its batches start."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.starts: list[int] = []
        self.validated = 0

    def training_step(self, batch, number) -> Tensor:
        assert batch.images.dtype == torch.float32
        self.starts.append(batch.start)
        return self.weight.square().sum()

    def validation_step(self, batch, number) -> None:
        self.validated += len(batch.images)

    def predict_step(self, batch, number) -> int:
        return len(batch.images)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class StopAfter(Callback):
    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_start(self, trainer, module, *args) -> None:
        if len(module.starts) == self.batches:
            raise RuntimeError("stopped")


@pytest.fixture
def data() -> ImageData:
    return ImageData(Mnist5k(), batch_size=BATCH)


def trainer(folder: Path, *callbacks: Callback, **options) -> L.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=folder, callbacks=list(callbacks), **quiet, **options)


def test_loaders_are_torchs_own(data) -> None:
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert isinstance(loader, DataLoader)
        assert next(iter(loader)).images.dtype == torch.uint8


@pytest.mark.parametrize("limit", [{"max_epochs": 2}, {"max_steps": 2 * EPOCH}])
def test_a_plain_trainer_counts_epochs_and_validates_after_each(data, tmp_path, limit) -> None:
    module = Plain()
    trainer(tmp_path, num_sanity_val_steps=0, enable_checkpointing=False, **limit).fit(module, data)
    assert module.starts == list(range(0, 2 * EPOCH * BATCH, BATCH))
    assert module.validated == 2 * len(data.split("val"))


def test_a_plain_trainer_validates_and_predicts(data, tmp_path) -> None:
    module = Plain()
    trainer(tmp_path, enable_checkpointing=False).validate(module, data, verbose=False)
    assert module.validated == len(data.split("val"))
    assert sum(trainer(tmp_path, enable_checkpointing=False).predict(module, data)) == len(data.split("test"))


@pytest.mark.parametrize("done", [3, EPOCH, EPOCH + 3])
def test_a_plain_trainer_resumes_where_it_stopped(tmp_path, done) -> None:
    def saving() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)

    module = Plain()
    stopped = trainer(tmp_path, saving(), StopAfter(done), max_epochs=3)
    with pytest.raises(RuntimeError, match="stopped"):
        stopped.fit(module, ImageData(Mnist5k(), batch_size=BATCH))
    assert len(module.starts) == done
    resumed = Plain()
    trainer(tmp_path, max_epochs=3, enable_checkpointing=False).fit(
        resumed, ImageData(Mnist5k(), batch_size=BATCH), ckpt_path=tmp_path / "last.ckpt"
    )
    assert resumed.starts == list(range(done * BATCH, 3 * EPOCH * BATCH, BATCH))
