"""``python -m lit_aigc.evaluate``: metrics of a bundle, or of images from elsewhere, with their protocol."""

from __future__ import annotations

import json
from typing import Any

from lit_aigc.config.command import command
from lit_aigc.machine.exit_codes import DONE


def main(config: dict[str, Any]) -> int:
    """Measure what the config asks for, show a table, write JSON and a page, and return the exit code."""
    from lit_aigc.evaluate.checks import check_options
    from lit_aigc.evaluate.output import options, page_file, picture_file, print_evaluation, results_file, settled
    from lit_aigc.evaluate.page.content import write_page
    from lit_aigc.evaluate.run import measured
    from lit_aigc.files import write_atomically

    check_options(config)
    config = settled(config)
    results, subject = measured(config)
    written = {"results": results_file(config)}
    write_atomically(written["results"], json.dumps(results | {"options": options(config)}, indent=2) + "\n")
    if config["audit"]:
        written["picture"] = picture_file(config)
    if config["page"]:
        written["page"] = page_file(config)
        write_page(config, results, subject)
    print_evaluation(results, written)
    return DONE


if __name__ == "__main__":
    command("evaluate", main)
