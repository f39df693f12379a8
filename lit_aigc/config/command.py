"""Run a verb on the command line: help, exit codes, and one run per combination of values (``-m``)."""

from __future__ import annotations

import errno
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lit_aigc import __version__
from lit_aigc.config.compose import compose, load
from lit_aigc.config.overrides import config_folder, folder_options, groups_in, in_turn, split_arguments
from lit_aigc.errors import InputError
from lit_aigc.files import read_yaml
from lit_aigc.machine.exit_codes import BAD_INPUT, DONE, FAILED
from lit_aigc.runs.processes import RANK_CONFIG, run_command

MULTIRUN = {"-m", "--multirun"}
_CANNOT_WRITE = {
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EFBIG", "EEXIST", "ENOTDIR", "EISDIR", "ENAMETOOLONG")
}
_RESUME = "a training that had begun resumes from its last checkpoint with resume=RUN_DIR."


def command(verb: str, main: Callable[[dict[str, Any]], int]) -> None:
    """Run a verb on the command line's config and leave with its exit code; see `leave_with`."""

    def run(arguments: list[str]) -> int:
        if MULTIRUN & set(arguments):
            return _multirun(verb, arguments)
        if verb == "train" and RANK_CONFIG in os.environ:
            return main(read_yaml(os.environ[RANK_CONFIG]))
        return main(load(verb, arguments))

    leave_with(verb, run, lambda: help_text(verb))


def leave_with(verb: str, run: Callable[[list[str]], int], usage: Callable[[], str]) -> None:
    """Answer ``--help`` and ``--version``, or run a verb on the words of the command line; then leave.

    Exit codes: what `run` returns (0 done, 75 paused and resumable); 2 for bad input, with one message and no
    traceback; 1 for anything else, including Ctrl-C.
    """
    arguments = sys.argv[1:]
    code = DONE
    try:
        if {"-h", "--help"} & set(arguments):
            print(usage())
        elif "--version" in arguments:
            print(f"lit_aigc {__version__}")
        else:
            code = run(arguments)
    except InputError as error:
        print(f"lit_aigc.{verb}: {error}", file=sys.stderr)
        code = BAD_INPUT
    except KeyboardInterrupt:
        print(f"lit_aigc.{verb}: interrupted{f'; {_RESUME}' if verb == 'train' else '.'}", file=sys.stderr)
        code = FAILED
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        advice = f"Free some space, or name another place; {_RESUME}"
        print(f"lit_aigc.{verb}: can't write: {error}. {advice}", file=sys.stderr)
        code = BAD_INPUT
    sys.stdout.flush()
    sys.exit(code)


def help_text(verb: str) -> str:
    """Return a verb's help: its keys with their defaults, and the choices of each group, as ``conf/`` says."""
    folder = config_folder()
    text = (folder / f"{verb}.yaml").read_text(encoding="utf-8")
    body = text.split("\n\n", 1)[-1]
    lines = [
        f"python -m lit_aigc.{verb} [key=value ...]   {_summary(folder / f'{verb}.yaml')}",
        "",
        "  --multirun, -m     one run for each combination of comma-separated values: -m seed=1,2",
        "  --config-dir DIR   configs of your own, laid out like conf/",
        "  --version          print the version of lit_aigc",
        "",
        "Keys and their defaults:",
        *_indented(body),
    ]
    mentioned = re.findall(r"^(?:  - )?(?:optional )?(\w+?)s?:", text, re.MULTILINE)  # ``experiments`` of compare, too
    for group in sorted(groups_in([folder]) & set(mentioned), key=lambda group: (group != "experiment", group)):
        for defaults in sorted((folder / group).glob("*/default.yaml")):
            lines += ["", f"{group}.{defaults.parent.name}.KEY, {_summary(defaults)}"]
            lines += _indented(defaults.read_text(encoding="utf-8").partition("\n")[2])
        files = sorted((folder / group).glob("*.yaml"))
        width = max((len(file.stem) for file in files), default=0)
        lines += ["", f"{group}=NAME:"]
        lines += [f"  {file.stem:<{width}}  {_summary(file)}" for file in files]
    return "\n".join(lines)


def _indented(text: str) -> Iterator[str]:
    return (f"  {line}" for line in text.splitlines() if line)


def _summary(file: Path) -> str:
    """Return the first line of a file that says something."""
    with file.open(encoding="utf-8") as lines:
        return next((line.lstrip("# ").strip() for line in lines if not line.startswith("# @")), "")


def _multirun(verb: str, arguments: list[str]) -> int:
    """Run a verb once per combination of values, and return its exit code.

    Each job is a process of its own, so that jobs on several devices can follow each other.
    """
    folders, overrides = split_arguments([argument for argument in arguments if argument not in MULTIRUN])
    choices = [in_turn(override, folders) for override in overrides]
    jobs = list(itertools.product(*choices))
    own = folder_options(folders[1:])
    config = compose(verb, [*own, *jobs[0]])  # problems show before any job starts
    folder = config.get("run_dir")
    if folder and len(jobs) > 1 and compose(verb, [*own, *jobs[-1]])["run_dir"] == folder:
        raise InputError(f"run_dir={folder} is one folder for {len(jobs)} runs: leave it out, or list one for each.")
    for number, job in enumerate(jobs, 1):
        values = [override.lstrip("+") for override, others in zip(job, choices, strict=True) if len(others) > 1]
        print(f"run {number} of {len(jobs)}: {', '.join(values)}".removesuffix(": "), flush=True)
        code = run_command(verb, [*own, *job])
        if code != DONE:
            return code
    return DONE
