"""What the wheel carries, and that it trains where nothing of the source tree is near."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out)]  # by way of the sdist
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


def tree(folder, *suffixes):
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in suffixes and not path.name.startswith(".")
    }


def test_the_wheel_carries_code_configs_and_weights_and_no_tests(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = tree("lit_aigc", ".py", ".css", ".html", ".safetensors", ".json") | {
        f"lit_aigc/{name}" for name in tree("conf", ".yaml")
    }
    assert expected <= names
    assert {name.split("/")[0] for name in names} == {"lit_aigc"}
    assert any(name.startswith("lit_aigc/conf/experiment/") for name in names)
    assert wheel.stat().st_size < 5e6


def test_the_wheel_has_the_version_and_the_licence(wheel):
    import lit_aigc

    assert wheel.name.split("-")[:2] == ["lit_aigc", lit_aigc.__version__]
    metadata = {name.rpartition("/")[2]: name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" in name}
    text = zipfile.ZipFile(wheel).read(metadata["METADATA"]).decode()
    assert "License-Expression: Apache-2.0" in text
    assert "LICENSE" in metadata
    scripts = zipfile.ZipFile(wheel).read(metadata["entry_points.txt"]).decode()
    assert "lit-aigc = lit_aigc.__main__:main" in scripts


@pytest.mark.slow
def test_the_wheel_trains_from_an_empty_folder(wheel, tmp_path):
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    zipfile.ZipFile(wheel).extractall(installed)
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    where = "import lit_aigc; print(lit_aigc.__file__)"
    found = subprocess.run([sys.executable, "-c", where], cwd=empty, env=environment, capture_output=True, text=True)
    assert found.stdout.startswith(str(installed)), found.stderr
    command = [sys.executable, "-m", "lit_aigc.train", "run_dir=run", "budget.samples=null", "budget.batches=3"]
    command += ["callbacks.generative_metrics=null", "log_every=1"]
    done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"config.yaml", "metrics.csv", "summary.json", "samples", "bundle", "curves.png"} <= set(
        os.listdir(empty / "run")
    )
