"""The public Python API, and the notebook that shows it."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import lit_aigc

ROOT = Path(__file__).parents[1]


def test_every_public_name_is_there_and_documented():
    page = (ROOT / "docs" / "python.md").read_text()
    for name in lit_aigc.__all__:
        assert getattr(lit_aigc, name) is not None
        assert name == "__version__" or re.search(rf"\b{name}\b", page), name
    assert dir(lit_aigc) == sorted(lit_aigc.__all__)
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = lit_aigc.nothing_of_this_name


def test_from_a_config_to_pictures_and_numbers(tiny, tmp_path):
    config = lit_aigc.compose("train", [*tiny, f"run_dir={tmp_path}/run"])
    data = lit_aigc.build_data(config)
    module = lit_aigc.build_module(config, data)
    assert module.spec == data.spec
    run = lit_aigc.fit(config)
    assert run.summary["status"] == "done"
    assert any(not torch.equal(a, b) for a, b in zip(module.parameters(), run.module.parameters(), strict=True))

    bundle = lit_aigc.load_bundle(run.bundle)
    pictures = lit_aigc.sample(bundle, 3, label=7, seed=5, start=1)
    images = bundle.module.sample(3, condition=lit_aigc.Condition(torch.tensor([7, 7, 7])), noise=lit_aigc.Noise(5, 1))
    assert [picture.tobytes() for picture in pictures] == [p.tobytes() for p in lit_aigc.decode(images, bundle.module)]
    assert pictures[0].size == (28, 28)
    with pytest.raises(lit_aigc.InputError, match="label=11"):
        lit_aigc.sample(bundle, 3, label=11)

    overrides = [f"bundle={run.bundle}", "data=mnist5k", "num_samples=64", "metrics=[is]", "floor=false", "page=false"]
    numbers = lit_aigc.measure(lit_aigc.compose("evaluate", overrides))
    assert 1 <= numbers["is_mnist_classifier"] <= 10


@pytest.mark.slow
def test_the_notebook_runs_and_shows_pictures(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(ROOT / "notebooks" / "tour.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()

    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) == 10
    shown = [output.data for cell in code for output in cell.outputs if output.output_type == "execute_result"]
    drawn = [Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) for data in shown if "image/png" in data]
    assert len(drawn) == 3
    assert all(low < 64 and high > 192 for low, high in (picture.getextrema() for picture in drawn))  # not blank
    assert any(data["text/plain"] == "(10, 1.0)" for data in shown)
    assert "The function " in code[-1].outputs[-1].text
