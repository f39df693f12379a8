"""``python -m lit_aigc.compare``: experiments under one budget, in one table and one picture."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from lit_aigc.config.command import command
from lit_aigc.config.overrides import split_arguments
from lit_aigc.files import check_writable
from lit_aigc.machine.exit_codes import DONE, FAILED, PAUSED


def main(config: dict[str, Any]) -> int:
    """Train what is missing, report on everything, and return the exit code."""
    from lit_aigc.compare.plan import Comparison
    from lit_aigc.compare.records import newest_records
    from lit_aigc.compare.report import Report, check_targets
    from lit_aigc.compare.running import run_list
    from lit_aigc.runs.processes import TrainingProcesses

    arguments = sys.argv[1:]
    comparison = Comparison.from_config(config, split_arguments(arguments)[0][1:])
    check_targets(config["write"], config["name"])
    check_writable(config["out"], "out", folder=True)
    if config["write"]:
        check_writable(config["images"], "images", folder=True)
    paused = False
    if config["report_only"]:
        records = newest_records(comparison)
    else:
        comparison.check_experiments(config["metric"])
        with TrainingProcesses() as train:
            records, paused = run_list(comparison, train, retry=config["retry"])
    if records:
        report = Report(records, comparison, config["metric"], config["baseline"])
        report.show()
        if not paused:
            made_by = [word for word in arguments if not word.startswith(("report_only=", "retry="))]
            line = shlex.join(["python", "-m", "lit_aigc.compare", *made_by])
            report.write(config["name"], config["write"], Path(config["images"]), line)
    if paused:
        print("Paused: repeat the command to resume.")
        return PAUSED
    return FAILED if any(record["status"] == "failed" for record in records) else DONE


if __name__ == "__main__":
    command("compare", main)
