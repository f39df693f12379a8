"""``python -m lit_aigc.doctor``: what this machine has, what training would do with it, and what is wrong."""

from __future__ import annotations

from collections.abc import Sequence

from lit_aigc.config.command import help_text, leave_with
from lit_aigc.config.compose import load
from lit_aigc.errors import InputError
from lit_aigc.machine.exit_codes import BAD_INPUT, DONE

CONFIG = "train"  # the verb whose config it takes


def main(arguments: Sequence[str]) -> int:
    """Examine the machine and an experiment, print the report, and return 0, or 2 if something would stop training.

    Args:
        arguments: As of ``lit_aigc.train``.
    """
    from lit_aigc.doctor.findings import Finding, unfit_packages
    from lit_aigc.doctor.machine import installed
    from lit_aigc.doctor.report import examine, print_findings

    unfit = list(unfit_packages(installed()))
    if any("malware" in finding.what for finding in unfit):  # nothing of it is imported
        print_findings(unfit)
        return BAD_INPUT
    try:
        config = load(CONFIG, list(arguments))
    except InputError as error:
        config = None
        unfit.append(Finding(str(error), "See python -m lit_aigc.train --help.", stops=True))
    found = unfit + examine(config)
    print_findings(found)
    return BAD_INPUT if any(finding.stops for finding in found) else DONE


def usage() -> str:
    """Return what ``--help`` prints."""
    first = "python -m lit_aigc.doctor [key=value ...]   Report what training would do with these, and what is wrong."
    return f"{first}\n\n{help_text(CONFIG)}"


if __name__ == "__main__":
    leave_with("doctor", main, usage)
