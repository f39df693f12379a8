"""What the base class does for every family: half precision, averages, checkpoints under a plain Trainer."""

from __future__ import annotations

import types

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from lit_aigc.errors import InputError
from lit_aigc.modules.base import GenerativeModule, TrainingDiverged
from lit_aigc.modules.gan import GAN, Regularization
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, DataSpec

SPEC = DataSpec("image", (1, 2, 2), name="made_up")


class Mean(GenerativeModule):
    """Learns the mean of its images; from batch number `broken` on its loss is not a number."""

    def __init__(self, broken: int = 10**9) -> None:
        super().__init__(SPEC)
        self.network = nn.Linear(4, 4)
        self.broken = broken
        self.prepare(self.network)

    def configure_optimizers(self):
        return torch.optim.SGD(self.network.parameters(), lr=1e-3)

    def train_batch(self, batch):
        return self.update(self.optimizers(), batch, self._loss)

    def _loss(self, batch):
        images = batch.images.flatten(1)
        loss = (self.network(images) - images).square().mean()
        return loss * (float("nan") if self.batches >= self.broken else 1.0), {"loss": loss}


def fit(module, *, ckpt_path=None, batches=8, **options):
    data = [Batch(Noise(k).normal(4, 4).view(4, 1, 2, 2), None, 4 * k) for k in range(batches)]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = L.Trainer(**quiet, **{"enable_checkpointing": False, "max_epochs": 1} | options)
    trainer.fit(module, DataLoader(data, batch_size=None), ckpt_path=ckpt_path, weights_only=True)
    return trainer


def half_precision(growth_interval):
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", growth_interval=growth_interval))


def test_an_update_that_half_precision_skips_counts_for_nothing():
    """The scale doubles at each update until a gradient overflows, which is how the scaler finds its range."""
    module = Mean()
    module.log_every = 1
    fit(module, batches=30, plugins=[half_precision(1)])
    assert module.batches == 30
    assert 0 < module.skipped_updates < 20
    assert module.generator_updates == module.ema.updates == 30 - module.skipped_updates
    assert 0 < module.recent["skipped_updates"] <= module.skipped_updates
    assert all(torch.tensor(list(module.recent.values())).isfinite())
    assert module.network.weight.isfinite().all()


def test_half_precision_gives_up_when_no_scale_helps():
    module = Mean(broken=3)
    with pytest.raises(TrainingDiverged, match=r"not finite at any scale.*last good checkpoint is kept"):
        fit(module, batches=40, plugins=[half_precision(2000)])
    assert module.skipped_updates == 17  # from a scale of 2 ** 16 to one below 1
    assert module.generator_updates + module.skipped_updates == module.batches + 1
    assert module.generator_updates <= 3


def test_a_process_raises_when_another_is_broken():
    module = Mean()

    def reduce(tensor, reduce_op):
        assert reduce_op == "sum"
        return tensor + torch.tensor([0.0, float("inf")])  # the other one's loss is fine, and its weights are not

    module._window.add({"loss": torch.tensor(1.0)})
    module._trainer = types.SimpleNamespace(strategy=types.SimpleNamespace(reduce=reduce), precision_plugin=None)
    with pytest.raises(TrainingDiverged, match="diverged: the norm of the weights is inf within"):
        module.raise_if_broken()


class Copies(TorchDispatchMode):
    """Counts the numbers that operations write."""

    def __init__(self):
        super().__init__()
        self.written = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        if function.overloadpacket in (torch.ops.aten.clone, torch.ops.aten.copy_, torch.ops.aten._to_copy):
            self.written += result.numel()
        return result


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_averaged_weights_cost_no_copy_and_nest(mode):
    module = Mean()
    weight = module.network.weight
    module.ema.update()
    live, averaged = weight.detach().clone() + 1, weight.detach().clone()
    with torch.no_grad():
        weight.add_(1)
    with mode(), Copies() as copies, pytest.raises(KeyError), module.averaged():
        with module.averaged():
            assert torch.equal(weight, averaged)
        assert torch.equal(weight, averaged)
        assert module.network.weight is weight
        raise KeyError  # whatever happens inside: the weights are the module's own again
    assert copies.written == 0
    assert torch.equal(weight, live)
    module.ema.update()  # one move with the decay (1 + 1) / (10 + 1), from the average that was applied
    with module.averaged():
        torch.testing.assert_close(weight, averaged + 9 / 11)


def test_a_plain_trainer_goes_on_in_the_epoch_where_it_was(tmp_path):
    first = Mean()
    fit(first, batches=4, max_epochs=2).save_checkpoint(tmp_path / "two.ckpt")
    assert first.batches == 8
    second = Mean()
    trainer = fit(second, batches=4, max_epochs=3, ckpt_path=tmp_path / "two.ckpt")
    assert (second.batches, trainer.current_epoch) == (12, 3)
    checkpoint = torch.load(tmp_path / "two.ckpt", weights_only=True)
    del checkpoint["loops"]  # as they were written before
    torch.save(checkpoint, tmp_path / "old.ckpt")
    third = Mean()
    fit(third, batches=4, max_epochs=3, ckpt_path=tmp_path / "old.ckpt")
    assert third.batches == 8 + 12


class Painter(nn.Module):
    latent_dim = 2

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 4)

    def forward(self, z, y):
        return self.layer(z).view(-1, 1, 2, 2)


@pytest.mark.parametrize("name", ["r1", "r2", "gradient_penalty"])
def test_no_penalty_goes_through_a_synchronized_batchnorm(name, caplog):
    """torch has no derivative for the backward of SyncBatchNorm."""

    def make(weight, synchronized=True, processes=2):
        critic = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
        critic = nn.SyncBatchNorm.convert_sync_batchnorm(critic) if synchronized else critic
        module = GAN(Painter(), critic, SPEC, regularization=Regularization(**{name: weight}))
        module._trainer = types.SimpleNamespace(world_size=processes, is_global_zero=True)
        return module

    with pytest.raises(
        InputError, match=r"synchronized.*normalization=none \(or spectral\), or trainer.sync_batchnorm"
    ):
        make(1.0).on_fit_start()
    for module in (make(0.0), make(1.0, synchronized=False), make(1.0, processes=1)):
        module.on_fit_start()
    for module, advice in (
        (make(0.0), "add model.discriminator.normalization=none and model.regularization.r1=1, or"),
        (make(0.0, synchronized=False), "add model.regularization.r1=1, or"),
    ):
        caplog.clear()
        for _ in range(10):
            module.check_health({"d_spread": 1.0, "d_loss": 1.0, "diversity": 0.0})
        assert advice in caplog.text
