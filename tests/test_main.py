"""``lit-aigc VERB`` does what ``python -m lit_aigc.VERB`` does, several processes of a training included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lit_aigc.__main__ import verbs

ROOT = Path(__file__).parents[1]
# What pip writes for a console script.
SCRIPT = f"#!{sys.executable}\nfrom lit_aigc.__main__ import main\nif __name__ == '__main__':\n    main()\n"


@pytest.fixture
def script(tmp_path):
    """The path of a console script as pip installs it."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"] == {
        "lit-aigc": "lit_aigc.__main__:main"
    }
    path = tmp_path / "bin" / "lit-aigc"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    path.chmod(0o755)
    return str(path)


def run(*words, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [str(word) for word in words], env=environment, capture_output=True, text=True, check=False, **options
    )


def test_every_verb_is_listed_with_what_it_does():
    known = verbs()
    assert {"train", "generate", "evaluate", "compare", "sweep", "doctor"} <= set(known)
    assert all(known.values())
    for option in ([], ["--help"]):
        done = run(sys.executable, "-m", "lit_aigc", *option)
        assert done.returncode == 0
        for name, text in known.items():
            assert f"  {name:<8}  {text}" in done.stdout


def test_an_unknown_verb_leaves_with_2():
    done = run(sys.executable, "-m", "lit_aigc", "trian")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'trian'" in done.stderr and "train" in done.stderr.partition("known")[2]


def test_the_list_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['hydra'] = None; sys.argv = ['lit-aigc'];"
        "from lit_aigc.__main__ import main; main()"
    )
    assert run(sys.executable, "-c", code).returncode == 0


@pytest.mark.parametrize("arguments", [["train", "--help"], ["generate", "bundel=x"], ["doctor", "--version"]])
def test_a_verb_answers_as_its_module_does(script, arguments):
    module = run(sys.executable, "-m", f"lit_aigc.{arguments[0]}", *arguments[1:])
    for words in ([script], [sys.executable, "-m", "lit_aigc"]):
        done = run(*words, *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (module.returncode, module.stdout, module.stderr)


@pytest.mark.slow
def test_a_training_on_two_processes(script, tiny, tmp_path):
    """The Trainer starts the second process with the words of the first, under whatever name that was started."""
    tiny = [argument for argument in tiny if not argument.startswith("trainer.devices")]
    started = {
        "module": [sys.executable, "-m", "lit_aigc.train", "trainer.devices=2"],
        "list": [sys.executable, "-m", "lit_aigc", "train", "trainer.devices=2"],
        "script": [script, "train", "trainer.devices=2"],
        "torchrun": [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "lit_aigc.train"],
    }
    for name, words in started.items():
        done = run(*words, *tiny, f"run_dir={tmp_path / name}", cwd=tmp_path, timeout=300)
        assert done.returncode == 0, done.stderr
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        assert (summary["status"], summary["batches"], summary["samples_seen"]) == ("done", 4, 32)
        assert "2 processes" in done.stdout


@pytest.mark.slow
def test_a_multirun_by_the_list_of_verbs(script, tiny, tmp_path):
    done = run(script, "train", "-m", "seed=1,2", *tiny, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    seeds = [json.loads(file.read_text())["seed"] for file in (tmp_path / "runs").rglob("summary.json")]
    assert sorted(seeds) == [1, 2]
