"""The training of the VQ-VAE and its prior, through real runs."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.modules.vqvae import Objective
from lit_aigc.networks.vector_quantizer import VectorQuantizer, perplexity
from lit_aigc.noise import Noise
from lit_aigc.runs.bundle import load_bundle
from lit_aigc.spec import Condition
from lit_aigc.train.run import train

ROOT = Path(__file__).parents[2]
SMALL = (
    "model=vqvae",
    "model.network.quantizer.codes=16",
    "model.network.quantizer.dim=4",
    "model.network.encoder.channels=4",
    "model.network.encoder.blocks=1",
    "model.network.decoder.channels=4",
    "model.network.decoder.blocks=1",
    "model.network.prior.width=8",
    "model.network.prior.layers=1",
    "model.network.prior.heads=2",
    "model.objective.until=1.0",
)


@pytest.fixture
def small(tiny):
    """Arguments of a VQ-VAE's training that takes a fraction of a second."""
    return [argument for argument in tiny if not argument.startswith("model")] + [*SMALL]


def start(arguments, *more):
    return train(load("train", [*arguments, *more]))


def assert_same_state(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, **(tolerance or {"rtol": 0, "atol": 0}), msg=name)


@pytest.mark.parametrize("conditional", [False, True])
def test_trains_logs_and_leaves_a_bundle_with_the_same_samples(small, tmp_path, conditional):
    run = start(small, f"run_dir={tmp_path}/run", f"model.conditional={conditional}", "validations=1")
    assert run.exit_code == 0
    row = {k: v for r in csv.DictReader((tmp_path / "run/metrics.csv").open()) for k, v in r.items() if v}
    for name in ("loss", "reconstruction", "commitment", "prior_nll", "revived_codes", "prior_grad_norm"):
        assert float(row[f"train/{name}"]) >= 0
    assert 1 <= float(row["train/codebook_perplexity"]) <= 16
    with run.module.averaged():
        samples = run.module.sample(5, noise=Noise(0, 62))
        images = next(iter(run.datamodule.real_batches("val"))).images[:4].float().div(127.5).sub(1)
        through = run.module.reconstruct(images)
        codes = run.module.codes(images)
    assert samples.shape == (5, 1, 28, 28)
    assert -1 <= samples.min() < samples.max() <= 1
    assert codes.shape == (4, 49)
    assert 0 <= codes.min() <= codes.max() < 16
    bundle = load_bundle(tmp_path / "run/bundle").module
    assert torch.equal(bundle.sample(5, noise=Noise(0, 62)), samples)
    assert torch.equal(bundle.reconstruct(images), through)
    assert torch.equal(bundle.sample(2, noise=Noise(0, 64)), samples[2:4])
    if conditional:
        labels = Condition(torch.tensor([3, 3, 3, 3, 3]))
        assert not torch.equal(bundle.sample(5, condition=labels, noise=Noise(0, 62)), samples)
    assert not torch.equal(bundle.sample(5, noise=Noise(0, 62), temperature=0.1), samples)


def test_the_validation_is_of_the_whole_split(small, tmp_path):
    run = start(small, f"run_dir={tmp_path}/run", "validations=1")
    module, errors, nll, codes = run.module, [], [], []
    with torch.no_grad(), module.averaged(), module.evaluating():
        for batch in run.datamodule.real_batches("val"):
            images = batch.images.float().div(127.5).sub(1)
            made = module.network(images)
            errors.append((made.images - images).square().mean(dim=(1, 2, 3)))
            nll.append(-module.network.prior.log_prob(made.codes))
            codes.append(made.codes.flatten())
    assert len(torch.cat(errors)) > 64
    assert run.summary["reconstruction"] == pytest.approx(torch.cat(errors).mean().item(), rel=1e-4)
    assert run.summary["prior_nll"] == pytest.approx(torch.cat(nll).mean().item(), rel=1e-4)
    expected = perplexity(torch.bincount(torch.cat(codes)).double())
    assert run.summary["codebook_perplexity"] == pytest.approx(expected.item(), rel=1e-3)


def test_it_learns(small, tmp_path):
    """Reconstructions and the prior get better, and no code stays dead."""
    rates = ("model.optimizer.lr=5e-3", "model.prior_optimizer.lr=1e-2", "model.recipe.schedule=constant")
    more = ("budget.batches=60", "data.batch_size=32", "log_every=5", "validations=0", *rates)
    start(small, f"run_dir={tmp_path}/run", *more)
    rows = [r for r in csv.DictReader((tmp_path / "run/metrics.csv").open()) if r.get("train/loss")]
    first, last = rows[0], rows[-1]
    assert float(last["train/reconstruction"]) < 0.5 * float(first["train/reconstruction"])
    assert float(last["train/prior_nll"]) < float(first["train/prior_nll"]) - 5
    assert min(float(row["train/codebook_perplexity"]) for row in rows) > 3  # a codebook that can not follow falls to 1


def test_resumes_to_the_bit_also_where_the_autoencoder_rests(small, tmp_path):
    more = ["budget.batches=10", "model.objective.until=0.6", "model.network.quantizer.revive_below=0.5"]
    whole = start(small, f"run_dir={tmp_path}/whole", *more)
    for parts in (3, 4, None):
        pause = [f"pause_after.batches={parts}"] if parts else []
        if (tmp_path / "parts").exists():
            run = train(load("train", [f"resume={tmp_path}/parts", *pause]))
        else:
            run = start(small, f"run_dir={tmp_path}/parts", *more, *pause)
    assert run.module.batches == 10
    assert_same_state(whole.module.state_dict(), run.module.state_dict())
    assert_same_state(whole.module.ema.state_dict()["shadow"], run.module.ema.state_dict()["shadow"])


def test_the_autoencoder_rests_after_its_share_and_the_prior_goes_on(small, tmp_path):
    states = {}
    for batches in (4, 8):
        more = ["budget.batches=8", "model.objective.until=0.5", "model.recipe.schedule=constant"]
        pause = [f"pause_after.batches={batches}"] if batches < 8 else []
        states[batches] = start(small, f"run_dir={tmp_path}/{batches}", *more, *pause).module.network.state_dict()
    changed = {name.split(".")[0] for name, t in states[4].items() if not torch.equal(t, states[8][name])}
    assert changed == {"prior"}


def test_the_priors_gradient_stays_in_the_prior(small, tmp_path):
    runs = [
        start(small, f"run_dir={tmp_path}/{lr}", f"model.prior_optimizer.lr={lr}", "validations=0").module.network
        for lr in (0.0, 0.1)
    ]
    for part in ("encoder", "quantizer", "decoder"):
        assert_same_state(getattr(runs[0], part).state_dict(), getattr(runs[1], part).state_dict())
    assert not torch.equal(runs[0].prior.head.weight, runs[1].prior.head.weight)


def test_parts_of_a_batch_are_the_batch(small, tmp_path):
    """Codebook included: it moves once for all parts."""
    runs = [
        start(small, f"run_dir={tmp_path}/{n}", f"model.recipe.accumulate={n}", "budget.batches=3", "validations=0")
        for n in (1, 2)
    ]
    one, two = (run.module.network.state_dict() for run in runs)
    assert_same_state(one, two, rtol=1e-3, atol=1e-4)


def test_the_codebook_starts_from_the_first_batch(small, tmp_path, monkeypatch):
    monkeypatch.setattr(VectorQuantizer, "move", lambda self, statistics: None)
    run = start(small, f"run_dir={tmp_path}/run", "model.optimizer.lr=0", "budget.batches=1", "validations=0")
    quantizer = run.module.network.quantizer
    assert quantizer.started
    with torch.no_grad():
        batch = next(iter(run.datamodule.train_dataloader()))
        z = run.module.network.encoder(batch.images.float().div(127.5).sub(1))
        distance = torch.cdist(quantizer.codebook, z.permute(0, 2, 3, 1).flatten(0, 2)).amin(dim=1)
    assert distance.max() < 1e-3
    assert len(quantizer.codebook.unique(dim=0)) == 16


@pytest.mark.slow
def test_two_processes_equal_one_on_the_joined_batch(small, tmp_path):
    """The codebook and which codes are revived included."""
    more = ["budget.batches=3", "validations=1", "model.network.quantizer.revive_below=0.8"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    arguments = [*small, *more, f"run_dir={tmp_path}/2", "trainer.devices=2"]
    subprocess.run(
        [sys.executable, "-m", "lit_aigc.train", *arguments], env=environment, cwd=tmp_path, check=True, timeout=300
    )
    one = start(small, *more, f"run_dir={tmp_path}/1")
    two = torch.load(tmp_path / "2/checkpoints/last.ckpt", weights_only=True)
    assert_same_state(one.module.state_dict(), two["state_dict"], rtol=1e-3, atol=1e-4)
    results = two["lit_aigc"]["results"]
    for name in ("reconstruction", "prior_nll", "codebook_perplexity"):
        assert results[name] == pytest.approx(one.summary[name], rel=1e-3)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("model.network.quantizer.codes=1", "codes=1: expected 2 or more"),
        ("model.network.decoder.dim=3", "decoder.dim=3: expected quantizer.dim, 4"),
        ("model.network.prior.codes=3", "prior.codes=3: expected quantizer.codes, 16"),
        ("+model.network.prior.size=4", "prior.size=4: expected .* 7"),
        ("model.network.encoder.channels=0", "channels=0: expected 1 or more"),
        ("model.objective.until=0.0", "until=0.0: expected a share"),
        ("model.temperature=0.0", "temperature=0.0: expected a positive number"),
        ("data.image_size=24", "images of 24x24"),
    ],
)
def test_what_does_not_fit_is_told_before_training(small, tmp_path, argument, message):
    with pytest.raises(InputError, match=message):
        start(small, f"run_dir={tmp_path}/run", argument)


def test_wrong_objectives():
    with pytest.raises(InputError, match=r"l1=-1.0: expected a weight"):
        Objective(l1=-1.0)
    with pytest.raises(InputError, match="l1 and l2 are both 0"):
        Objective(l2=0.0)
