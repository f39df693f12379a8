"""The VAE-GAN's objective by hand, where its gradients go, and real training runs."""

import csv
import types

import pytest
import torch
from torch.nn import functional as F

from lit_aigc.build import build, resolve
from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.losses.gan import ADVERSARIAL_LOSSES
from lit_aigc.losses.gan_regularization import learned_similarity
from lit_aigc.modules.base import TrainingDiverged
from lit_aigc.networks.prior import VampPrior
from lit_aigc.noise import Noise
from lit_aigc.runs.bundle import load_bundle
from lit_aigc.spec import Batch, Condition, DataSpec
from lit_aigc.train.run import train

SPEC = DataSpec("image", (1, 28, 28), num_classes=3, class_names=("a", "b", "c"), name="made_up")
SMALL = [
    "model=vae_gan",
    "model.network.encoder.latent_dim=4",
    "model.network.encoder.channels=4",
    "model.network.encoder.hidden=8",
    "model.discriminator.channels=4",
]


@pytest.fixture
def small(tiny):
    """Arguments of a short training of a small VAE-GAN."""
    return [a for a in tiny if not a.startswith("model")] + SMALL


def start(arguments, *more):
    return train(load("train", [*arguments, *more]))


def make(**changes):
    """A fully connected VAE-GAN under a trainer that does nothing, at a standstill unless told otherwise."""
    config = {
        "_target_": "lit_aigc.modules.vae_gan.VAEGAN",
        "conditional": True,
        "network": {
            "_target_": "lit_aigc.networks.latent.SingleLevel",
            "encoder": {"_target_": "lit_aigc.networks.mlp.Encoder", "latent_dim": 4, "hidden": [16]},
            "decoder": {
                "_target_": "lit_aigc.networks.mlp.Decoder",
                "latent_dim": 4,
                "hidden": [16],
                "likelihood": {"_target_": "lit_aigc.networks.likelihood.Bernoulli"},
            },
        },
        "discriminator": {"_target_": "lit_aigc.networks.mlp.Discriminator", "hidden": [8]},
        "autoencoder_optimizer": {"name": "SGD", "lr": 0.0},
        "discriminator_optimizer": {"name": "SGD", "lr": 0.0},
        "recipe": {"ema_decay": 0.0},
    }
    torch.manual_seed(0)
    module = build(resolve(config | changes, SPEC), SPEC)
    strategy = types.SimpleNamespace(_forward_redirection=None, reduce=lambda value, reduce_op: value)
    module._trainer = types.SimpleNamespace(precision_plugin=None, strategy=strategy, world_size=1)
    optimizers = module.configure_optimizers()
    module.optimizers = lambda: optimizers
    module.manual_backward = lambda loss: loss.backward()
    return module


def batch(n=6):
    images = Noise(5).uniform(n, 1, 28, 28) * 2 - 1
    return Batch(images, torch.arange(n) % 3, 0)


def gradients(network):
    return torch.cat([p.grad.flatten() for p in network.parameters()])


# -- the objective


def by_hand(module, data):
    """The losses of the paper, from the networks alone, for the latents that the module draws."""
    x, y = data.images, data.labels
    noise = Noise(0, 0).stream("training")
    mean, log_var = module.network.encoder(x, y)
    z = mean + (0.5 * log_var).exp() * noise.stream("posterior").normal(len(x), 4)
    posterior = torch.distributions.Normal(mean, (0.5 * log_var).exp())
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum() / len(x)

    def images(latents):
        return 2 * torch.sigmoid(module.network.decoder(latents, y)) - 1

    features = module.discriminator.features
    similarity = sum(((a - b) ** 2).sum() / 2 for a, b in zip(features(x), features(images(z)), strict=True)) / len(x)
    real, again, sample = (
        module.discriminator(i, y) for i in (x, images(z), images(noise.stream("prior").normal(len(x), 4)))
    )
    d_loss = -(F.logsigmoid(real) + (F.logsigmoid(-again) + F.logsigmoid(-sample)) / 2).mean()
    g_loss = -(F.logsigmoid(again) + F.logsigmoid(sample)).mean() / 2
    return {"kl": kl, "similarity": similarity, "d_loss": d_loss, "g_loss": g_loss}


def test_the_losses_and_all_gradients_are_those_of_the_paper():
    gamma, beta = 0.3, 0.7
    module, data = make(gamma=gamma, beta=beta), batch()
    values = module.train_batch(data)
    expected = by_hand(module, data)
    for name, value in expected.items():
        assert values[name].item() == pytest.approx(value.item(), rel=1e-5), name

    encoder, decoder = list(module.network.encoder.parameters()), list(module.network.decoder.parameters())
    of_encoder = gamma * (beta * expected["kl"] + expected["similarity"])
    of_decoder = gamma * expected["similarity"] + expected["g_loss"]
    for weights, loss in (
        (encoder, of_encoder),
        (decoder, of_decoder),
        (list(module.discriminator.parameters()), expected["d_loss"]),
    ):
        assert sum(p.grad.abs().sum() for p in weights) > 0
        for p, gradient in zip(weights, torch.autograd.grad(loss, weights, retain_graph=True), strict=True):
            torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-7)


def test_similarity_by_hand():
    real, fake = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]]), torch.tensor([[[0.0, 4.0]], [[1.0, 0.0]]])
    assert learned_similarity(real, fake).tolist() == [2.5, 0.5]
    a, b = torch.randn(3, 4), torch.randn(3, 4)  # differences of log-likelihoods, where the constant goes
    log_p = torch.distributions.Normal(b, 1.0).log_prob(a).sum(dim=1)
    torch.testing.assert_close(learned_similarity(a, b), torch.distributions.Normal(a, 1.0).log_prob(a).sum(1) - log_p)


@pytest.mark.parametrize("prior", ["StandardNormal", "VampPrior"])
def test_the_encoder_gets_no_adversarial_gradient(prior):
    """Whatever the adversarial loss is, its step is the same; the decoder's is not."""
    of_encoder, of_decoder = [], []
    for loss in ("non_saturating", "hinge", "relativistic"):
        module = make(loss=loss, conditional=False)
        if prior == "VampPrior":  # whose samples come from the encoder too
            module.network.prior = VampPrior(SPEC.shape, components=3)
            torch.nn.init.normal_(module.network.prior.images, generator=torch.Generator().manual_seed(1))
        module.train_batch(batch())
        of_encoder.append(gradients(module.network.encoder))
        of_decoder.append(gradients(module.network.decoder))
    assert of_encoder[0].abs().sum() > 0
    for encoder, decoder in zip(of_encoder[1:], of_decoder[1:], strict=True):
        assert torch.equal(of_encoder[0], encoder)
        assert not torch.allclose(of_decoder[0], decoder)


def test_the_discriminator_learns_nothing_from_the_similarity():
    one, other = make(gamma=0.01), make(gamma=10.0)
    for module in (one, other):
        module.train_batch(batch())
        assert all(p.requires_grad for p in module.discriminator.parameters())
    assert torch.equal(gradients(one.discriminator), gradients(other.discriminator))
    assert not torch.allclose(gradients(one.network), gradients(other.network))


def test_r1_is_added_to_the_discriminator_alone():
    plain, damped = make(), make(r1=2.0)
    plain.train_batch(batch())
    values = damped.train_batch(batch())
    x = batch().images.requires_grad_()
    (gradient,) = torch.autograd.grad(damped.discriminator(x, batch().labels).sum(), x)
    assert values["r1"].item() == pytest.approx(gradient.square().flatten(1).sum(dim=1).mean().item() / 2, rel=1e-4)
    assert not torch.allclose(gradients(plain.discriminator), gradients(damped.discriminator))
    assert torch.equal(gradients(plain.network), gradients(damped.network))


def test_a_batch_in_parts_gives_the_gradient_of_the_whole():
    whole, parts = make(), make(recipe={"accumulate": 3, "ema_decay": 0.0})
    parts._trainer.strategy = whole._trainer.strategy
    for module in (whole, parts):
        module.train_batch(batch())
    for name in ("network", "discriminator"):
        torch.testing.assert_close(
            gradients(getattr(whole, name)), gradients(getattr(parts, name)), rtol=1e-4, atol=1e-7
        )


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("network", ["dcgan", "sngan", "sagan", "r3gan"])
def test_every_loss_trains_with_every_discriminator(network, conditional):
    channels = {"dcgan": 4, "sngan": 4, "sagan": 8, "r3gan": 8}[network]
    fast = {"name": "SGD", "lr": 1e-3}
    for loss in ADVERSARIAL_LOSSES:
        module = make(
            loss=loss,
            conditional=conditional,
            r1=0.1,
            discriminator={"_target_": f"lit_aigc.networks.{network}.Discriminator", "channels": channels},
            autoencoder_optimizer=fast,
            discriminator_optimizer=fast,
        )
        before = [p.detach().clone() for p in module.parameters()]
        with torch.autocast("cpu", torch.bfloat16):
            values = module.train_batch(batch())
        assert all(value.isfinite().all() for value in values.values())
        assert all(p.isfinite().all() for p in module.parameters())
        moved = {
            name.partition(".layers")[0]
            for (name, p), old in zip(module.named_parameters(), before, strict=True)
            if not torch.equal(p, old)
        }
        assert {"network.encoder", "network.decoder"} < moved  # and some part of the discriminator


# -- training


def test_a_run_learns_and_logs(small, tmp_path):
    run = start(small, f"run_dir={tmp_path}/run", "budget.batches=60", "data.batch_size=16", "validations=2")
    assert run.exit_code == 0
    rows = list(csv.DictReader((tmp_path / "run/metrics.csv").open()))
    validated = [row for row in rows if row["reconstruction"]]
    assert len(validated) == 2
    first, last = validated
    assert 0 < float(last["reconstruction"]) < float(first["reconstruction"]) < 4
    for name in ("kl", "similarity"):
        assert float(last[name]) > 0
        assert run.module.results[name] == float(last[name])
    trained = [row for row in rows if row["train/d_loss"]][-1]
    for name in ("d_loss", "g_loss", "kl", "similarity", "d_accuracy", "d_grad_norm", "ae_grad_norm", "diversity"):
        assert float(trained[f"train/{name}"]) >= 0
    assert run.module.generator_updates == 60


def test_validation_is_of_the_averaged_weights_and_the_held_out_images(small, tmp_path):
    module = start(small, f"run_dir={tmp_path}/run").module
    loaded = load_bundle(tmp_path / "run/bundle").module
    data = start(small, f"run_dir={tmp_path}/other").datamodule
    n = similarity = error = kl = 0.0
    with torch.no_grad():
        for part in data.val_dataloader():
            x = part.images.float().div(127.5).sub(1)
            eps = Noise(0, part.start).stream("validation").stream("posterior").normal(len(x), 4)
            mean, log_var = loaded.network.encoder(x)
            made = 2 * torch.sigmoid(loaded.network.decoder(mean + (0.5 * log_var).exp() * eps)) - 1
            n += len(x)
            kl += 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum().item()
            error += (made - x).square().mean(dim=(1, 2, 3)).sum().item()
            features = [loaded.discriminator.features(i) for i in (x, made)]
            similarity += 0.5 * (features[0] - features[1]).square().sum().item()
    assert module.results["reconstruction"] == pytest.approx(error / n, rel=1e-4)
    assert module.results["similarity"] == pytest.approx(similarity / n, rel=1e-4)
    assert module.results["kl"] == pytest.approx(kl / n, rel=1e-4)


def test_a_resumed_run_is_the_run_that_was_never_paused(small, tmp_path):
    more = ["budget.batches=7", "model.conditional=true"]
    start(small, f"run_dir={tmp_path}/whole", *more)
    assert start(small, f"run_dir={tmp_path}/parts", *more, "pause_after.batches=3").exit_code == 75
    start([], f"resume={tmp_path}/parts")
    whole, parts = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True) for name in ("whole", "parts")
    )
    for state in ("state_dict", "optimizer_states"):
        one, other = flat(whole[state]), flat(parts[state])
        assert one.keys() == other.keys()
        assert all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in one)
    averaged = [flat(checkpoint["lit_aigc"]["ema"]) for checkpoint in (whole, parts)]
    assert all(torch.equal(torch.as_tensor(value), torch.as_tensor(averaged[1][k])) for k, value in averaged[0].items())
    assert "alarm" in parts["lit_aigc"]


def flat(node, path=""):
    """The numbers and tensors of nested dicts and lists, by their path."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else None
    if items is None:
        return {} if node is None or isinstance(node, str) else {path: node}
    return {key: leaf for name, child in items for key, leaf in flat(child, f"{path}.{name}").items()}


def test_a_bundle_samples_encodes_and_decodes_like_the_run(small, tmp_path):
    run = start(small, f"run_dir={tmp_path}/run", "model.conditional=true")
    loaded = load_bundle(tmp_path / "run/bundle").module
    labels = torch.tensor([3, 1, 3])
    with run.module.averaged():
        samples = run.module.sample(3, condition=Condition(labels), noise=Noise(0))
        latents = run.module.latents(3, condition=Condition(labels), noise=Noise(0))
        codes = run.module.encode(samples, labels)
    assert torch.equal(loaded.sample(3, condition=Condition(labels), noise=Noise(0)), samples)
    assert torch.equal(loaded.encode(samples, labels), codes)
    assert codes.shape == (3, 4)
    torch.testing.assert_close(loaded.decode(latents, labels), samples, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(loaded.decode(latents, (labels + 1) % 10), samples)
    assert loaded.interpolate(5, noise=Noise(1)).shape == (5, 1, 28, 28)
    assert samples.abs().max() <= 1


# -- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "hing"}, "did you mean 'hinge'"),
        ({"gamma": 0.0}, "model.gamma=0.0: expected a weight above 0"),
        ({"gamma": float("nan")}, "model.gamma=nan"),
        ({"beta": -1.0}, "model.beta=-1.0: expected a weight of 0 or more"),
        ({"r1": -0.5}, "model.r1=-0.5"),
        ({"discriminator": {"_target_": "torch.nn.Identity"}}, r"needs a discriminator with features\(x\)"),
        ({"autoencoder_optimizer": {"lrr": 1}}, "did you mean 'lr'"),
        ({"discriminator_optimizer": {"name": "SGDD"}}, "did you mean 'SGD'"),
    ],
)
def test_wrong_options(changes, message):
    with pytest.raises(InputError, match=message):
        make(**changes)


def test_images_in_another_range():
    spec = DataSpec("image", (1, 28, 28), value_range=(0.0, 1.0))
    module = make(conditional=False)
    with pytest.raises(InputError, match=r"images in \[-1, 1\], and the data's are in \(0.0, 1.0\)"):
        type(module)(module.network, module.discriminator, spec)


def test_a_collapsed_discriminator_is_told_with_this_models_options():
    module = make()
    with pytest.raises(TrainingDiverged, match=r"raise autoencoder_optimizer.lr, or raise model.r1\."):
        for _ in range(10):
            module.check_health({"d_spread": 0.0, "d_loss": 1.4})
