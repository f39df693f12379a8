"""The walls between the parts of the package, read from the imports in the source.

A wall names the files that it is around and what they may not import, anywhere in the file: an import inside a function
counts, one under ``if TYPE_CHECKING:`` doesn't.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "lit_aigc"
VERBS = tuple(sorted(file.parent.name for file in (ROOT / PACKAGE).glob("*/__main__.py")))
COMMANDS = tuple(f"{verb}/" for verb in VERBS)
PURE = (
    *("networks/", "losses/", "sampling/", "optimization/", "augmentation/", "tokenization/"),
    *("media/", "machine/", "latents/geometry.py"),
    *("errors.py", "spec.py", "noise.py", "files.py", "build.py"),
)


@dataclasses.dataclass(frozen=True)
class Wall:
    """Files (or folders, with a slash at the end) of the package, and modules that they don't import.

    With `inverted`, everything in the package but these.
    """

    around: tuple[str, ...]
    forbidden: tuple[str, ...]
    inverted: bool = False

    def holds_for(self, path: str) -> bool:
        inside = any(path == place or (place.endswith("/") and path.startswith(place)) for place in self.around)
        return inside != self.inverted


def ours(*names: str) -> tuple[str, ...]:
    return tuple(f"{PACKAGE}.{name}" for name in names)


HYDRA = ("hydra", "omegaconf")
WALLS = (
    Wall(PURE, ("lightning", "pytorch_lightning", *HYDRA, *ours("data", "modules", "callbacks", "metrics", *VERBS))),
    Wall(("networks/",), ours("losses")),
    Wall(("modules/",), (*HYDRA, "wandb", *ours("data", "callbacks", "metrics", "runs", *VERBS))),
    Wall(("data/",), ours("modules", "networks", "metrics")),
    Wall(("metrics/",), ours("modules", "data")),
    Wall(("callbacks/",), ("matplotlib",)),
    Wall(("generate/", "runs/"), ours("train", "data")),
    Wall(("compare/", "sweep/"), ours("train")),
    Wall(COMMANDS, ours(*VERBS), inverted=True),
    Wall((*COMMANDS, "config/"), HYDRA, inverted=True),
    Wall(("loggers/wandb.py", "sweep/"), ("wandb",), inverted=True),
    Wall(("tokenization/tokenizers.py", "data/text.py"), ("torchtext",), inverted=True),
    Wall(("tokenization/byte_pairs.py",), ("tokenizers",), inverted=True),
)


def imports(source: str, package: str) -> list[tuple[int, str]]:
    """Line and full name of everything imported; ``from a import b`` gives ``a.b``.

    Args:
        source: Python text.
        package: The package that the file is in, for relative imports.
    """
    tree = ast.parse(source)
    only_for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in only_for_types:
            continue
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            found += [(node.lineno, str(arg.value)) for arg in node.args[:1] if isinstance(arg, ast.Constant)]
    return found


def breaches(package_folder: Path) -> list[str]:
    """Every import that breaks a wall, as ``path:line imports name``."""
    found = []
    for file in sorted(package_folder.rglob("*.py")):
        path = file.relative_to(package_folder)
        package = ".".join([PACKAGE, *path.parent.parts])
        forbidden = {module for wall in WALLS if wall.holds_for(path.as_posix()) for module in wall.forbidden}
        for line, name in imports(file.read_text(encoding="utf-8"), package):
            if any(name == module or name.startswith(module + ".") for module in forbidden):
                found.append(f"{path.as_posix()}:{line} imports {name}")
    return found


def test_no_import_breaks_a_wall():
    assert list((ROOT / PACKAGE).rglob("*.py"))
    assert breaches(ROOT / PACKAGE) == []


def test_every_wall_is_around_something():
    files = [file.relative_to(ROOT / PACKAGE).as_posix() for file in (ROOT / PACKAGE).rglob("*.py")]
    for place in {place for wall in WALLS for place in wall.around}:
        assert any(file == place or (place.endswith("/") and file.startswith(place)) for file in files), place


def test_modules_know_no_datamodule():
    """No import shows it: what a module needs of the data comes with the spec or a batch."""
    files = list((ROOT / PACKAGE / "modules").rglob("*.py"))
    assert files
    assert [file.name for file in files if "datamodule" in file.read_text(encoding="utf-8")] == []


def import_graph(package_folder: Path) -> dict[str, set[str]]:
    """By module, the modules of the package that it imports, at once or later."""
    names = {}
    for file in package_folder.rglob("*.py"):
        parts = file.relative_to(package_folder).with_suffix("").parts
        names[".".join([PACKAGE, *(part for part in parts if part != "__init__")])] = file
    graph: dict[str, set[str]] = {}
    for name, file in names.items():
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        imported = {target for _, target in imports(file.read_text(encoding="utf-8"), package)}
        # `from a import b` names a module, or something in one.
        graph[name] = {own for target in imported for own in (target, target.rpartition(".")[0]) if own in names}
        graph[name] -= {name, PACKAGE}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import each other, round about: the strongly connected components of more than one module."""

    def reached(start: str) -> set[str]:
        seen, left = set(), [start]
        while left:
            new = graph[left.pop()] - seen
            seen |= new
            left += new
        return seen

    reach = {name: reached(name) for name in graph}
    found = {tuple(sorted(n for n in reach[name] if name in reach[n])) for name in graph if name in reach[name]}
    return [list(circle) for circle in sorted(found)]


def test_no_modules_import_each_other_round_about():
    graph = import_graph(ROOT / PACKAGE)
    assert len(graph) > 100 and sum(map(len, graph.values())) > len(graph)
    assert circles(graph) == []


def test_a_circle_is_found(tmp_path):
    for name, source in {
        "a.py": "from lit_aigc.b import f",
        "b.py": "def f():\n    import lit_aigc.deep.c",
        "deep/c.py": "from .. import a",
        "deep/__init__.py": "",
        "d.py": "from lit_aigc.a import g\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lit_aigc.e",
        "e.py": "import lit_aigc.d",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
    assert circles(import_graph(tmp_path)) == [["lit_aigc.a", "lit_aigc.b", "lit_aigc.deep.c"]]


def test_packages_import_nothing_of_their_own():
    """An ``__init__.py`` that imports makes the import of one part pull in the others, walls or not."""
    for file in sorted((ROOT / PACKAGE).rglob("__init__.py")):
        names = [name for _, name in imports(file.read_text(encoding="utf-8"), PACKAGE)]
        assert not [name for name in names if name.partition(".")[0] not in sys.stdlib_module_names], file


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("networks/bad.py", "import lightning as L", ["lightning"]),
        ("networks/bad.py", "from lightning.pytorch import Trainer", ["lightning.pytorch.Trainer"]),
        ("networks/bad.py", "from lit_aigc.losses.vae import free_bits", ["lit_aigc.losses.vae.free_bits"]),
        ("modules/bad.py", "from lit_aigc.runs import bundle", ["lit_aigc.runs.bundle"]),
        ("losses/bad.py", "from lit_aigc.modules.gan import GAN", ["lit_aigc.modules.gan.GAN"]),
        ("losses/bad.py", "from lit_aigc import modules", ["lit_aigc.modules"]),
        ("losses/bad.py", "from ..modules import gan", ["lit_aigc.modules.gan"]),
        ("losses/bad.py", "from .. import modules", ["lit_aigc.modules"]),
        ("spec.py", "def f():\n    import omegaconf", ["omegaconf"]),
        ("noise.py", "import importlib\nimportlib.import_module('lit_aigc.data.images')", ["lit_aigc.data.images"]),
        ("modules/bad.py", "from lit_aigc.callbacks.clock import Clock", ["lit_aigc.callbacks.clock.Clock"]),
        ("modules/bad.py", "try:\n    import wandb\nexcept ImportError:\n    pass", ["wandb"]),
        ("data/bad.py", "import lit_aigc.networks.dcgan", ["lit_aigc.networks.dcgan"]),
        ("metrics/bad.py", "from lit_aigc.data.images import ImageData", ["lit_aigc.data.images.ImageData"]),
        ("generate/run.py", "from lit_aigc.train.__main__ import main", ["lit_aigc.train.__main__.main"]),
        ("runs/bundle.py", "def f():\n    from lit_aigc.data import images", ["lit_aigc.data.images"]),
        ("build.py", "from hydra.utils import instantiate", ["hydra.utils.instantiate"]),
        ("callbacks/bad.py", "def f():\n    import wandb", ["wandb"]),
        ("data/images.py", "import torchtext", ["torchtext"]),
        ("callbacks/bad.py", "if x:\n    pass\nelse:\n    import wandb", ["wandb"]),
    ],
)
def test_a_breach_is_found(tmp_path, path, source, expected):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
    found = breaches(tmp_path)
    assert [entry.rpartition(" ")[2] for entry in found] == expected
    assert all(entry.startswith(path + ":") for entry in found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("networks/fine.py", "import torch\nfrom lit_aigc.spec import DataSpec\nimport lightning_utilities_of_mine"),
        ("networks/fine.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lightning"),
        ("train/__main__.py", "import hydra"),
        ("config/compose.py", "from omegaconf import OmegaConf"),
        ("loggers/wandb.py", "def f():\n    import wandb"),
        ("modules/fine.py", "import lightning\nfrom lit_aigc.networks import dcgan"),
        ("callbacks/fine.py", "from lit_aigc.metrics.frechet import x\nfrom lit_aigc.loggers.csv import STEP"),
        ("losses/fine.py", "text = 'import lightning'\nfrom lit_aigc.loggers.csv import STEP"),
        ("runs/bundle.py", "from lit_aigc.database import x"),
    ],
)
def test_what_stays_within_the_walls_is_not_reported(tmp_path, path, source):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
    assert breaches(tmp_path) == []


HEAVY = ("torch", "torchvision", "torchmetrics", "lightning", "wandb", "matplotlib", "numpy", "PIL")


def modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has after some code, whether or not the code exits."""
    after = "print('\\n' + json.dumps(list(sys.modules)))"
    script = f"import json, sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n{after}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_probe_for_heavy_imports_sees_them():
    assert "numpy" in modules_after("import numpy")


@pytest.mark.parametrize("verb", VERBS)
def test_help_imports_nothing_heavy(verb):
    code = f"import runpy; sys.argv = ['{verb}', '--help']; runpy.run_module('{PACKAGE}.{verb}', run_name='__main__')"
    assert not modules_after(code) & set(HEAVY)
