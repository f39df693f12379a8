"""A lock with and without `fcntl`, and what else Windows hasn't."""

from __future__ import annotations

import ast
import errno
import importlib.util
import os
import signal
import sys
import types
from pathlib import Path

import pytest

import lit_aigc

PACKAGE = Path(lit_aigc.__file__).parent


def fresh(name: str) -> types.ModuleType:
    """A module of ours as if it were imported for the first time, beside the one that is there."""
    spec = importlib.util.spec_from_file_location(f"fresh_{name}", PACKAGE / "machine" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def windows(monkeypatch):
    """Without what Windows hasn't, and with a stand-in for its own locks."""
    held: dict[int, int] = {}

    def locking(descriptor: int, mode: int, length: int) -> None:
        assert (mode, length, os.lseek(descriptor, 0, os.SEEK_CUR)) == (2, 1, 0)
        open_elsewhere = [other for other in held.values() if other != descriptor]
        if any(os.path.sameopenfile(descriptor, other) for other in open_elsewhere):
            raise PermissionError(errno.EACCES, "Permission denied")
        held[len(held)] = descriptor

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    monkeypatch.delattr(signal, "SIGUSR1")
    return held


def check(lock, path):
    path.touch()
    with path.open("w") as first, path.open() as second, pytest.raises(BlockingIOError):
        lock(first)
        lock(second)


def test_two_can_not_hold_a_lock(tmp_path):
    from lit_aigc.machine.lock import lock

    check(lock, tmp_path / "lock")
    with (tmp_path / "lock").open("w") as file:  # closing lifted it
        lock(file)


def test_without_fcntl(tmp_path, windows, monkeypatch):
    module = fresh("lock")
    check(module.lock, tmp_path / "lock")
    with (tmp_path / "lock").open("w") as first, (tmp_path / "lock").open("w") as second:
        windows.clear()
        module.lock(first)
        waited = []
        monkeypatch.setattr(module.time, "sleep", lambda seconds: (waited.append(seconds), windows.clear()))
        module.lock(second, wait=True)
        assert waited == [0.1]


def test_without_sigusr1(windows):
    assert fresh("signals").STOP == (signal.SIGTERM, signal.SIGINT)


def test_nothing_else_needs_what_windows_has_not():
    for path in PACKAGE.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        assert not names & {"SIGUSR1", "SIGKILL", "SIGHUP", "killpg", "fork"}, path
        assert path.name == "lock.py" or not modules & {"fcntl", "resource", "pwd", "grp"}, path
