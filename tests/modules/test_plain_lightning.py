"""Modules under a plain Lightning Trainer, without any callback of lit_aigc, and from its checkpoints."""

from __future__ import annotations

import csv
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader

from lit_aigc.build import build, resolve
from lit_aigc.errors import InputError
from lit_aigc.modules.base import GenerativeModule
from lit_aigc.modules.gan import GAN
from lit_aigc.modules.language_model import LanguageModel
from lit_aigc.modules.vae import VAE
from lit_aigc.noise import Noise
from lit_aigc.spec import Batch, Condition, DataSpec, TextBatch

IMAGES = DataSpec("image", (1, 8, 8), num_classes=2, class_names=("a", "b"), name="made_up")
TEXT = DataSpec("text", (6,), vocab_size=8, name="made_up")
BATCHES = 5


def node(target, **options):
    return {"_target_": f"lit_aigc.{target}", **options}


RECIPE = {"schedule": "linear", "ema_decay": 0.9}
MODELS = {
    GAN: node(
        "modules.gan.GAN",
        conditional=True,
        generator=node("networks.mlp.Generator", latent_dim=3, hidden=[8]),
        discriminator=node("networks.mlp.Discriminator", hidden=[8]),
        generator_optimizer={"lr": 0.01},
        discriminator_optimizer={"lr": 0.01},
        recipe=RECIPE,
    ),
    VAE: node(
        "modules.vae.VAE",
        conditional=False,
        network=node(
            "networks.latent.SingleLevel",
            encoder=node("networks.mlp.Encoder", latent_dim=3, hidden=[8]),
            decoder=node(
                "networks.mlp.Decoder", latent_dim=3, hidden=[8], likelihood=node("networks.likelihood.Bernoulli")
            ),
        ),
        optimizer={"lr": 0.01},
        recipe=RECIPE,
    ),
    LanguageModel: node(
        "modules.language_model.LanguageModel",
        network=node("networks.transformer.Transformer", width=8, layers=1, heads=2, dropout=0.1),
        optimizer={"lr": 0.01},
        recipe=RECIPE,
    ),
}


def make(kind, **options):
    spec = TEXT if kind is LanguageModel else IMAGES
    torch.manual_seed(0)
    module = build(resolve(MODELS[kind] | options, spec), spec)
    module.begin(seed=3, log_every=2)
    return module


class Data(L.LightningDataModule):
    """Batches that are the same in every epoch."""

    def __init__(self, text: bool = False) -> None:
        super().__init__()
        self.text = text

    def batches(self, seed: int, n: int) -> DataLoader:
        return DataLoader([self._batch(Noise(seed, 4 * k), 4 * k) for k in range(n)], batch_size=None)

    def _batch(self, noise: Noise, start: int) -> Batch | TextBatch:
        if self.text:
            return TextBatch(noise.bits(4, 7) % 8, None, start)
        images = noise.uniform(4, 64).view(4, 1, 8, 8) * 2 - 1
        return Batch(images, torch.tensor([0, 1, 1, 0]), start)

    def train_dataloader(self) -> DataLoader:
        return self.batches(1, BATCHES)

    def val_dataloader(self) -> DataLoader:
        return self.batches(2, 2)

    predict_dataloader = val_dataloader


def trainer(folder, **options):
    defaults = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(default_root_dir=str(folder), **(defaults | {"enable_checkpointing": False} | options))


class Rates(L.Callback):
    """Keeps the learning rate and the progress after each batch."""

    def __init__(self) -> None:
        self.seen = []

    def on_train_batch_end(self, trainer, module, *args) -> None:
        self.seen.append((trainer.optimizers[0].param_groups[0]["lr"], module.progress))


def assert_same_weights(one, other):
    for a, b in ((one.state_dict(), other.state_dict()), (one.ema.state_dict(), other.ema.state_dict())):
        a, b = a.pop("shadow", a), b.pop("shadow", b)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("kind", "limits", "batches"),
    [
        (VAE, {"max_steps": 10}, 10),
        (VAE, {"max_epochs": 2}, 10),
        (VAE, {"max_epochs": 2, "limit_train_batches": 4}, 8),
        (GAN, {"max_steps": 10}, 5),  # the discriminator's steps and the generator's
        (GAN, {"max_epochs": 1}, 5),
    ],
)
def test_the_schedule_follows_the_limits_of_the_trainer(kind, limits, batches, tmp_path):
    module, rates = make(kind), Rates()
    trainer(tmp_path, callbacks=[rates], **limits).fit(module, datamodule=Data())
    assert module.batches == batches
    assert [progress for _, progress in rates.seen] == pytest.approx([(k + 1) / batches for k in range(batches)])
    assert [rate for rate, _ in rates.seen] == pytest.approx([0.01 * (1 - k / batches) for k in range(batches)])
    assert module.train_seconds > 0


def test_half_precision_steps_count_for_max_steps(tmp_path):
    module = make(VAE)
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=16.0))
    trainer(tmp_path, max_steps=3, plugins=[plugin]).fit(module, datamodule=Data())
    assert (module.batches, module.progress) == (3, 1.0)


def test_a_schedule_needs_a_limit_that_is_known(tmp_path, caplog):
    batches = Data().train_dataloader().dataset
    with pytest.raises(InputError, match=r"schedule=linear .* set max_steps"):
        trainer(tmp_path, max_epochs=1).fit(make(VAE), iter(batches))
    constant = make(VAE, recipe={"schedule": "constant"})
    trainer(tmp_path, max_epochs=1).fit(constant, iter(batches))
    assert (constant.batches, constant.progress) == (5, 0.0)
    assert "progress stays 0" in caplog.text


class Resumable(DataLoader):
    """Says how far it is, as Lightning asks of a loader for a resume within an epoch."""

    done = 0

    def __iter__(self):
        for number in range(self.done % len(self.dataset), len(self.dataset)):
            self.done = number + 1
            yield self.dataset[number]

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.done = state["done"]


class SaveAfter(L.Callback):
    def __init__(self, batches, path) -> None:
        self.batches, self.path = batches, path

    def on_train_batch_end(self, trainer, module, *args) -> None:
        if module.batches == self.batches:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("after", [BATCHES, BATCHES + 2])
def test_a_resumed_fit_continues_in_its_epoch_to_the_same_weights(kind, after, tmp_path):
    data = Data(text=kind is LanguageModel)
    batches = data.train_dataloader().dataset
    data.train_dataloader = lambda: Resumable(batches, batch_size=None)
    whole, save = make(kind), SaveAfter(after, tmp_path / "part.ckpt")
    trainer(tmp_path, max_epochs=3, callbacks=[save]).fit(whole, datamodule=data)
    resumed = make(kind)
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.add_(1.0)
    second = trainer(tmp_path, max_epochs=3)
    second.fit(resumed, datamodule=data, ckpt_path=tmp_path / "part.ckpt", weights_only=True)
    assert whole.batches == 3 * BATCHES
    assert (resumed.batches, second.current_epoch, resumed.progress) == (3 * BATCHES, 3, 1.0)
    assert_same_weights(whole, resumed)
    assert whole.recent == resumed.recent
    assert whole.results == resumed.results


def test_lightnings_checkpoints_early_stopping_and_loggers_see_the_validation(tmp_path):
    module = make(VAE)
    best = ModelCheckpoint(tmp_path, "{elbo:.4f}", monitor="elbo", mode="max")
    stop = EarlyStopping("kl", mode="min", patience=2, stopping_threshold=1e9)  # met by the first validation
    logger = CSVLogger(str(tmp_path), name="log")
    run = trainer(tmp_path, callbacks=[best, stop], logger=logger, enable_checkpointing=True, max_epochs=3)
    run.fit(module, datamodule=Data())
    assert (module.batches, run.current_epoch) == (BATCHES, 1)
    assert float(best.best_model_score) == pytest.approx(module.results["elbo"])
    rows = list(csv.DictReader(Path(logger.log_dir, "metrics.csv").read_text().splitlines()))
    assert [row["step"] for row in rows if row["elbo"]] == [str(4 * BATCHES)]  # samples; no sanity check among them
    assert [row["step"] for row in rows if row["train/loss"]] == ["8", "16", "20"]  # the last window is shorter
    found = trainer(tmp_path).validate(module, datamodule=Data(), verbose=False)
    assert found == [pytest.approx(module.results)]


@pytest.mark.parametrize("kind", MODELS)
def test_predict_draws_a_sample_per_item(kind, tmp_path):
    module = make(kind)
    pages = trainer(tmp_path).predict(module, datamodule=Data(text=kind is LanguageModel))
    assert len(pages) == 2
    if kind is LanguageModel:
        wanted = module.sample(4, noise=Noise(3, 4))
        assert torch.equal(pages[1].ids, wanted.ids)
        return
    labels = torch.tensor([0, 1, 1, 0]) if kind is GAN else None
    assert torch.equal(pages[1], module.sample(4, condition=Condition(labels), noise=Noise(3, 4)))


@pytest.mark.parametrize("kind", MODELS)
def test_load_from_checkpoint_gives_the_module_back(kind, tmp_path):
    module = make(kind)
    run = trainer(tmp_path, max_epochs=2)
    run.fit(module, datamodule=Data(text=kind is LanguageModel))
    run.save_checkpoint(tmp_path / "last.ckpt")
    for loader in (kind, GenerativeModule):
        loaded = loader.load_from_checkpoint(tmp_path / "last.ckpt")
        assert type(loaded) is kind
        assert_same_weights(module, loaded)
        assert (loaded.batches, loaded.spec, loaded.config) == (module.batches, module.spec, module.config)
    options = {"max_tokens": 5} if kind is LanguageModel else {}
    for one, other in ((module, loaded), (module.averaged(), loaded.averaged())):
        with one if one is not module else torch.no_grad(), other if other is not loaded else torch.no_grad():
            wanted, drawn = (each.sample(3, noise=Noise(0), **options) for each in (module, loaded))
        assert torch.equal(*((wanted.ids, drawn.ids) if kind is LanguageModel else (wanted, drawn)))


def checkpoint_of(module, path):
    run = trainer(path.parent, max_epochs=1)
    run.fit(module, datamodule=Data())
    run.save_checkpoint(path)
    return path


def test_a_checkpoint_of_another_class_or_of_no_trusted_one_is_refused(tmp_path):
    path = checkpoint_of(make(GAN), tmp_path / "gan.ckpt")
    with pytest.raises(InputError, match=r"checkpoint of GAN, not of VAE: use lit_aigc\.modules\.gan\.GAN"):
        VAE.load_from_checkpoint(path)
    content = torch.load(path, weights_only=True)
    content["lit_aigc"]["model"]["generator"]["_target_"] = "torch.nn.Linear"
    torch.save(content, path)
    with pytest.raises(InputError, match=r"torch\.nn\.Linear is refused"):
        GAN.load_from_checkpoint(path)
    content["lit_aigc"]["spec"] = {"shape": "of no image"}
    torch.save(content, path)
    with pytest.raises(InputError, match=r"gan\.ckpt can't be built from its config"):
        GAN.load_from_checkpoint(path)


def test_a_module_that_was_not_built_from_a_config_is_given_its_arguments(tmp_path):
    parts = {"spec": IMAGES, **{name: getattr(make(GAN), name) for name in ("generator", "discriminator")}}
    module = GAN(conditional=True, **parts)
    path = checkpoint_of(module, tmp_path / "gan.ckpt")
    with pytest.raises(InputError, match="holds no config"):
        GAN.load_from_checkpoint(path)
    other = {"spec": IMAGES, **{name: getattr(make(GAN), name) for name in ("generator", "discriminator")}}
    assert_same_weights(module, GAN.load_from_checkpoint(path, conditional=True, **other))


class WithScheduler(VAE):
    """As a user may write it."""

    def configure_optimizers(self):
        (optimizer,) = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def test_a_scheduler_is_refused_rather_than_ignored():
    with pytest.raises(InputError, match=r"never be stepped.*model.recipe.schedule"):
        WithScheduler(make(VAE).network, IMAGES)
