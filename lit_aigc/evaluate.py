"""``python -m lit_aigc.evaluate``: a bundle, or images from elsewhere, in numbers with their protocol."""

from __future__ import annotations

import importlib
import json
from typing import Any

from lit_aigc.config import DONE, command
from lit_aigc.errors import InputError

# For each modality a module with `measure(config, subject)`, which returns numbers by key and their protocol.
_MEASURED_BY = {"image": "lit_aigc.evaluation.images", "text": "lit_aigc.evaluation.text"}


def main(config: dict[str, Any]) -> int:
    """Measure what the config asks for, show a table, write JSON and a page, and return the exit code."""
    from lit_aigc.evaluation.checks import check_options
    from lit_aigc.evaluation.places import options, page_file, picture_file, results_file, settled
    from lit_aigc.evaluation.report import write_page
    from lit_aigc.evaluation.table import print_evaluation
    from lit_aigc.files import write_atomically

    check_options(config)
    config = settled(config)
    results, subject = _measured(config)
    written = {"results": results_file(config)}
    write_atomically(written["results"], json.dumps(results | {"options": options(config)}, indent=2) + "\n")
    if config["audit"]:
        written["picture"] = picture_file(config)
    if config["page"]:
        written["page"] = page_file(config)
        write_page(config, results, subject)
    print_evaluation(results, written)
    return DONE


def evaluate(config: dict[str, Any]) -> dict[str, Any]:
    """Metrics of a bundle or a set of images by key, and ``protocol``; with ``audit`` it writes the picture too.

    With ``baseline`` there is ``comparison`` too: how the numbers differ from the baseline's.

    Raises:
        InputError: If the bundle or a set can't be read, or the metrics can't be computed.
    """
    return _measured(config)[0]


def _measured(config: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    from lit_aigc.evaluation.baseline import baseline_results, differences
    from lit_aigc.evaluation.checks import check_options
    from lit_aigc.evaluation.subject import open_subject

    check_options(config)
    baseline = baseline_results(config, evaluate) if config["baseline"] else None
    subject = open_subject(config)
    modality = subject.spec.modality
    if modality not in _MEASURED_BY:
        raise InputError(f"There are no metrics of {modality} yet, only of: {', '.join(_MEASURED_BY)}.")
    values, protocol = importlib.import_module(_MEASURED_BY[modality]).measure(config, subject)
    results = subject.names() | values | {"protocol": protocol}
    if baseline:
        results["comparison"] = differences(baseline, results, str(config["baseline"]))
    return results, subject


if __name__ == "__main__":
    command("evaluate", main)
