import io

import pytest
from rich.console import Console

from lit_aigc.media.console import duration, number, print_results


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (75.4, "1:15"), (59.6, "1:00"), (3675, "1:01:15"), (float("nan"), "-:--"), (float("inf"), "-:--")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (320000, "320,000"),
        (3.21234, "3.212"),
        (0.97551, "0.9755"),
        (12345.6, "12,346"),
        (2.345e-5, "2.345e-05"),
        (-0.25, "-0.2500"),
        (0.0, "0"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ("done", "done"),
        (None, "None"),
    ],
)
def test_number(value, text):
    assert number(value) == text


def test_results_show_metrics_facts_and_whole_paths_but_no_protocol():
    out = io.StringIO()
    summary = {"status": "done", "seed": 1234, "train_seconds": 131.0, "fid_x": 3.21234, "protocol": {"n_fake": 999}}
    path = "runs/" + "long name/" * 15 + "curves.png"
    print_results(summary, {"samples": "s.png", "curves": path}, Console(file=out, width=60))
    lines = [line.strip() for line in out.getvalue().splitlines() if line.strip()]
    words = [line.split() for line in lines]
    assert words[:4] == [["fid_x", "3.212"], ["status", "done"], ["seed", "1234"], ["train_seconds", "2:11"]]
    assert lines[-1] == f"curves   {path}", "on one line, so that it can be copied"
    assert "999" not in out.getvalue()
