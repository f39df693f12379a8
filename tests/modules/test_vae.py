"""VAEs: bounds and likelihoods where the exact ones are known, and what training runs do."""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from lit_aigc.build import build, resolve
from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.losses.vae import importance_bound
from lit_aigc.modules import vae
from lit_aigc.modules.vae import VAE, Objective
from lit_aigc.networks.latent import SingleLevel
from lit_aigc.networks.likelihood import Gaussian
from lit_aigc.noise import Noise
from lit_aigc.runs.bundle import load_bundle
from lit_aigc.spec import Batch, Condition, DataSpec
from lit_aigc.train.run import train
from tests.equality import assert_equal

ROOT = Path(__file__).parents[2]
SPEC = DataSpec("image", (1, 28, 28), num_classes=3, class_names=("a", "b", "c"), name="made_up")

# -- a linear model with normal noise, whose likelihood and posterior are known


class LinearEncoder(nn.Module):
    """Mean and log-variance of the exact posterior for a decoder with orthogonal columns, or off by `shift`."""

    latent_dim = 2

    def __init__(self, decoder, shift, widen):
        super().__init__()
        precision = 1 + decoder.weight.square().sum(dim=0)
        self.weight, self.bias = decoder.weight.T / precision[:, None], decoder.bias
        self.shift, self.log_var = shift, widen - precision.log()

    def forward(self, x, y=None):
        mean = (x.flatten(1) - self.bias) @ self.weight.T + self.shift
        return mean, self.log_var.expand_as(mean)


class LinearDecoder(nn.Module):
    latent_dim = 2

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        basis, _ = torch.linalg.qr(torch.randn(6, 2, generator=generator))
        self.weight, self.bias = basis * torch.tensor([1.5, 0.7]), torch.randn(6, generator=generator)
        self.likelihood = Gaussian("fixed")

    def forward(self, z, y=None):
        return (z @ self.weight.T + self.bias).unflatten(1, (1, 2, 3))


def linear(shift=0.0, widen=0.0):
    """The model, five images, and their exact log-likelihoods."""
    decoder = LinearDecoder()
    module = VAE.__new__(VAE)
    network = SingleLevel(LinearEncoder(decoder, shift, widen), decoder)
    network.unused = nn.Parameter(torch.zeros(()))  # for the optimizer
    module.__init__(network, DataSpec("image", (1, 2, 3), name="made_up"))
    x = Noise(5).normal(5, 1, 2, 3)
    exact = MultivariateNormal(decoder.bias, decoder.weight @ decoder.weight.T + torch.eye(6)).log_prob(x.flatten(1))
    return module, x, exact


def log_weights(module, x, k):
    """Of k draws of latents an image, (N, k)."""
    drawn = module.network(x, Noise(1).normal(len(x), k, 2))
    log_px = module.network.likelihood.log_prob(drawn.parameters, x.repeat_interleave(k, dim=0))
    return (log_px - drawn.log_ratio).view(len(x), k)


def test_the_bound_of_the_exact_posterior_is_the_likelihood_for_every_draw():
    module, x, exact = linear()
    torch.testing.assert_close(log_weights(module, x, 20), exact[:, None].expand(-1, 20), rtol=1e-4, atol=1e-4)
    found = module.log_likelihood(x, samples=3, noise=Noise(0))
    torch.testing.assert_close(found, exact.double()[:, None].expand(-1, 2), rtol=1e-4, atol=1e-4)


def test_the_bound_is_lower_by_the_divergence_from_the_posterior():
    module, x, exact = linear(shift=0.4, widen=0.5)
    log_w = log_weights(module, x, 40_000)
    precision = 1 + module.network.decoder.weight.square().sum(dim=0)
    divergence = 0.5 * (math.exp(0.5) - 1 - 0.5 + 0.4**2 * precision).sum()
    assert divergence > 0.3
    torch.testing.assert_close(log_w.mean(dim=1), exact - divergence, rtol=0, atol=0.03)
    drawn = module.network(x, Noise(1).normal(5, 40_000, 2))
    log_px = module.network.likelihood.log_prob(drawn.parameters, x.repeat_interleave(40_000, dim=0))
    in_closed_form = (log_px - drawn.kl.sum(dim=1)).view(5, -1).mean(dim=1)
    torch.testing.assert_close(in_closed_form, exact - divergence, rtol=0, atol=0.03)


def test_more_draws_tighten_the_importance_bound():
    module, x, exact = linear(shift=0.4, widen=0.5)
    log_w = log_weights(module, x, 40_000)
    bounds = torch.stack([importance_bound(log_w.view(5, -1, k)).mean(dim=1) for k in (1, 4, 20, 200)])
    assert (bounds.diff(dim=0) > 0).all()
    assert (bounds[:-1] < exact).all()
    torch.testing.assert_close(bounds[-1], exact, rtol=0, atol=0.01)


def test_the_estimate_converges_to_the_exact_likelihood():
    module, x, exact = linear(shift=0.4, widen=0.5)
    estimate, bound = module.log_likelihood(x, samples=5000, noise=Noise(0)).unbind(dim=1)
    torch.testing.assert_close(estimate, exact.double(), rtol=0, atol=0.03)
    assert bound.mean() < estimate.mean()
    _, other = module.log_likelihood(x, samples=1, noise=Noise(0)).unbind(dim=1)
    torch.testing.assert_close(bound, other)  # the bound is that of the first draw, however many follow


@pytest.mark.parametrize("draws", [1, 7, 64])
def test_the_estimate_does_not_depend_on_how_much_is_in_memory_at_once(monkeypatch, draws):
    module, x, _ = linear(shift=0.4, widen=0.5)
    whole = module.log_likelihood(x, samples=50, noise=Noise(0))
    sizes = []
    module.network.decoder.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    monkeypatch.setattr(vae, "_DRAWS", draws)
    torch.testing.assert_close(module.log_likelihood(x, samples=50, noise=Noise(0)), whole, rtol=1e-5, atol=1e-5)
    assert max(sizes) <= max(draws, len(x))
    assert sum(sizes) == 50 * len(x)
    torch.testing.assert_close(
        module.log_likelihood(x[2:], samples=50, noise=Noise(0, 2)), whole[2:], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, lambda log_px, kl, ratio: kl.sum(2).mean() - log_px.mean()),
        ({"samples": 3}, lambda log_px, kl, ratio: kl.sum(2).mean() - log_px.mean()),
        ({"beta": 4.0}, lambda log_px, kl, ratio: 4 * kl.sum(2).mean() - log_px.mean()),
        ({"beta": 4.0, "warmup": 0.5}, lambda log_px, kl, ratio: 2 * kl.sum(2).mean() - log_px.mean()),
        ({"free_bits": 0.9}, lambda log_px, kl, ratio: kl.mean((0, 1)).clamp(min=0.9).sum() - log_px.mean()),
        ({"bound": "iwae", "samples": 3}, lambda log_px, kl, ratio: -(log_px - ratio).exp().mean(1).log().mean()),
        (
            {"bound": "iwae", "samples": 3, "beta": 4.0, "warmup": 0.5},
            lambda log_px, kl, ratio: -(log_px - 2 * ratio).exp().mean(1).log().mean(),
        ),
    ],
)
def test_the_loss_is_what_the_objective_says(options, expected):
    """At a fourth of the budget, from the terms of each draw."""
    module, x, _ = linear(shift=0.4, widen=0.5)
    module.objective, module.progress, module.seed = Objective(**options), 0.25, 7
    loss, values = module._loss(Batch(x, None, 30))
    k = module.objective.samples
    drawn = module.network(x, Noise(7, 30).stream("training").stream("posterior").normal(5, k, 2))
    log_px = module.network.likelihood.log_prob(drawn.parameters, x.repeat_interleave(k, dim=0))
    terms = log_px.view(5, k), drawn.kl.view(5, k, 2), drawn.log_ratio.view(5, k)
    assert terms[1].mean((0, 1)).min() < 0.9 < terms[1].mean((0, 1)).max()
    torch.testing.assert_close(loss, expected(*terms))
    assert values["kl"].item() == pytest.approx(terms[1].sum(2).mean().item())


# -- what a model can be asked


def make(network="mlp", **changes):
    config = {
        "_target_": "lit_aigc.modules.vae.VAE",
        "conditional": True,
        "network": {
            "_target_": "lit_aigc.networks.latent.SingleLevel",
            "encoder": {"_target_": f"lit_aigc.networks.{network}.Encoder", "hidden": [16], "latent_dim": 4},
            "decoder": {
                "_target_": f"lit_aigc.networks.{network}.Decoder",
                "hidden": [16],
                "latent_dim": 4,
                "likelihood": {"_target_": "lit_aigc.networks.likelihood.Bernoulli", "binarize": True},
            },
        },
    }
    torch.manual_seed(0)
    return build(resolve(config | changes, SPEC), SPEC)


def images(n):
    return Noise(9).uniform(n, 1, 28, 28) * 2 - 1


def test_samples_do_not_depend_on_how_many_are_drawn_at_once():
    module = make()
    whole = module.sample(100, noise=Noise(1))
    assert whole.shape == (100, 1, 28, 28)
    assert whole.abs().max() <= 1
    assert torch.equal(module.sample(30, noise=Noise(1, 70)), whole[70:])


def test_latents_are_those_of_the_samples():
    module, labels = make(), torch.tensor([2, 0, 1, 1])
    z = module.latents(4, condition=Condition(labels), noise=Noise(1))
    samples = module.sample(4, condition=Condition(labels), noise=Noise(1))
    torch.testing.assert_close(module.decode(z, labels), samples)


def test_interpolation_ends_at_the_samples():
    module, labels = make(), torch.zeros(5, dtype=torch.int64)
    ends = module.interpolate(5, condition=Condition(labels), noise=Noise(4))[[0, -1]]
    samples = module.sample(2, condition=Condition(labels[:2]), noise=Noise(4))
    torch.testing.assert_close(ends, samples, atol=1e-5, rtol=1e-4)


def test_an_image_is_encoded_to_the_mean_of_its_posterior_given_its_class():
    module, x, y = make(), images(3), torch.tensor([0, 2, 1])
    found = module.encode(x, y)
    torch.testing.assert_close(found, module.network.encoder(x, y)[0])
    assert not torch.allclose(found, module.encode(x, torch.zeros_like(y)))
    assert module.decode(found, y).shape == x.shape


def test_the_class_matters_to_likelihoods_and_samples():
    module, x = make(), images(3).sign()
    one, other = (
        module.log_likelihood(x, torch.full((3,), label), samples=4, noise=Noise(0))[:, 0] for label in (0, 1)
    )
    assert (one != other).all()
    one, other = (module.sample(2, condition=Condition(torch.full((2,), label)), noise=Noise(0)) for label in (0, 1))
    assert not torch.allclose(one, other)


def test_each_image_has_the_likelihood_of_its_own_class():
    module, x, y = make(), images(3).sign(), torch.tensor([0, 2, 1])
    whole = module.log_likelihood(x, y, samples=5, noise=Noise(0))
    alone = [module.log_likelihood(x[[i]], y[[i]], samples=5, noise=Noise(0, i)) for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), whole, rtol=1e-6, atol=1e-4)


def test_what_is_observed_goes_by_the_place_in_the_stream():
    module, x = make(), images(4)
    whole = module.observed(x, Noise(1, 8))
    assert set(whole.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(whole[1:], module.observed(x[1:], Noise(1, 9)))


def test_a_likelihood_without_labels():
    with pytest.raises(InputError, match="class-conditional: its likelihood of images needs their labels"):
        make().log_likelihood(images(2), samples=1, noise=Noise(0))


def test_data_without_labels():
    with pytest.raises(InputError, match=r"model\.conditional=true needs labels"):
        resolve({"conditional": True}, DataSpec("image", (1, 28, 28), name="plain"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bound": "elb"}, "bound='elb' is unknown, did you mean 'elbo'"),
        ({"bound": "exact"}, "bound='exact' is unknown; known: elbo, iwae"),
        ({"samples": 0}, "samples=0: expected 1 or more"),
        ({"beta": -1.0}, r"beta=-1\.0: expected a weight of 0 or more"),
        ({"warmup": 1.5}, r"warmup=1\.5: expected a share in \[0, 1\]"),
        ({"free_bits": -0.1}, r"free_bits=-0\.1: expected 0 nats or more"),
        ({"bound": "iwae", "free_bits": 0.5}, "free_bits needs bound=elbo"),
    ],
)
def test_wrong_objectives(options, message):
    with pytest.raises(InputError, match=message):
        make(objective=options)


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(InputError, match=r"(?s)samples=0.*beta=-1.*bound='elb'"):
        Objective(bound="elb", samples=0, beta=-1)


def test_images_of_another_range():
    spec = DataSpec("image", (1, 2, 3), value_range=(0.0, 1.0), name="made_up")
    network = linear()[0].network
    with pytest.raises(InputError, match=r"images in \[-1, 1\], and the data's are in \(0\.0, 1\.0\)"):
        VAE(network, spec)


@pytest.mark.parametrize(("value", "told"), [(7.0, "from -1 to 7"), (-255.0, "from -255 to 1"), (math.nan, "nan")])
def test_data_outside_the_support(value, told):
    batch = Batch(torch.ones(2, 1, 28, 28), torch.tensor([0, 1]), 0)
    batch.images[0, 0, 0, 0], batch.images[1, 0, 0, 0] = -1, value
    with pytest.raises(InputError, match=f"{told}.*scale them in the DataModule"):
        make().train_batch(batch)


# -- training runs

KINDS = {
    "vae": ["model.network.encoder.hidden=[8]", "model.network.encoder.latent_dim=3"],
    "conv_vae": ["model.network.encoder={channels: 4, hidden: 8, latent_dim: 3}"],
    "hvae": ["model.network={channels: 4, latent_dim: 3, map_latents: [2, 1]}"],
}
VAMP = "model.network.prior={_target_: lit_aigc.networks.prior.VampPrior, components: 5}"
BINARY = "model.network.decoder.likelihood.binarize=true"


@pytest.fixture
def small(tiny):
    """Arguments of a short training of a VAE of some kind."""
    return lambda kind="vae": [*(a for a in tiny if not a.startswith("model")), f"model={kind}", *KINDS[kind]]


def start(arguments, *more):
    return train(load("train", [*arguments, *more]))


def checkpoint(folder):
    return torch.load(Path(folder) / "checkpoints/last.ckpt", weights_only=True)


def logged(folder):
    """The rows of metrics.csv, without the clock."""
    rows = list(csv.DictReader((Path(folder) / "metrics.csv").open()))
    return [{key: value for key, value in row.items() if key != "train_seconds"} for row in rows]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("vae", ["model.conditional=true", "model.recipe.accumulate=2", "model.objective.warmup=0.7"]),
        ("vae", [VAMP, BINARY, "model.objective={bound: iwae, samples: 3}"]),
        ("conv_vae", ["model.recipe.schedule=cosine"]),
        ("hvae", ["model.objective.free_bits=0.1"]),
    ],
)
def test_ten_batches_equal_five_and_five(small, tmp_path, kind, more):
    """Weights, optimizer, averages, counters and logged values, to the bit."""
    more = [*more, "budget.batches=10", "log_every=3", "validations=2"]
    start(small(kind), f"run_dir={tmp_path}/whole", *more)
    assert start(small(kind), f"run_dir={tmp_path}/parts", *more, "pause_after.batches=5").exit_code == 75
    assert train(load("train", [f"resume={tmp_path}/parts"])).exit_code == 0
    whole, parts = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    for key in ("state_dict", "optimizer_states", "lit_aigc", "callbacks"):
        assert_equal(whole[key], parts[key], key)
    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")


@pytest.mark.parametrize("more", [[], ["model.objective={bound: iwae, samples: 3}"]])
def test_accumulation_equals_the_whole_batch(small, tmp_path, more):
    """To rounding: the noise goes by the place in the stream."""
    runs = [
        start(small(), BINARY, *more, f"run_dir={tmp_path}/{parts}", f"model.recipe.accumulate={parts}")
        for parts in (1, 2, 3)
    ]
    whole, *others = [run.module.state_dict() for run in runs]
    for other in others:
        torch.testing.assert_close(other, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("more", [[], [VAMP], ["model.conditional=true", "model.recipe.ema_decay=0.5"]])
def test_what_is_logged_is_what_validation_images_give(small, tmp_path, more):
    more = [*more, BINARY, "model.network.encoder.hidden=[]", "model.optimizer.lr=0.01", "budget.batches=30"]
    run = start(small(), *more, f"run_dir={tmp_path}/run", "validations=1")
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    terms, means = [], []
    with run.module.averaged():
        for batch in run.datamodule.val_dataloader():
            noise = Noise(0, batch.start).stream("validation")
            pixels = batch.images.float() / 127.5 - 1
            x, y = run.module.observed(pixels, noise), batch.labels if run.module.conditional else None
            with torch.no_grad():
                drawn = run.module.network(x, noise.stream("posterior").normal(len(x), 1, 3), y)
            terms.append(torch.stack([run.module.network.likelihood.log_prob(drawn.parameters, x), drawn.kl.sum(1)]))
            means.append(run.module.encode(x, batch.labels))
    log_likelihood, kl = torch.cat(terms, dim=1).double().mean(dim=1).tolist()
    assert summary["log_likelihood"] == pytest.approx(log_likelihood, rel=1e-5)
    assert summary["kl"] == pytest.approx(kl, rel=1e-4, abs=1e-4)
    assert summary["elbo"] == pytest.approx(summary["log_likelihood"] - summary["kl"], rel=1e-9)
    assert summary["bits_per_dim"] == pytest.approx(-summary["elbo"] / 784 / math.log(2))
    variances = torch.cat(means).var(dim=0)
    assert summary["active_units"] == int((variances > 0.01).sum()) > 0


def test_a_unit_that_is_switched_off_is_not_active(small, tmp_path, monkeypatch):
    import lit_aigc.train.run as training

    original = training.build

    def built(model_config, spec):
        module = original(model_config, spec)
        last = module.network.encoder.layers[-1]
        last.weight.data[1], last.bias.data[1] = 0, 1  # the mean of the second unit is 1 for all images
        return module

    monkeypatch.setattr(training, "build", built)
    frozen = ["model.optimizer.lr=0.0", "validations=1", f"run_dir={tmp_path}/run", "model.network.encoder.hidden=[]"]
    run = start(small(), *frozen)
    assert run.summary["active_units"] == 2
    assert "bits_per_dim" not in run.summary  # grey levels have no probability


@pytest.mark.parametrize(
    "more",
    [
        ["model.objective={bound: elbo, samples: 3}"],
        ["model.objective={bound: iwae, samples: 3}", "model.conditional=true"],
        ["model.objective={beta: 4.0, warmup: 0.5}"],
        ["model.objective.free_bits=0.2", VAMP],
        ["model.network.decoder.likelihood={_target_: lit_aigc.networks.likelihood.Gaussian}"],
        ["model.network.decoder.likelihood={_target_: lit_aigc.networks.likelihood.DiscretizedLogisticMixture}"],
    ],
)
def test_everything_trains(small, tmp_path, more):
    """In bf16: the bound rises, and the bundle samples like the module."""
    arguments = [a for a in small() if "binarize" not in a]
    if "likelihood=" in more[0]:
        more = ["~model.network.decoder.likelihood", more[0].replace("model.", "+model.", 1)]
    more = [*more, "trainer.precision=bf16-mixed", "model.optimizer.lr=0.01", "budget.batches=20", "log_every=10"]
    run = start(arguments, *more, f"run_dir={tmp_path}/run", "validations=2")
    first, last = (float(row["elbo"]) for row in logged(tmp_path / "run"))
    assert last > first
    bundle = load_bundle(tmp_path / "run/bundle").module
    with run.module.averaged():
        assert torch.equal(bundle.sample(3, noise=Noise(2)), run.module.sample(3, noise=Noise(2)))


def test_free_bits_and_beta_do_what_they_are_for(small, tmp_path):
    kl = {}
    for name, more in {
        "plain": "model.objective.beta=1.0",
        "strict": "model.objective.beta=50.0",
        "free": "model.objective={beta: 50.0, free_bits: 1.0}",
    }.items():
        more = [more, "model.optimizer.lr=0.01", "budget.batches=60", "data.batch_size=32", "validations=1"]
        kl[name] = start(small(), *more, f"run_dir={tmp_path}/{name}").summary["kl"]
    assert kl["strict"] < 0.2 * kl["plain"]
    assert kl["strict"] < 0.5 < kl["free"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("model.network.encoder.latent_dim=0", "latent_dim=0: expected 1 or more"),
        ("model.network.decoder.latent_dim=4", "decoder.latent_dim=4"),
        ("model.objective.bound=elb", "model.objective.bound='elb' is unknown, did you mean 'elbo'?"),
        ("model.objective.freebits=1", "did you mean 'free_bits'?"),
    ],
)
def test_a_user_is_told_in_one_message(command, small, tmp_path, wrong, message):
    outcome = command("train", *small(), wrong, f"run_dir={tmp_path}/run")
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "run").exists()


def test_a_vamp_prior_is_refused_to_a_conditional_model(small, tmp_path):
    with pytest.raises(InputError, match="learned images of a VampPrior have no classes"):
        start(small(), VAMP, "model.conditional=true", f"run_dir={tmp_path}/run")
    assert not (tmp_path / "run").exists()


def test_two_processes_equal_one_on_the_joined_batch(small, tmp_path):
    """Weights to 1e-5, and the bound over all validation images."""
    arguments = [*small(), BINARY, VAMP, "model.recipe.accumulate=2", "budget.batches=6", "validations=2"]
    start(arguments, f"run_dir={tmp_path}/1")
    subprocess.run(
        [sys.executable, "-m", "lit_aigc.train", *arguments, f"run_dir={tmp_path}/2", "trainer.devices=2"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        check=True,
        timeout=300,
    )
    one, two = (checkpoint(tmp_path / devices)["state_dict"] for devices in "12")
    torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-5)
    first, second = (json.loads((tmp_path / devices / "summary.json").read_text()) for devices in "12")
    assert first["samples_seen"] == second["samples_seen"] == 48
    assert first["active_units"] == second["active_units"]
    for key in ("elbo", "log_likelihood", "kl", "bits_per_dim"):
        assert second[key] == pytest.approx(first[key], rel=1e-4)
