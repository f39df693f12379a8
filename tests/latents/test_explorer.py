"""Pictures of a latent space: what is drawn where, and the commands that draw it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import lit_aigc.latents.explorer as exploration
from lit_aigc.build import build, locate, resolve
from lit_aigc.config.compose import compose
from lit_aigc.config.overrides import config_folder
from lit_aigc.errors import InputError
from lit_aigc.generate.latents import classifier_of
from lit_aigc.latents.explorer import REACH, STEPS, Explorer
from lit_aigc.latents.geometry import great_circle
from lit_aigc.modules.latent import LatentModule
from lit_aigc.noise import Noise
from lit_aigc.spec import Condition, DataSpec
from lit_aigc.train.run import train

SIDE = 48  # shown as it is
NAMES = ("dark", "bright")


class Painter(nn.Module):
    """Grey images: 0.1 times the first latent value and 0.05 times the second; a class adds its embedding."""

    def __init__(self, num_classes):
        super().__init__()
        self.layer = nn.Linear(3, 2, bias=False)
        self.layer.weight.data = torch.tensor([[0.1, 0, 0], [0, 0.05, 0]])
        self.embedding = nn.Embedding(num_classes, 1) if num_classes else None
        if num_classes:
            self.embedding.weight.data = torch.tensor([[-0.3], [0.3]])


class Toy(LatentModule):
    """A model around `Painter`, whose latents are noise times `scale` plus `shift`."""

    latent_dim = 3

    def __init__(self, conditional=True, scale=1.0, shift=0.0):
        super().__init__(DataSpec("image", (1, SIDE, SIDE), num_classes=2, class_names=NAMES), conditional)
        self.generator = Painter(2 if conditional else 0)
        self.scale, self.shift = scale, shift

    def latents_of(self, eps, labels):
        return self.scale * eps + self.shift

    def images_of(self, z, labels):
        assert (labels is None) != self.conditional
        level = self.generator.layer((z - self.shift) / self.scale).sum(dim=1, keepdim=True)
        level = level + self.generator.embedding(labels) if self.conditional else level
        return level[..., None, None].expand(-1, 1, SIDE, SIDE)


class Brightness(nn.Module):
    """Says whether an image is dark or bright."""

    name, num_classes = "brightness", 2

    def forward(self, images):
        mean = images.float().mean(dim=(1, 2, 3)) - 127.5
        return mean[:, None], torch.stack([-mean, mean], dim=1)


def cells(sheet, columns, rows, left=None):
    """Levels in the middle of the cells of the panel that begins at `left`, or at the first run of one level."""
    page = np.asarray(sheet).astype(int)[..., 0]
    windows = np.lib.stride_tricks.sliding_window_view(page, (SIDE, SIDE))
    tops, lefts = np.where((windows.max((2, 3)) == windows.min((2, 3))) & (windows[..., 0, 0] < 250))
    top, left = tops.min(), left or lefts[tops == tops.min()].min()
    pitch = SIDE + 2
    return [[page[top + 24 + pitch * y, left + 24 + pitch * x] for x in range(columns)] for y in range(rows)], left


def level(value):
    return int(np.floor((value + 1) * 127.5 + 0.5))


def test_walks_along_the_principal_directions_of_the_first_layer():
    explorer = Explorer(Toy(), seed=3)
    assert torch.equal(explorer.latents(2), Noise(3).stream("latent").normal(2, 3))
    sheet, facts = explorer.principal(2)
    assert facts["layer"] == "layer"
    assert facts["explained_variance"] == pytest.approx([0.8, 0.2], abs=0.01)
    assert facts["explained_variance_together"] == pytest.approx(1)
    first, second = (torch.tensor(direction) for direction in facts["directions"])
    assert first.abs() == pytest.approx([1, 0, 0], abs=0.05)
    assert second.abs() == pytest.approx([0, 1, 0], abs=0.05)
    assert first[2] == second[2] == 0, "the layer sees nothing of the third"
    start = explorer.latents(2)[0]
    expected = []
    for direction in (first, second):
        moved = start + torch.linspace(-REACH, REACH, STEPS)[:, None] * direction - (start @ direction) * direction
        expected.append([level(0.1 * z[0] + 0.05 * z[1] - 0.3) for z in moved.tolist()])
    assert np.abs(np.array(cells(sheet, STEPS, 2)[0]) - expected).max() <= 1


def test_a_prior_of_another_scale_and_place_is_told_in_its_own_standard_deviations():
    plain, moved = Explorer(Toy(), seed=3), Explorer(Toy(scale=5.0, shift=-20.0), seed=3)
    assert torch.allclose(moved.latents(4), plain.latents(4), atol=1e-4)
    for draw in (
        lambda explorer: explorer.principal(2)[0],
        lambda explorer: explorer.interpolations(2, 5),
        lambda explorer: explorer.between_classes(),
    ):
        both = [np.asarray(draw(explorer)).astype(int) for explorer in (plain, moved)]
        assert np.abs(both[0] - both[1]).max() <= 1


def test_the_classes_of_walks_can_be_asked_for():
    explorer = Explorer(Toy())
    plain, _ = explorer.principal(1)  # classes 0 and 1
    both, _ = explorer.principal(1, Condition(torch.tensor([1, 1])))
    (plain_row,), _ = cells(plain, STEPS, 1)
    (row,), _ = cells(both, STEPS, 1)
    assert row[3] - plain_row[3] == pytest.approx(0.6 * 127.5, abs=2)


def test_class_means_of_an_unconditional_model_lead_to_the_class():
    sheet, facts = Explorer(Toy(conditional=False)).class_means(Brightness())
    assert facts["share_of_samples"] == pytest.approx({"dark": 0.5, "bright": 0.5}, abs=0.02)
    assert sum(facts["share_of_samples"].values()) == pytest.approx(1)
    towards = torch.tensor([2.0, 1.0, 0]) / 5**0.5  # the gradient of the brightness
    assert torch.tensor(facts["directions"]["bright"]) @ towards > 0.99
    assert facts["share_at_3"]["bright"] > 0.95 < facts["share_at_3"]["dark"]
    (dark, bright), _ = cells(sheet, STEPS, 2)
    assert bright == sorted(bright) and bright[-1] > bright[0] + 50
    assert dark == sorted(dark, reverse=True)


def test_between_classes_the_latent_stays_and_the_embedding_moves():
    explorer = Explorer(Toy(), seed=1)
    (to_bright, to_dark), _ = cells(explorer.between_classes(), STEPS, 2)
    z = explorer.latents(1)[0]
    shade = float(0.1 * z[0] + 0.05 * z[1])
    expected = [level(shade - 0.3 + 0.6 * i / (STEPS - 1)) for i in range(STEPS)]
    assert np.abs(np.array(to_bright) - expected).max() <= 1
    assert to_dark == to_bright[::-1]


def test_interpolations_go_from_one_sample_to_the_next():
    explorer = Explorer(Toy(), seed=2, start=4)
    (first, second), _ = cells(explorer.interpolations(2, 5), 5, 2)
    z = Noise(2, 4).stream("latent").normal(4, 3)
    for row, ends, shade in ((first, z[:2], -0.3), (second, z[2:], 0.3)):
        path = great_circle(*ends, 5).tolist()
        assert np.abs(np.array(row) - [level(0.1 * p[0] + 0.05 * p[1] + shade) for p in path]).max() <= 1


def test_what_cannot_be_explored_is_refused():
    with pytest.raises(InputError, match="need a model with latents, such as a GAN or a VAE: Linear has none"):
        Explorer(nn.Linear(1, 1))
    with pytest.raises(InputError, match="unconditional"):
        Explorer(Toy(conditional=False)).interpolations(1, 2, Condition(torch.tensor([1])))
    with pytest.raises(InputError, match="from 1 to 2"):
        Explorer(Toy()).principal(3)


def has_latents(name):
    target = compose("train", [f"model={name}"])["model"]["_target_"]
    return issubclass(locate(target), LatentModule)


MODELS = sorted(file.stem for file in (config_folder() / "model").glob("*.yaml"))
LATENT_MODELS = [name for name in MODELS if has_latents(name)]


@pytest.mark.parametrize("name", LATENT_MODELS)
@pytest.mark.parametrize("conditional", [False, True])
def test_every_model_with_latents_has_a_first_layer_and_classes_to_go_between(name, conditional, monkeypatch):
    monkeypatch.setattr(exploration, "LATENTS", 32)
    monkeypatch.setattr(exploration, "STEPS", 2)
    shape = (3, 32, 32) if "colour" in name else (1, 28, 28)
    spec = DataSpec("image", shape, num_classes=3, class_names=("a", "b", "c"))
    config = {**compose("train", [f"model={name}"])["model"], "conditional": conditional}
    explorer = Explorer(build(resolve(config, spec), spec))
    _, facts = explorer.principal(2)
    shares = facts["explained_variance"]
    assert 1 >= shares[0] >= shares[1] > 0
    assert np.linalg.norm(facts["directions"], axis=1) == pytest.approx([1, 1], abs=1e-4)
    if conditional:
        assert explorer.between_classes().size[0] > 4 * 28


def build_model(*arguments):
    spec = DataSpec("image", (1, 28, 28))
    config = compose("train", list(arguments))["model"]
    return build(resolve({**config, "conditional": False}, spec), spec)


def test_directions_of_a_hierarchy_are_of_the_latents_that_enter_first(monkeypatch):
    monkeypatch.setattr(exploration, "LATENTS", 64)
    small = ["model.network.channels=4", "model.network.latent_dim=3", "model.network.map_latents=[2,1]"]
    explorer = Explorer(build_model("model=hvae", *small))
    _, facts = explorer.principal(2)
    directions = np.array(facts["directions"])
    assert directions.shape == (2, 3 + 2 * 7**2 + 14**2)
    assert (directions[:, :3] != 0).all() and not directions[:, 3:].any()
    with pytest.raises(InputError, match="from 1 to 3"):
        explorer.principal(4)


def test_a_vampprior_is_explored_where_its_latents_are(monkeypatch):
    monkeypatch.setattr(exploration, "LATENTS", 64)
    prior = ["model.network.prior._target_=lit_aigc.networks.prior.VampPrior", "model.network.encoder.latent_dim=3"]
    module = build_model("model=vae", *prior)
    module.network.encoder.layers[-1].bias.data[:3] = 40.0
    explorer = Explorer(module)
    assert explorer.mean == pytest.approx([40.0] * 3, abs=0.5)
    assert explorer.latents(500).mean(dim=0) == pytest.approx([0.0] * 3, abs=0.3)
    assert explorer.principal(2)[1]["layer"] == "decoder.layers.0"


@pytest.fixture
def unconditional(tiny, tmp_path):
    run = train(load_config([*tiny, "model.conditional=false", f"run_dir={tmp_path / 'run'}"]))
    return run.folder.path / "bundle"


def load_config(arguments):
    from lit_aigc.config.compose import load

    return load("train", arguments)


def read(folder, name):
    return np.asarray(Image.open(folder / name))


def test_the_commands_on_a_conditional_bundle(command, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(exploration, "LATENTS", 256)
    ask = [f"bundle={tiny_run / 'bundle'}", "directions=3", "interpolate=2"]
    outcome = command("generate", *ask, f"out={tmp_path / 'a'}")
    assert outcome.code == 0, outcome.err
    assert f"pictures of the latent space are in {tmp_path / 'a'}" in outcome.out
    names = ["classes.png", "directions.json", "directions.png", "interpolations.png"]
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == names
    facts = json.loads((tmp_path / "a" / "directions.json").read_text())
    assert len(facts["explained_variance"]) == len(facts["directions"]) == 3
    assert command("generate", *ask, f"out={tmp_path / 'b'}").code == 0
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_ends_of_an_interpolation_are_the_samples(command, tiny_run, tmp_path):
    ask = [f"bundle={tiny_run / 'bundle'}", "label=3", f"out={tmp_path}"]
    assert command("generate", *ask, "interpolate=1", "columns=4").code == 0
    assert command("generate", *ask, "n=2").code == 0
    page = read(tmp_path, "interpolations.png").astype(int)[..., 0]
    for index in range(2):
        sample = np.kron(read(tmp_path, f"00000{index}.png"), np.ones((2, 2), int))  # as large as the sheet shows it
        windows = np.lib.stride_tricks.sliding_window_view(page, sample.shape)
        sparse = np.abs(windows[..., ::9, ::9] - sample[::9, ::9]).max((2, 3)) <= 1
        assert any(np.abs(windows[y, x] - sample).max() <= 1 for y, x in np.argwhere(sparse))


def test_an_unconditional_bundle_with_a_classifier(command, unconditional, tmp_path, monkeypatch):
    monkeypatch.setattr(exploration, "LATENTS", 256)
    monkeypatch.setattr(exploration, "_MOVED", 8)
    ask = [f"bundle={unconditional}", "directions=2", f"out={tmp_path / 'out'}"]
    assert command("generate", *ask, "extractor=mnist_classifier").code == 0
    facts = json.loads((tmp_path / "out" / "directions.json").read_text())
    assert sum(facts["classes"]["share_of_samples"].values()) == pytest.approx(1)
    assert set(facts["classes"]["share_of_samples"]) == set("0123456789")
    assert (tmp_path / "out" / "classes.png").exists()


def test_without_a_classifier_of_training_there_is_no_picture_of_classes(command, unconditional, tmp_path, monkeypatch):
    monkeypatch.setattr(exploration, "LATENTS", 64)
    assert command("generate", f"bundle={unconditional}", "directions=2", f"out={tmp_path / 'out'}").code == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["directions.json", "directions.png"]


def test_the_classifier_of_training_is_taken_if_it_fits():
    class Bundle:
        spec = DataSpec("image", (1, 28, 28), num_classes=10)
        manifest = {"protocol": {"nearest_distance": {"extractor": None}, "mnist_classifier": {}}}  # noqa: RUF012

    assert classifier_of(Bundle, None).name == "mnist_classifier"
    assert classifier_of(Bundle, "fashion_mnist_classifier").name == "fashion_mnist_classifier"
    Bundle.spec = DataSpec("image", (1, 28, 28), num_classes=3)
    assert classifier_of(Bundle, None) is None
    with pytest.raises(InputError, match="mnist_classifier has 10 classes, the data has 3"):
        classifier_of(Bundle, "mnist_classifier")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("directions=0", "directions=0: expected a whole number"),
        ("directions=2.5", "directions=2.5: expected a whole number"),
        ("interpolate=-1", "interpolate=-1: expected a whole number"),
        ("directions=9", "9 directions of a latent space of 4 dimensions"),
    ],
)
def test_numbers_that_are_refused(command, tiny_run, tmp_path, argument, expected):
    outcome = command("generate", f"bundle={tiny_run / 'bundle'}", argument, f"out={tmp_path / 'out'}")
    assert (outcome.code, outcome.out) == (2, "")
    assert expected in outcome.err
    assert not (tmp_path / "out").exists()


def test_labels_of_an_unconditional_bundle_are_refused(command, unconditional, tmp_path):
    for ask in ("directions=2", "interpolate=2"):
        outcome = command("generate", f"bundle={unconditional}", ask, "label=1", f"out={tmp_path / 'out'}")
        assert outcome.code == 2
        assert "unconditional" in outcome.err
