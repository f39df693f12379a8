"""Trainings and functions in processes of their own, forked from one that has imported everything already.

A fresh Python needs seconds to import torch and Lightning; a fork needs none. What it can't show is what is imported.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import sys
import types
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_CHILD = "__child__"
_IMPORTED = ("lit_aigc.train.run", "lit_aigc.data.images", "lit_aigc.modules.gan", "lit_aigc.metrics.generative")


def start(function: Callable[..., Any], *arguments: Any, **environment: str) -> ForkServerProcess:
    """Call a function of a module in a new process, with the environment that this process has now, and more."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    call = ({**os.environ, **environment}, os.getcwd(), function.__module__, function.__name__, arguments)
    process = context.Process(target=runpy.run_path, args=(__file__, {"call": call}, _CHILD))
    process.start()
    return process


def start_training(*arguments: str, **environment: str) -> ForkServerProcess:
    """``python -m lit_aigc.train`` with these arguments."""
    return start(_train, arguments, **environment)


def end(*processes: ForkServerProcess, timeout: float = 300) -> list[int | None]:
    """Wait for processes; their exit codes. None: one that did not end in time, and was killed."""
    codes = []
    for process in processes:
        process.join(timeout)
        codes.append(process.exitcode)
        if process.is_alive():
            process.kill()
            process.join()
    return codes


def _call(environment: Mapping[str, str], folder: str, module: str, function: str, arguments: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    getattr(importlib.import_module(module), function)(*arguments)


def _train(arguments: tuple[str, ...]) -> None:
    sys.argv = ["train.py", *arguments]
    runpy.run_module("lit_aigc.train", run_name="__main__", alter_sys=True)


if __name__ == _CHILD:
    tests = types.ModuleType("tests")  # some package that is installed may have this name too
    tests.__path__ = [str(Path(__file__).parent)]
    sys.modules["tests"] = tests
    _call(*call)  # noqa: F821 - given by `start`
