"""The table of an evaluation on a terminal of 80 columns."""

from __future__ import annotations

import io

from rich.console import Console

from lit_aigc.evaluate.output import print_evaluation

EXTRACTOR = "fashion_mnist_classifier"
RESULTS = {
    "bundle": "/a/long/path/" + "of-a-run/" * 8 + "bundle",
    "model": "GAN",
    **{f"{name}_{EXTRACTOR}": 12.3456 for name in ("fid", "kid")},
    **{f"{name}_{EXTRACTOR}_standard_error": 0.0123 for name in ("fid", "kid")},
    **{f"{name}_{EXTRACTOR}_low": -12.1234 for name in ("fid", "kid")},
    **{f"{name}_{EXTRACTOR}_high": 12.5678 for name in ("fid", "kid")},
    **{f"{name}_floor_{EXTRACTOR}": 0.0171234 for name in ("fid", "kid")},
    "nll": 81.34,
    "nll_standard_error": 0.21,
    f"memorised_share_{EXTRACTOR}": 0.01,
    "memorised": False,
    "comparison": {
        "baseline": "other/bundle",
        f"fid_{EXTRACTOR}": {
            **{"value": 12.3456, "baseline": 123.4567, "difference": -111.1, "standard_error": 0.5},
            **{"low": -112.1234, "high": -110.1234, "beyond_noise": True},
        },
    },
    "protocol": {EXTRACTOR: {"biased": True}, "likelihood": {}},
}


def test_a_row_for_each_number_and_nothing_cut_at_80_columns():
    out = io.StringIO()
    print_evaluation(RESULTS, {"results": "/a/long/path/" * 8 + "evaluation.json"}, Console(file=out, width=80))
    lines = [line.split() for line in out.getvalue().splitlines() if line.strip()]
    assert "…" not in out.getvalue().replace(" … ", "")
    assert ["bundle", RESULTS["bundle"]] in lines and ["results", "/a/long/path/" * 8 + "evaluation.json"] in lines
    assert [f"kid_{EXTRACTOR}", "12.346", "-12.123", "…", "12.568", "0.01712"] in lines  # two digits of the error
    assert [f"fid_{EXTRACTOR}", "(biased)", "12.346", "-12.123", "…", "12.568", "0.01712"] in lines
    assert ["nll", "81.34", "±", "0.21"] in lines
    assert ["memorised", "False"] in lines
    assert [f"fid_{EXTRACTOR}", "123.5", "-111.1", "beyond", "noise"] in lines
    assert ["-112.1", "…", "-110.1"] in lines
    assert not any(line[0].endswith(("_low", "_high", "_standard_error")) for line in lines)
    assert max(len(line) for line in out.getvalue().splitlines() if "/a/long" not in line) <= 80
