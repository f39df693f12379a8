"""Generating from a bundle: files, classes, the same samples whatever is asked for beside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.generate.labels import condition_of
from lit_aigc.generate.run import generate
from lit_aigc.spec import DataSpec
from lit_aigc.train.run import train

CLOTHES = DataSpec("image", (1, 28, 28), num_classes=3, class_names=("T-shirt/top", "Ankle boot", "7"))
DIGITS = DataSpec("image", (1, 28, 28), num_classes=10, class_names=tuple("0123456789"))
PLAIN = DataSpec("image", (1, 28, 28))


@pytest.fixture
def bundle(tiny_run):
    return f"bundle={tiny_run / 'bundle'}"


def pixels(folder, index):
    return np.asarray(Image.open(folder / f"{index:06d}.png"))


def make(bundle, out, *arguments):
    return generate(load("generate", [bundle, f"out={out}", *arguments]))


def test_files_and_a_grid(command, bundle, tmp_path):
    outcome = command("generate", bundle, "n=5", "columns=2", f"out={tmp_path / 'out, of mine'}")
    assert outcome.code == 0, outcome.err
    assert f"5 samples and grid.png are in {tmp_path / 'out, of mine'}" in outcome.out
    files = sorted(file.name for file in (tmp_path / "out, of mine").iterdir())
    assert files == [*(f"{i:06d}.png" for i in range(5)), "grid.png", "samples.json"]
    image = Image.open(tmp_path / "out, of mine" / "000000.png")
    assert (image.size, image.mode) == ((28, 28), "L")
    assert Image.open(tmp_path / "out, of mine" / "grid.png").size == (2 * 28 + 2, 3 * 28 + 4)


def test_the_grid_shows_the_samples(bundle, tmp_path):
    out = make(bundle, tmp_path, "n=3", "columns=3")
    grid = np.asarray(Image.open(out / "grid.png"))
    for i in range(3):
        assert np.array_equal(grid[:, i * 30 : i * 30 + 28], pixels(out, i))


def test_a_sample_depends_on_seed_and_index_alone(bundle, tmp_path):
    many = make(bundle, tmp_path / "many", "n=70")
    rest = make(bundle, tmp_path / "rest", "n=10", "start=60")
    assert sorted(file.name for file in rest.iterdir())[0] == "000060.png"
    for i in range(60, 70):
        assert np.array_equal(pixels(many, i), pixels(rest, i))
    other = make(bundle, tmp_path / "other", "n=1", "seed=1")
    assert not np.array_equal(pixels(many, 0), pixels(other, 0))


def test_twice_is_the_same(bundle, tmp_path):
    one, two = (make(bundle, tmp_path / name, "n=4", "seed=3") for name in "ab")
    assert [file.read_bytes() for file in sorted(one.iterdir())] == [f.read_bytes() for f in sorted(two.iterdir())]


def test_without_a_label_classes_take_turns(bundle, tmp_path):
    turns = make(bundle, tmp_path / "turns", "n=12")
    named = make(bundle, tmp_path / "named", "n=12", "label=[0,1,2,3,4,5,6,7,8,9,0,1]")
    third = make(bundle, tmp_path / "third", "n=12", "label=3")
    for i in range(12):
        assert np.array_equal(pixels(turns, i), pixels(named, i))
    assert np.array_equal(pixels(turns, 3), pixels(third, 3))
    assert not np.array_equal(pixels(turns, 4), pixels(third, 4))


@pytest.mark.parametrize(
    ("label", "expected"),
    [(2, [2, 2]), ("Ankle boot", [1, 1]), ("T-shirt/top", [0, 0]), ([1, "T-shirt/top"], [1, 0]), ("7", [2, 2])],
)
def test_labels_by_index_and_by_name(label, expected):
    assert condition_of(label, 2, CLOTHES).labels.tolist() == expected


def test_a_name_that_is_a_number_is_a_name_where_there_is_no_such_index():
    assert condition_of(7, 1, CLOTHES).labels.tolist() == [2]


def test_no_label_is_the_models_default():
    assert condition_of(None, 2, CLOTHES) is None
    assert condition_of(None, 2, PLAIN) is None


@pytest.mark.parametrize(
    ("label", "spec", "expected"),
    [
        (3, CLOTHES, "label=3 is unknown; known: 0 to 2, 7, Ankle boot, T-shirt/top"),
        ("cat", DIGITS, "label=cat is unknown; known: 0 to 9"),
        (11, DIGITS, "label=11 is unknown; known: 0 to 9"),
        (-1, CLOTHES, "label=-1 is unknown"),
        (1.5, CLOTHES, "label=1.5 is unknown"),
        (True, CLOTHES, "label=True is unknown"),
        ("Ankle boots", CLOTHES, "did you mean 'Ankle boot'?"),
        ([0, 1, 2], CLOTHES, "label has 3 entries for n=2 samples"),
        ([], CLOTHES, "label has 0 entries"),
        (0, PLAIN, "This model has no classes"),
        ("cat", PLAIN, "This model has no classes"),
    ],
)
def test_labels_that_are_refused(label, spec, expected):
    with pytest.raises(InputError) as error:
        condition_of(label, 2, spec)
    assert str(error.value) == expected if spec is DIGITS else expected in str(error.value)


def test_class_names_on_the_command_line():
    for name in ("T-shirt/top", "Ankle boot"):
        assert load("generate", ["bundle=x", f"label={name}"])["image"]["label"] == name
        assert load("generate", ["bundle=x", f"image.label={name}"])["image"]["label"] == name


def test_an_option_under_both_its_names(command):
    assert load("generate", ["bundle=x", "label=1", "image.label=1"])["image"]["label"] == 1
    outcome = command("generate", "bundle=x", "label=1", "image.label=2")
    assert outcome.code == 2
    assert "label=1 and image.label=2" in outcome.err


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("n=0", "n=0: expected a whole number, 1 or more"),
        ("n=-1", "n=-1: expected a whole number, 1 or more"),
        ("n=many", "n=many: expected a whole number"),
        ("n=2.5", "n=2.5: expected a whole number"),
        ("start=-1", "start=-1: expected"),
        ("columns=0", "image.columns=0: expected"),
        ("image.columns=0", "image.columns=0: expected"),
        ("seed=x", "seed=x: expected a whole number"),
        ("label=12", "label=12 is unknown"),
        ("prompt=ROMEO:", "text.prompt: "),
        ("stream=true", "text.stream: "),
        ("max_tokens=5", "text.decoding.max_tokens: "),
        ("text.decoding.temprature=1", "unknown key 'text.decoding.temprature', did you mean 'temperature'?"),
        ("m=3", "unknown key 'm'"),
        ("trust=[no_such_package]", None),
    ],
)
def test_what_is_refused(command, bundle, tmp_path, argument, expected):
    outcome = command("generate", bundle, f"out={tmp_path / 'out'}", "n=1", argument)
    if expected is None:
        assert outcome.code == 0, outcome.err
        return
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"lit_aigc.generate: {expected}")
    assert not (tmp_path / "out").exists()


def test_a_bundle_is_no_place_for_samples(command, tiny_run):
    bundle = tiny_run / "bundle"
    before = sorted(bundle.iterdir())
    outcome = command("generate", f"bundle={bundle}", f"out={bundle}", "n=1")
    assert (outcome.code, outcome.out) == (2, "")
    assert f"out={bundle} is the folder of a bundle" in outcome.err
    assert sorted(bundle.iterdir()) == before


def test_an_unconditional_model(tiny, command, tmp_path):
    run = train(load("train", [*tiny, "model.conditional=false", f"run_dir={tmp_path / 'run'}"]))
    bundle = f"bundle={run.folder.path / 'bundle'}"
    out = make(bundle, tmp_path / "out", "n=2")
    levels = (run.module.sample(2, noise=noise(0)) + 1) * 127.5  # the live weights: another model
    assert levels.shape == (2, 1, 28, 28) and pixels(out, 1).shape == (28, 28)
    outcome = command("generate", bundle, "n=2", "label=1", f"out={tmp_path / 'no'}")
    assert outcome.code == 2
    assert "unconditional" in outcome.err


def noise(seed):
    from lit_aigc.noise import Noise

    return Noise(seed)


def test_samples_are_those_of_the_averaged_weights(tiny, tmp_path):
    run = train(load("train", [*tiny, "model.generator_optimizer.lr=0.1", f"run_dir={tmp_path / 'run'}"]))
    out = make(f"bundle={run.folder.path / 'bundle'}", tmp_path / "out", "n=1", "seed=4")
    with run.module.averaged():
        averaged = run.module.sample(1, noise=noise(4))
    live = run.module.sample(1, noise=noise(4))

    def levels(images):
        return ((images[0, 0] + 1) * 127.5).add(0.5).floor().clamp(0, 255).to(torch.uint8).numpy()

    assert np.array_equal(pixels(out, 0), levels(averaged))
    assert not np.array_equal(pixels(out, 0), levels(live))


def test_a_bundle_of_a_classifier_generates_nothing(command, tiny, tmp_path):
    arguments = [argument for argument in tiny if not argument.startswith("model")]
    run = train(load("train", [*arguments, "model=classifier", "model.network.width=4", f"run_dir={tmp_path / 'run'}"]))
    outcome = command("generate", f"bundle={run.folder.path / 'bundle'}", "n=1", f"out={tmp_path / 'out'}")
    assert outcome.code == 2
    assert "can't generate" in outcome.err


# -- encoding a folder


def train_vae(tiny, folder, *arguments):
    others = [argument for argument in tiny if not argument.startswith("model")]
    small = ["model=vae", "model.network.encoder.latent_dim=3", "model.network.encoder.hidden=[8]"]
    return train(load("train", [*others, *small, *arguments, f"run_dir={folder}"]))


@pytest.fixture(scope="module")
def vae(tiny, tmp_path_factory):
    """The run of a tiny VAE of black and white pixels."""
    binary = "model.network.decoder.likelihood.binarize=true"
    return train_vae(tiny, tmp_path_factory.mktemp("vae") / "run", binary)


@pytest.fixture
def digits(tmp_path):
    """A folder of images in three folders; one of them is in colour and of another size."""
    folder, levels = tmp_path / "digits, mine", np.random.default_rng(0)
    for i in range(7):
        shape = (40, 36, 3) if i == 5 else (28, 28)
        place = folder / "abc"[i % 3] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels.integers(0, 256, shape, dtype=np.uint8)).save(place)
    return folder


def test_the_codes_of_a_folder(command, vae, digits, tmp_path):
    from lit_aigc.media.image_files import read_folder

    ask = [f"bundle={vae.folder.path / 'bundle'}", f"encode={digits}"]
    outcome = command("generate", *ask, f"out={tmp_path / 'out'}")
    assert outcome.code == 0, outcome.err
    assert f"codes.npz, reconstructions.png and map.png are in {tmp_path / 'out'}" in outcome.out.replace("\n", "")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["codes.npz", "map.png", "reconstructions.png"]
    written = np.load(tmp_path / "out" / "codes.npz")
    assert written["names"].tolist() == ["a/0.png", "a/3.png", "a/6.png", "b/1.png", "b/4.png", "c/2.png", "c/5.png"]
    images = read_folder(digits, (1, 28, 28))[0].float() / 127.5 - 1
    with vae.module.averaged():
        expected = vae.module.encode(vae.module.observed(images, noise(0)))
    assert (written["codes"].dtype, written["codes"].shape) == (np.float32, (7, 3))
    assert written["codes"] == pytest.approx(expected.numpy(), abs=1e-4)
    assert command("generate", *ask, f"out={tmp_path / 'again'}").code == 0
    for file in (tmp_path / "out").glob("*.png"):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_few_of_many_images_are_shown(vae, digits, tmp_path):
    ask = [f"bundle={vae.folder.path / 'bundle'}", f"encode={digits}"]
    sizes = []
    for n, columns in ((7, 7), (2, 7), (7, 2)):
        out = generate(load("generate", [*ask, f"n={n}", f"columns={columns}", f"out={tmp_path / f'{n}-{columns}'}"]))
        assert len(np.load(out / "codes.npz")["codes"]) == 7
        sizes.append(Image.open(out / "reconstructions.png").size)
    (wide, low), (few, _), (narrow, high) = sizes
    assert few < wide > narrow and high > low


def test_classes_of_a_conditional_encoder(command, tiny, tmp_path):
    run = train_vae(tiny, tmp_path / "run", "model.conditional=true")
    for name in ("3", "7"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.fromarray(np.full((28, 28), 99, dtype=np.uint8)).save(tmp_path / "images" / name / "a.png")
    ask = [f"bundle={run.folder.path / 'bundle'}", f"encode={tmp_path / 'images'}"]

    def codes(out, *arguments):
        outcome = command("generate", *ask, *arguments, f"out={tmp_path / out}")
        assert outcome.code == 0, outcome.err
        return np.load(tmp_path / out / "codes.npz")["codes"]

    by_folder, all_sevens = codes("folders"), codes("sevens", "label=7")
    assert np.array_equal(by_folder[1], all_sevens[1])
    assert all_sevens[0] == pytest.approx(all_sevens[1], abs=1e-5)
    assert by_folder[0] != pytest.approx(by_folder[1], abs=1e-3)
    (tmp_path / "images" / "7").rename(tmp_path / "images" / "cat")
    outcome = command("generate", *ask, f"out={tmp_path / 'no'}")
    assert outcome.code == 2 and "no class is named like the folder 'cat': give label=..." in outcome.err


def test_what_cannot_be_encoded(command, bundle, vae, digits, tmp_path):
    def refused(*arguments):
        outcome = command("generate", *arguments, f"out={tmp_path / 'out'}")
        assert (outcome.code, outcome.out) == (2, "")
        assert not (tmp_path / "out").exists()
        return outcome.err

    assert "encode needs a model with an encoder, such as a VAE: GAN has none" in refused(bundle, f"encode={digits}")
    encoder = f"bundle={vae.folder.path / 'bundle'}"
    assert "is not a folder" in refused(encoder, f"encode={tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    assert "no images in" in refused(encoder, f"encode={tmp_path / 'empty'}")
    assert "takes no label" in refused(encoder, f"encode={digits}", "label=1")
    assert "image.encode goes without directions" in refused(encoder, f"encode={digits}", "directions=2")
    (digits / "z.png").write_bytes(b"no image")
    assert "z.png can't be read as an image" in refused(encoder, f"encode={digits}")


def test_the_latent_space_of_a_vae_is_drawn_by_the_same_commands(command, vae, tmp_path, monkeypatch):
    monkeypatch.setattr("lit_aigc.latents.explorer.LATENTS", 64)
    ask = [f"bundle={vae.folder.path / 'bundle'}", "directions=2", "interpolate=2", f"out={tmp_path / 'out'}"]
    assert command("generate", *ask).code == 0
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == ["directions.json", "directions.png", "interpolations.png"]
