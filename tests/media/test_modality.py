"""The file of a modality is found by its name, and nothing else asks which modality there is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from lit_aigc.errors import InputError
from lit_aigc.media.modality import of_modality
from lit_aigc.spec import DataSpec

PACKAGE = Path(__file__).parents[2] / "lit_aigc"
ALLOWED = {"callbacks/base.py": 1}
SPECS = {
    "image": DataSpec("image", (3, 32, 16), num_classes=5),
    "text": DataSpec("text", (1024,), vocab_size=3000),
}


def comparisons(source: str) -> list[int]:
    """Lines that compare something's modality."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Compare)
        and any(isinstance(side, ast.Attribute) and side.attr == "modality" for side in [node.left, *node.comparators])
    ]


def test_only_the_base_of_callbacks_compares_modalities():
    found = {
        file.relative_to(PACKAGE).as_posix(): len(lines)
        for file in sorted(PACKAGE.rglob("*.py"))
        if (lines := comparisons(file.read_text(encoding="utf-8")))
    }
    assert found == ALLOWED


@pytest.mark.parametrize("source", ["x = spec.modality == 'text'", "if 'a' != m.spec.modality: pass"])
def test_a_comparison_is_found(source):
    assert comparisons(source) == [1]


@pytest.mark.parametrize("package", ["generate", "evaluate", "media"])
@pytest.mark.parametrize(("modality", "name"), [("image", "images"), ("text", "text")])
def test_each_has_a_file(package, modality, name):
    assert of_modality(package, modality).__name__ == f"lit_aigc.{package}.{name}"


def test_a_modality_without_a_file_is_one_message():
    with pytest.raises(InputError, match=r"'smell'.*lit_aigc\.generate"):
        of_modality("generate", "smell")


def test_how_samples_are_described():
    said = {name: of_modality("media", name).describe(spec) for name, spec in SPECS.items()}
    assert said == {"image": "32x16, 3 channels", "text": "vocabulary 3,000, context 1,024"}


@pytest.mark.parametrize("modality", SPECS)
def test_the_example_of_generate_is_a_command_that_composes(modality):
    import shlex

    from lit_aigc.config.compose import load

    example = of_modality("media", modality).EXAMPLE
    assert load("generate", shlex.split(example))["n"] > 1
