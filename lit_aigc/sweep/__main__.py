"""``python -m lit_aigc.sweep``: search hyperparameters by a W&B sweep file, on this machine alone."""

from __future__ import annotations

import sys
from typing import Any

from lit_aigc.config.command import command
from lit_aigc.config.overrides import split_arguments
from lit_aigc.machine.exit_codes import DONE, FAILED, PAUSED


def main(config: dict[str, Any]) -> int:
    """Run the missing trials, report on all of them, and return the exit code."""
    from lit_aigc.machine.cores import core_count, idle_cores
    from lit_aigc.machine.signals import StopSignals
    from lit_aigc.sweep.plan import Plan
    from lit_aigc.sweep.report import Report
    from lit_aigc.sweep.running import Trials, too_busy

    plan = Plan.from_config(config, split_arguments(sys.argv[1:])[0][1:])
    folder = plan.folder
    folder.claim()
    complete = True
    try:
        if not config["report_only"]:
            search = plan.recall(retry=config["retry"])
            idle = idle_cores()
            if busy := too_busy(plan.parallel, idle, core_count()):
                print(busy)
            with StopSignals(patient=True) as stop:
                complete = Trials(plan, search, stop=stop, idle=idle).run()
        report = Report(plan)
        report.show()
        report.write()
    finally:
        folder.release()
    if not complete:
        print("Paused: repeat the command to resume.")
        return PAUSED
    return DONE if report.best else FAILED


if __name__ == "__main__":
    command("sweep", main)
