"""The table: numbers worked out by hand, order, protocol, and its place in a file."""

import math

import pytest

from lit_aigc.compare.report import Metric, Report, between_markers, check_targets, markers
from lit_aigc.compare.words import budget_in_words, mean_and_spread, significant
from lit_aigc.errors import InputError

KEY = "fid_mnist_classifier"


@pytest.fixture
def report(made_up, plan):
    """Three experiments: 1, 2, 3 (mean 2, spread 1); 6.5 alone, one seed failed; all failed. The floor is 0.5."""
    records = [
        made_up("slow_mnist", 0, 6.5, commit="aaaaaaa"),
        made_up("slow_mnist", 1, None, status="failed", error="TrainingDiverged: d_loss | is\nnan", exit_code=1),
        made_up("good_mnist", 0, 1.0),
        made_up("good_mnist", 1, 2.0),
        made_up("good_mnist", 2, 3.0, commit="bbbbbbb"),
        made_up("bad_mnist", 0, None, status="failed", metrics={}, protocol={}, exit_code=2, error="no data"),
    ]
    return Report(records, plan("bad_mnist", "slow_mnist", "good_mnist"), None, "slow_mnist")


def test_numbers_worked_out_by_hand(report):
    good, slow, bad = report.rows  # the best first, what has no number last
    assert (good.experiment, good.mean, good.floor, good.excess) == ("good_mnist", 2.0, 0.5, 1.5)
    assert (slow.experiment, slow.mean, slow.excess) == ("slow_mnist", 6.5, 6.0)
    assert (report.ratio(good), report.ratio(slow), report.ratio(bad)) == (0.25, 1.0, None)
    assert math.isnan(bad.mean)
    assert (bad.floor, bad.excess) == (None, None)


def test_the_table(report):
    heads, rows = report.table()
    assert [dict(zip(heads, row, strict=True)) for row in rows] == [
        {
            "experiment": "good_mnist",
            "FID ↓": "2.00 ± 1.00",
            "floor": "0.500",
            "above floor": "1.50",
            "÷ baseline": "0.250",
            "accuracy": "87.5 %",
            "images/s": "200",
            "samples seen": "100,001",
            "seeds": "3",
            "commit": "1234567, bbbbbbb",
        },
        {
            "experiment": "slow_mnist (baseline)",
            "FID ↓": "6.50",
            "floor": "0.500",
            "above floor": "6.00",
            "÷ baseline": "1.00",
            "accuracy": "87.5 %",
            "images/s": "200",
            "samples seen": "100,000",
            "seeds": "1, 1 failed",
            "commit": "aaaaaaa, 1234567",
        },
        dict.fromkeys(heads, "—") | {"experiment": "bad_mnist", "seeds": "0, 1 failed", "commit": "1234567"},
    ]


def test_columns_without_a_number_are_left_out(made_up, plan):
    record = made_up("a", metrics={"val_loss": 1.0}, monitor="val_loss", protocol={})
    assert Report([record], plan("a"), None, None).table()[0] == [
        *("experiment", "val_loss ↓", "above floor", "images/s", "samples seen", "seeds", "commit")
    ]


def test_more_is_better_for_accuracy_and_inception_score(made_up, plan):
    metrics = {"is_mnist_classifier": 8.0, "is_real_mnist_classifier": 9.5, KEY: 1.0}
    records = [made_up("a", metrics=metrics), made_up("b", metrics=metrics | {"is_mnist_classifier": 9.0})]
    report = Report(records, plan("a", "b"), "is_mnist_classifier", "a")
    assert [(row.experiment, row.excess) for row in report.rows] == [("b", 0.5), ("a", 1.5)]
    assert report.table()[0][:4] == ["experiment", "inception score ↑", "real images", "below real"]
    assert Metric("val_accuracy", "max").excess(0.9, None) is None


def test_protocol_failures_and_command_are_in_the_markdown(report):
    text = report.markdown("python -m lit_aigc.compare 'experiments=[a]'", "images/x.png")
    assert text.startswith("![FID of 3 experiments: samples, and quality against training time](images/x.png)\n\n| exp")
    assert "- slow_mnist, seed 1, failed: TrainingDiverged: d_loss / is nan\n" in text
    assert "- bad_mnist, seed 0, failed: no data\n" in text
    for words in (
        "Each run: 10 minutes of training, validation included.",
        "FID on `mnist_classifier` features of 5,000 samples",
        "against 30,000 real images",
        "A CPU, 2 cores, torch 2.14.1, 2026-01-01 to 2026-01-03.",
    ):
        assert words in text
    assert text.endswith("```bash\npython -m lit_aigc.compare 'experiments=[a]'\n```")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert len(table) == 2 + 3


def test_a_deviation_over_seeds_on_different_machines_says_so(made_up, plan):
    one_core = {"cpu": "A CPU", "cores": 1, "gpu": None, "torch": "2.14.1"}
    runs = [made_up("a", 0, 1.0), made_up("a", 1, 2.0)]
    apart = [runs[0], runs[1] | {"machine": one_core}]
    words = [Report(records, plan("a"), None, None).markdown("x", "x.png") for records in (runs, apart)]
    assert "± is the standard deviation over seeds. A CPU, 2 cores, torch" in words[0]
    assert "± is the standard deviation over seeds, which ran on different machines. A CPU, 2 cores" in words[1]


def test_what_was_not_measured_alike_is_refused(made_up, plan):
    other = {"mnist_classifier": {"n_fake": 10000, "n_real": 30000, "extractor_hash": "ab"}}
    with pytest.raises(InputError, match="n_fake 5000 and 10000"):
        Report([made_up("a"), made_up("b", protocol=other)], plan("a", "b"), None, None)
    with pytest.raises(InputError, match="different monitors, fid_mnist_classifier, kid_mnist_classifier"):
        Report([made_up("a"), made_up("b", monitor="kid_mnist_classifier")], plan("a", "b"), None, None)
    with pytest.raises(InputError, match="metric=fid_mnist was not measured, did you mean 'fid_mnist_classifier'"):
        Report([made_up("a")], plan("a"), "fid_mnist", None)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "—"),
        ([0.29712], "0.297"),
        ([1.0, 2.0, 3.0], "2.00 ± 1.00"),
        ([0.0016, 0.0020], "0.00180 ± 0.00028"),
        ([870.4], "870"),
        ([12345.6], "12,346"),
        ([0.0], "0"),
        ([-0.00002], "-0.000020"),
    ],
)
def test_figures(values, text):
    assert mean_and_spread(values) == text


def test_figures_that_are_none():
    assert significant(None) == significant(float("nan")) == "—"


def test_budget():
    assert budget_in_words({"samples": 200_000}) == "200,000 samples"
    assert budget_in_words({"minutes": 0.5, "batches": 10}) == (
        "0.5 minutes of training, validation included or 10 batches"
    )


def test_markers_are_filled_again_and_again(tmp_path):
    begin, end = markers("digits")
    text = f"above\n{begin}\nold\n{end}\nbelow {markers('other')[0]}\n"
    once = between_markers(text, "digits", "new")
    assert once == f"above\n{begin}\nnew\n{end}\nbelow {markers('other')[0]}\n"
    assert between_markers(once, "digits", "new") == once


@pytest.mark.parametrize("text", ["", "{begin}", "{end}\n{begin}", "{begin}{end}\n{begin}{end}"])
def test_a_file_without_its_place_is_refused(tmp_path, text):
    begin, end = markers("x")
    file = tmp_path / "a.md"
    file.write_text(text.format(begin=begin, end=end))
    with pytest.raises(InputError, match="needs these two lines") as error:
        check_targets([str(file)], "x")
    assert begin in str(error.value)
    file.write_text(f"{begin}\n{end}\n")
    check_targets([str(file)], "x")
    with pytest.raises(InputError, match=r"none.md can't be read"):
        check_targets([str(file), str(tmp_path / "none.md")], "x")


def test_table_and_picture_go_into_several_files(report, tmp_path):
    begin, end = markers("digits")
    readme, results = tmp_path / "README.md", tmp_path / "docs" / "results.md"
    results.parent.mkdir()
    for file in (readme, results):
        file.write_text(f"# Title\n\n{begin}\n{end}\n\nmore\n")
    targets = [str(readme), str(results)]
    for _ in range(2):
        report.write("digits", targets, tmp_path / "docs" / "images", "python -m lit_aigc.compare x=1")
        for file, link in ((readme, "docs/images/compare_digits.png"), (results, "images/compare_digits.png")):
            text = file.read_text()
            assert text.startswith(f"# Title\n\n{begin}\n![")
            assert text.endswith(f"\n```\n{end}\n\nmore\n")
            assert f"]({link})" in text
            assert (file.parent / link).stat().st_size > 1000
            assert text.count("| good_mnist |") == 1


def test_without_targets_they_lie_beside_the_records(report, tmp_path):
    report.write("digits", [], tmp_path / "unused", "python -m lit_aigc.compare x=1")
    assert "](digits.png)" in (tmp_path / "digits.md").read_text()
    assert (tmp_path / "digits.png").exists()
    assert not (tmp_path / "unused").exists()


def test_the_terminal_gets_whole_words(report, capsys):
    report.show()
    out = capsys.readouterr().out
    assert "slow_mnist (baseline)" in out
    assert "…" not in out
