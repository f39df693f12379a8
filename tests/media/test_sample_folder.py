"""A folder of generated images: no mixtures, and an overview that nobody takes for a sample."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.evaluate.run import evaluate
from lit_aigc.generate.run import generate
from lit_aigc.media.image_files import ImageFiles


def make(run, out, *arguments):
    return generate(load("generate", [f"bundle={run}", f"out={out}", *arguments]))


def test_what_generate_writes_is_what_evaluate_reads(tiny_run, tmp_path):
    out = make(tiny_run, tmp_path / "samples", "n=20")  # the run folder stands for its bundle
    assert (out / "grid.png").exists()
    assert len(ImageFiles(out, "fake").contents().images) == 20
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "samples")
    assert ImageFiles(packed, "fake").contents().images == [f"samples/{i:06d}.png" for i in range(20)]
    results = evaluate(load("evaluate", [f"fake={out}", "data=mnist5k", "metrics=[is]"]))
    assert results["protocol"]["mnist_classifier"]["n_fake"] == 20  # on features of digits, as the data are
    for text in ("[]", "no JSON", '{"overview": "/"}', '{"overview": ["grid.png"]}', '{"overview": "elsewhere.png"}'):
        (out / "samples.json").write_text(text)
        assert "grid.png" in ImageFiles(out, "fake").contents().images


def test_a_folder_holds_samples_of_one_set(tiny_run, tmp_path):
    out = make(tiny_run / "bundle", tmp_path / "samples", "n=3")
    first = json.loads((out / "samples.json").read_text())
    assert (first["seed"], first["label"], first["n"], first["overview"]) == (0, None, 3, "grid.png")
    make(tiny_run, out, "n=2", "start=2")  # more of the same
    assert json.loads((out / "samples.json").read_text()) == first | {"n": 4}
    for arguments, differs in ((["seed=1"], "seed"), (["label=3", "seed=1"], "seed and of another label")):
        with pytest.raises(InputError, match=f"out={out} holds samples of another {differs}, and sets can't be mixed"):
            make(tiny_run, out, "n=2", *arguments)
    assert len(list(out.iterdir())) == 4 + 2  # nothing was written
    (out / "samples.json").unlink()
    with pytest.raises(InputError, match="holds samples of unknown origin"):
        make(tiny_run, out, "n=2")


def test_other_pictures_in_the_folder_are_no_samples(tiny_run, tmp_path):
    Image.new("L", (28, 28)).save(tmp_path / "photo.png")
    assert make(tiny_run, tmp_path, "n=2") == tmp_path
