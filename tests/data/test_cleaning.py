"""What a report of cleaning says."""

from __future__ import annotations

from lit_aigc.data.cleaning import CleaningReport


def test_the_report_names_the_first_and_counts_all() -> None:
    report = CleaningReport(files=9)
    for number in range(7):
        report.add("unreadable", f"{number}.png (cut short)")
    (line,) = report.warnings()
    assert "7 of 9" in line and "0.png (cut short)" in line and "and 2 more" in line and "6.png" not in line
    assert report.counts()["unreadable"] == 7
    assert CleaningReport().warnings() == []
    report = CleaningReport(files=1)
    report.add("other_files", "a.heic")
    report.add("empty_classes", "b", "c")
    assert report.warnings() == ["1 file of other types, left out: a.heic", "2 classes without a training image: b, c"]
