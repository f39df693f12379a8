"""What the parts of the GAN's objective do to its weights, through real training runs."""

import csv
import logging
import shutil
import types

import pytest
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer

from lit_aigc.augmentation.images import AdaptiveAugment
from lit_aigc.build import build, resolve
from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.files import read_yaml, write_yaml
from lit_aigc.losses.gan import ADVERSARIAL_LOSSES
from lit_aigc.modules.adversarial import PATIENCE, Alarm, gan_statistics, logit_statistics, spread_within_classes
from lit_aigc.modules.checkpoint import read_checkpoint
from lit_aigc.noise import Noise
from lit_aigc.runs.bundle import load_bundle
from lit_aigc.spec import Batch, DataSpec
from lit_aigc.train.run import train

SPEC = DataSpec("image", (1, 28, 28), num_classes=3, class_names=("a", "b", "c"), name="made_up")
ALL_PENALTIES = {"r1": 0.1, "r2": 0.1, "gradient_penalty": 1.0, "feature_matching": 1.0, "clip_weights": 0.5}


def start(arguments, *more, **model):
    config = load("train", [*arguments, *more])
    config["model"] |= model
    return train(config)


def weights(run):
    return torch.cat([p.detach().flatten() for p in run.module.discriminator.parameters()])


@pytest.mark.parametrize("loss", ADVERSARIAL_LOSSES)
def test_every_loss_goes_with_all_regularisers_together(tiny, tmp_path, loss):
    run = start(tiny, f"run_dir={tmp_path}/run", loss=loss, regularization=ALL_PENALTIES)
    assert run.exit_code == 0
    assert weights(run).isfinite().all()
    assert weights(run).abs().max() <= 0.5
    row = list(csv.DictReader((tmp_path / "run/metrics.csv").open()))[-1]
    for name in ("r1", "r2", "gradient_penalty", "feature_matching", "d_grad_norm", "g_grad_norm", "diversity"):
        assert float(row[f"train/{name}"]) >= 0


@pytest.mark.parametrize("name", ["r1", "r2", "gradient_penalty"])
def test_a_penalty_holds_the_gradient_down(tiny, tmp_path, name):
    norms = {}
    for weight in (0.0, 100.0):
        run = start(
            tiny,
            f"run_dir={tmp_path}/{weight}",
            "budget.batches=40",
            "data.batch_size=32",
            regularization={name: weight},
            discriminator_optimizer={"lr": 2e-3},
            loss="wasserstein",
        )
        real = next(iter(run.datamodule.train_dataloader())).images[:16].float().div(127.5).sub(1)
        fake = run.module.sample(16, noise=Noise(0))
        x = {"r1": real, "r2": fake, "gradient_penalty": (real + fake) / 2}[name].requires_grad_()
        (gradient,) = torch.autograd.grad(run.module.discriminator(x, torch.arange(16) % 10).sum(), x)
        norms[weight] = gradient.flatten(1).norm(dim=1).mean().item()
    if name == "gradient_penalty":  # it pulls towards 1
        assert abs(norms[100.0] - 1) < 0.5 * abs(norms[0.0] - 1)
    else:
        assert norms[100.0] < 0.5 * norms[0.0]


def test_lazy_regularisation_weighs_as_much_as_it_is_rarer(tiny, tmp_path):
    """One batch with r1 every fourth batch is one batch of four times the weight."""
    sgd = {"name": "SGD", "lr": 0.1}
    lazy = start(
        tiny,
        f"run_dir={tmp_path}/lazy",
        "budget.batches=1",
        regularization={"r1": 0.5, "every": 4},
        discriminator_optimizer=sgd,
    )
    heavy = start(
        tiny,
        f"run_dir={tmp_path}/heavy",
        "budget.batches=1",
        regularization={"r1": 2.0},
        discriminator_optimizer=sgd,
    )
    torch.testing.assert_close(weights(lazy), weights(heavy), rtol=0, atol=0)


def test_feature_matching_moves_the_generator_only(tiny, tmp_path):
    plain = start(tiny, f"run_dir={tmp_path}/plain", "budget.batches=1")
    matched = start(tiny, f"run_dir={tmp_path}/matched", "budget.batches=1", regularization={"feature_matching": 10.0})
    assert torch.equal(weights(plain), weights(matched))
    generators = [next(run.module.generator.parameters()) for run in (plain, matched)]
    assert not torch.equal(*generators)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r1": -1.0}, "regularization.r1=-1.0"),
        ({"every": 0}, "regularization.every=0"),
        ({"clip_weights": 0.0}, "regularization.clip_weights=0.0"),
    ],
)
def test_wrong_regularisation(options, message):
    with pytest.raises(InputError, match=message):
        make(regularization=options)


def test_feature_matching_asks_for_features():
    module = make()
    with pytest.raises(InputError, match="feature_matching needs a discriminator with features"):
        type(module)(
            module.generator,
            torch.nn.Linear(1, 1),
            SPEC,
            regularization=type(module.regularization)(feature_matching=1.0),
        )


def make(**changes):
    config = {
        "_target_": "lit_aigc.modules.gan.GAN",
        "conditional": True,
        "generator": {"_target_": "lit_aigc.networks.mlp.Generator", "hidden": [16], "latent_dim": 5},
        "discriminator": {"_target_": "lit_aigc.networks.mlp.Discriminator", "hidden": [16]},
    }
    torch.manual_seed(0)
    return build(resolve(config | changes, SPEC), SPEC)


# -- augmentation


class Recorder:
    """An augmentation that paints what it is given white, and remembers for whom."""

    def __init__(self):
        self.streams, self.overfitting = [], []

    def __call__(self, images, *, noise):
        self.streams.append(noise)
        return torch.ones_like(images) * images.detach().abs().max().clamp(1, 1) + 0.0 * images

    def adapt(self, overfitting, images):
        self.overfitting.append((float(overfitting), images))

    p = torch.tensor(0.25)


def test_the_discriminator_sees_augmented_images_only_and_samples_are_never_augmented(tiny, tmp_path, monkeypatch):
    import lit_aigc.train.run as training

    recorder, seen = Recorder(), []
    original = training.build

    def built(model_config, spec):
        module = original(model_config, spec)
        module.augment, module._adapts = recorder, True
        module.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        pair = module.discriminator.pair
        module.discriminator.pair = lambda real, fake, y: (seen.extend((real, fake)), pair(real, fake, y))[1]
        return module

    monkeypatch.setattr(training, "build", built)
    run = start(tiny, f"run_dir={tmp_path}/run")
    assert len(seen) == 3 * run.module.batches
    assert all((images == 1).all() for images in seen)
    draws = {(noise.seed, noise.start) for noise in recorder.streams}
    assert len(draws) == len(recorder.streams) == 3 * run.module.batches  # real, fake and the generator's differ
    assert [images for _, images in recorder.overfitting] == [8] * run.module.batches
    recorder.streams.clear()
    run.module.sample(4, noise=Noise(0))
    assert not recorder.streams


def test_adaptive_augmentation_resumes_to_the_bit(tiny, tmp_path):
    more = [
        "budget.batches=8",
        "model.augment._target_=lit_aigc.augmentation.images.AdaptiveAugment",
        "model.augment.ramp=64",
    ]
    whole = train(load("train", [*tiny, f"run_dir={tmp_path}/whole", *more]))
    train(load("train", [*tiny, f"run_dir={tmp_path}/parts", *more, "pause_after.batches=3"]))
    parts = train(load("train", [f"resume={tmp_path}/parts"]))
    assert whole.module.augment.p == parts.module.augment.p
    assert torch.equal(weights(whole), weights(parts))
    assert load_bundle(tmp_path / "whole/bundle").module.augment.p == whole.module.augment.p


def test_adaptive_augmentation_follows_the_mean_of_a_window(tiny, tmp_path, monkeypatch):
    """Four batches by default, also across a resume; a run from before goes on batch by batch."""
    told = []
    adapt = AdaptiveAugment.adapt

    def recorded(augment, overfitting, images):
        told.append((float(overfitting), images))
        adapt(augment, overfitting, images)

    monkeypatch.setattr(AdaptiveAugment, "adapt", recorded)
    more = [
        "budget.batches=8",
        "model.augment._target_=lit_aigc.augmentation.images.AdaptiveAugment",
        "model.augment.ramp=64",
    ]
    train(load("train", [*tiny, f"run_dir={tmp_path}/whole", *more]))
    whole, told[:] = list(told), []
    assert [images for _, images in whole] == [4 * 8, 4 * 8]
    train(load("train", [*tiny, f"run_dir={tmp_path}/parts", *more, "pause_after.batches=3"]))
    saved = read_checkpoint(tmp_path / "parts/checkpoints/last.ckpt")["lit_aigc"]["signs"]
    assert saved[1] == 3
    shutil.copytree(tmp_path / "parts", tmp_path / "old")
    train(load("train", [f"resume={tmp_path}/parts"]))
    assert told == whole

    config = read_yaml(tmp_path / "old/config.yaml")
    assert config.pop("config_version") == 2
    config["model"]["regularization"] = {"r1": 0.01}
    write_yaml(config, tmp_path / "old/config.yaml")
    told.clear()
    old = train(load("train", [f"resume={tmp_path}/old"]))
    assert len(told) == 5
    assert read_yaml(tmp_path / "old/config.yaml")["model"]["augment"]["window"] == 1
    assert old.module.regularization.before_augmentation is False


def test_r1_and_r2_are_taken_before_augmentation_unless_the_config_says_otherwise():
    """As in StyleGAN2-ADA and R3GAN; against autograd by hand, up to the gradient of the discriminator's weights."""
    images = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    batch = Batch(images, torch.arange(4) % 3, 8)
    for before in (True, False):
        torch.manual_seed(0)
        module = make(
            regularization={"r1": 0.3, "r2": 0.7, "before_augmentation": before},
            augment={"_target_": "lit_aigc.augmentation.images.AdaptiveAugment", "p": 0.6},
        )
        module._trainer = types.SimpleNamespace(precision_plugin=None)
        parameters = list(module.discriminator.parameters())
        loss, values = module.discriminator_loss(batch)
        gradients = torch.autograd.grad(loss, parameters)

        total, logits = 0.0, []
        for name, weight, given in (("real", 0.3, images), ("fake", 0.7, module._generate(batch).detach())):
            leaf = given.clone().requires_grad_()
            seen = module._augmented(leaf, batch, name)
            assert not torch.equal(seen, leaf)
            if not before:
                leaf = seen = seen.detach().requires_grad_()
            logits.append(module.discriminator(seen, batch.labels))
            (slope,) = torch.autograd.grad(logits[-1].sum(), leaf, create_graph=True)
            penalty = slope.square().sum() / (2 * len(images))
            assert values[{"real": "r1", "fake": "r2"}[name]].item() == pytest.approx(penalty.item(), rel=1e-4)
            total = total + weight * penalty
        total = total + module.loss.discriminator(*logits)
        for ours, theirs in zip(gradients, torch.autograd.grad(total, parameters), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


# -- half precision


def half_precision(module, scale):
    """The module with a Trainer that has a gradient scaler, as on a GPU in 16-mixed precision."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    plugin = types.SimpleNamespace(scaler=scaler)
    module._trainer = types.SimpleNamespace(precision_plugin=plugin, strategy=None, fit_loop=None)
    module.manual_backward = lambda loss: scaler.scale(loss).backward()
    return module


def step(module, images):
    optimizer = LightningOptimizer(torch.optim.SGD(module.discriminator.parameters(), lr=1.0))
    before = [p.detach().clone() for p in module.discriminator.parameters()]

    def loss(batch):
        value = module.discriminator(batch.images, batch.labels).mean()
        return value, {"loss": value}

    module.log_every = 1
    values = module.update(optimizer, Batch(images, torch.tensor([0, 1, 2, 0]), 0), loss)
    moved = [b - p.detach() for p, b in zip(module.discriminator.parameters(), before, strict=True)]
    return values, torch.cat([m.flatten() for m in moved])


def test_gradients_are_unscaled_before_they_are_clipped_and_logged():
    images = torch.randn(4, 1, 28, 28)
    recipe = {"clip_norm": 0.05}
    values, moved = step(half_precision(make(recipe=recipe), 2.0**16), images)
    expected, expected_move = step(half_precision(make(recipe=recipe), 1.0), images)
    assert values["grad_norm"].item() == pytest.approx(expected["grad_norm"].item(), rel=1e-5)
    assert values["grad_norm"] > 0.05
    assert moved.norm().item() == pytest.approx(0.05, rel=1e-4)
    torch.testing.assert_close(moved, expected_move, rtol=1e-4, atol=1e-8)


def test_an_overflow_skips_the_step_and_lowers_the_scale():
    module = half_precision(make(), 2.0**16)
    _, moved = step(module, torch.full((4, 1, 28, 28), torch.inf))
    assert (moved == 0).all()
    assert module._trainer.precision_plugin.scaler.get_scale() == 2.0**15


# -- compiled networks


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_networks_train_like_eager_ones_and_leave_an_eager_bundle(tiny, tmp_path):
    penalty = {"regularization": {"r1": 0.1, "every": 2}}
    eager = start(tiny, f"run_dir={tmp_path}/eager", **penalty)
    compiled = start(tiny, f"run_dir={tmp_path}/compiled", recipe={"compile": True}, **penalty)
    torch.testing.assert_close(weights(eager), weights(compiled), rtol=1e-3, atol=1e-5)
    state = torch.load(tmp_path / "compiled/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert state.keys() == eager.module.state_dict().keys()
    bundle = load_bundle(tmp_path / "compiled/bundle").module
    with compiled.module.averaged():
        torch.testing.assert_close(bundle.sample(2, noise=Noise(0)), compiled.module.sample(2, noise=Noise(0)))


# -- health


def test_spread_within_classes_by_hand():
    images = torch.tensor([1.0, 3.0, 10.0, 10.0]).view(4, 1, 1, 1)
    assert spread_within_classes(images, torch.tensor([0, 0, 1, 1]), 2).item() == pytest.approx(0.5**0.5)
    assert spread_within_classes(images, None, 0).item() == pytest.approx(images.std(correction=0).item())


def test_one_picture_a_class_is_seen_as_no_diversity():
    real = torch.randn(64, 1, 4, 4)
    labels = torch.arange(64) % 4
    collapsed = torch.randn(4, 1, 4, 4)[labels]
    assert gan_statistics(real, collapsed, labels, 4)["diversity"] < 1e-6
    assert gan_statistics(real, collapsed, None, 4)["diversity"] > 0.5  # without labels four pictures look varied
    assert gan_statistics(real, real, labels, 4)["diversity"].item() == pytest.approx(1.0)


def test_accuracy_is_of_signs_or_of_pairs():
    real, fake = torch.tensor([-1.0, 2.0]), torch.tensor([-2.0, 3.0])
    assert logit_statistics(real, fake, pairs=False)["d_accuracy"].item() == 0.5
    assert logit_statistics(real + 9, fake + 9, pairs=True)["d_accuracy"].item() == 0.5
    assert logit_statistics(real + 9, fake + 9, pairs=False)["d_accuracy"].item() == 0.5


def test_a_generator_that_draws_one_picture_rings_the_alarm_once(tiny, tmp_path, caplog):
    """Provoked in a real run: a generator whose first layer is zero sees no latent."""

    class Collapsed(torch.nn.Module):
        latent_dim = 4

        def __init__(self):
            super().__init__()
            self.picture = torch.nn.Parameter(torch.zeros(1, 28, 28))

        def forward(self, z, y=None):
            return self.picture.tanh().expand(len(z), 1, 28, 28)

    config = load("train", [*tiny, f"run_dir={tmp_path}/run", "log_every=1", "budget.batches=14"])
    import lit_aigc.train.run as training

    original = training.build

    def built(model_config, spec):
        module = original(model_config, spec)
        module.generator, module.ema = Collapsed(), None
        return module

    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING, logger="lit_aigc"):
        patch.setattr(training, "build", built)
        patch.setattr(training, "save_bundle", lambda *a: tmp_path)
        train(config)
    assert [r.message.split(":")[0] for r in caplog.records if r.name.startswith("lit_aigc")] == [
        "The generator has collapsed"
    ]
    rows = list(csv.DictReader((tmp_path / "run/metrics.csv").open()))
    assert float(rows[-1]["train/diversity"]) < 1e-3


def test_the_alarm_counts_windows_in_a_row_over_a_checkpoint():
    one = Alarm()
    for _ in range(9):
        one.observe({"d_spread": 0.0, "d_loss": 1.0, "diversity": 0.0})
    other = Alarm(discriminator=one.discriminator, generator=one.generator)
    assert other.generator == PATIENCE - 1
    assert other.discriminator_collapsed({"d_spread": 0.0, "d_loss": 1.0}) is None
    other.observe({"d_spread": 0.0, "d_loss": 1.0, "diversity": 0.0})
    assert other.generator == PATIENCE
    assert "same logit" in other.discriminator_collapsed({"d_spread": 0.0, "d_loss": 1.0})


def test_a_wasserstein_loss_below_zero_is_no_alarm():
    alarm = Alarm()
    for _ in range(20):
        alarm.observe({"d_spread": 1.0, "d_loss": -7.0}, ADVERSARIAL_LOSSES["wasserstein"].least)
    assert alarm.discriminator_collapsed({"d_spread": 1.0, "d_loss": -7.0}) is None


# -- any loss with any network

SMALL = {
    "mlp": ({"hidden": [8]}, {"hidden": [8]}),
    "dcgan": ({"channels": 4}, {"channels": 4}),
    "sngan": ({"channels": 4}, {"channels": 4}),
    "sagan": ({"channels": 8}, {"channels": 8}),
    "r3gan": ({"channels": 8}, {"channels": 8, "minibatch_group": 2}),
}


def small_gan(network, shape, conditional, **options):
    spec = DataSpec("image", shape, num_classes=3, class_names=("a", "b", "c"), name="made_up")
    generator, discriminator = SMALL[network]
    config = {
        "_target_": "lit_aigc.modules.gan.GAN",
        "conditional": conditional,
        "generator": {"_target_": f"lit_aigc.networks.{network}.Generator", "latent_dim": 5, **generator},
        "discriminator": {"_target_": f"lit_aigc.networks.{network}.Discriminator", **discriminator},
        "generator_optimizer": {"lr": 1e-3},
        "discriminator_optimizer": {"lr": 1e-3},
        **options,
    }
    torch.manual_seed(0)
    module = build(resolve(config, spec), spec)
    trainer = types.SimpleNamespace(precision_plugin=None, strategy=types.SimpleNamespace(_forward_redirection=None))
    trainer.strategy.reduce = lambda value, reduce_op: value
    trainer.world_size = 1
    module._trainer = trainer
    optimizers = module.configure_optimizers()
    module.optimizers = lambda: optimizers
    module.manual_backward = lambda loss: loss.backward()
    return module


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("loss", ADVERSARIAL_LOSSES)
@pytest.mark.parametrize("network", SMALL)
def test_every_loss_and_all_regularisers_train_every_network(network, loss, conditional):
    """In bf16, with augmentation: both networks move, and stay finite."""
    module = small_gan(
        network,
        (1, 28, 28),
        conditional,
        loss=loss,
        regularization=ALL_PENALTIES,
        augment={"_target_": "lit_aigc.augmentation.images.AdaptiveAugment", "p": 0.5},
    )
    before = [p.detach().clone() for p in module.parameters()]
    images, labels = torch.rand(4, 1, 28, 28) * 2 - 1, torch.tensor([0, 1, 2, 1])
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            values = module.train_batch(Batch(images, labels, 0))
        module.batches += 1
    assert all(torch.as_tensor(value).isfinite().all() for value in values.values())
    after = list(module.parameters())
    assert all(p.isfinite().all() for p in after)
    for name in ("generator", "discriminator"):
        part = {id(p) for p in getattr(module, name).parameters()}
        assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True) if id(a) in part)


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 64, 64), (1, 64, 64)])
@pytest.mark.parametrize("network", SMALL)
def test_every_network_trains_at_other_sizes_and_in_colour(network, shape):
    module = small_gan(network, shape, True, augment={"_target_": "lit_aigc.augmentation.images.DiffAugment"})
    module.train_batch(Batch(torch.rand(4, *shape) * 2 - 1, torch.tensor([0, 1, 2, 1]), 0))
    assert all(p.isfinite().all() for p in module.parameters())
    assert module.sample(1, noise=Noise(0)).shape == (1, *shape)
