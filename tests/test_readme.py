"""The commands of the README and of docs/ parse, their targets exist, their links and pictures lead somewhere."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELLS = ("bash", "sh", "shell", "console")


def shell_commands(markdown: str) -> list[list[str]]:
    """The commands in fenced shell blocks, each as its words.

    Lines that end in a backslash are joined; a comment goes; in a ``console`` block commands are the lines after ``$``.
    Words that set a variable for one command, redirections and what follows a pipe or ``&&`` are not its words.
    """
    found = []
    for language, block in re.findall(r"^```(\w+)[^\n]*\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL):
        if language not in SHELLS:
            continue
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            if language == "console":
                if not line.startswith("$ "):
                    continue
                line = line[2:]
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
            lexer.whitespace_split = True
            words: list[str] = []
            for token in [*lexer, ";"]:
                if set(token) <= set("|&;"):
                    found.append(words)
                    words = []
                else:
                    words.append(token)
    return [stripped for words in found if (stripped := _without_shell_syntax(words))]


def _without_shell_syntax(words: list[str]) -> list[str]:
    while words and re.fullmatch(r"[A-Z_][A-Z0-9_]*=.*", words[0]):
        words = words[1:]
    for i, word in enumerate(words):
        if set(word) <= set("<>") and word:
            return words[:i]
    return words


def local_links(markdown: str) -> list[str]:
    """Targets of links, pictures and HTML ``src``/``href`` that are paths, without their anchors."""
    without_code = re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    without_code = re.sub(r"`[^`\n]*`", "", without_code)
    targets = re.findall(r"\]\(\s*<?([^)\s>]+)", without_code) + re.findall(
        r"(?:src|href)=[\"']([^\"']+)", without_code
    )
    return [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]


def commands(pattern: str) -> list:
    """A parameter for each command of the documents that begins like the pattern."""
    return [
        pytest.param(command, id=f"{document.name}: {' '.join(command)}")
        for document in DOCUMENTS
        for command in shell_commands(document.read_text(encoding="utf-8"))
        if re.match(pattern, " ".join(command))
    ]


LIT_AIGC = commands(r"(\S*/)?python3? -m lit_aigc\.")
MAKE = commands(r"make( |$)")


def test_there_is_a_readme_that_says_how_to_start():
    for found in (LIT_AIGC, MAKE):
        assert any(parameter.id.startswith("README.md") for parameter in found)


@pytest.mark.parametrize("command", LIT_AIGC)
def test_a_command_of_ours_parses(command):
    from lit_aigc.config.compose import compose
    from lit_aigc.config.overrides import config_folder, in_turn

    verb = command[2].removeprefix("lit_aigc.")
    main = importlib.import_module(f"lit_aigc.{verb}.__main__")
    words = [word for word in command[3:] if word not in ("-m", "--multirun")]
    arguments = [in_turn(word, [config_folder()])[0] for word in words]
    if not {"-h", "--help", "--version"} & set(arguments):
        compose(getattr(main, "CONFIG", verb), arguments)


@pytest.mark.parametrize("command", MAKE)
def test_a_make_target_exists(command):
    targets = set(re.findall(r"^([a-z][\w-]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [word for word in command[1:] if "=" not in word and not word.startswith("-")]
    assert set(named) <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_and_pictures_lead_somewhere(document):
    links = local_links(document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_shell_commands_are_found():
    markdown = """
```bash
# a comment
make train ARGS="a=1 b"   # another
LIT_AIGC_DATA=/data python -m lit_aigc.train \\
    experiment=x 'prompt=To be, or not!' > log.txt
cd a && make test; ls | sort
```
```console
$ python -m lit_aigc.generate n=4
some output
```
```python
make nothing
```
"""
    assert shell_commands(markdown) == [
        ["make", "train", "ARGS=a=1 b"],
        ["python", "-m", "lit_aigc.train", "experiment=x", "prompt=To be, or not!"],
        ["cd", "a"],
        ["make", "test"],
        ["ls"],
        ["sort"],
        ["python", "-m", "lit_aigc.generate", "n=4"],
    ]


def test_links_are_found():
    markdown = (
        "[a](docs/a.md#part) ![b](b.png) [c](https://x.y/z) [d](#here) <img src='e.png'> `[f](g)`\n```\n[h](i)\n```\n"
    )
    assert local_links(markdown) == ["docs/a.md", "b.png", "e.png"]
