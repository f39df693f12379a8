"""Idle cores: from the kernel's clocks, else from the load."""

from __future__ import annotations

import os

import pytest

from lit_aigc.machine.cores import core_count, idle_cores, proc_stat

STAT = """cpu  30 0 0 270 0 0 0 0 0 0
cpu0 {0} 0 0 {1} 7 0 0 0 0 0
cpu1 1 2 3 100 5 6 7 8 0 0
intr 5 6
"""


@pytest.mark.parametrize(
    ("used", "cores", "expected"),
    [([0, 0], {0, 1}, 2), ([30, 2], {0, 1}, 1), ([30, 30], {0, 1}, 0), ([30, 0], {1}, 1), ([30, 0], {0}, 0)],
)
def test_the_clocks_of_our_own_cores_count(used, cores, expected):
    readings = iter([{0: (5, 100), 1: (9, 100)}, {0: (5 + used[0], 130), 1: (9 + used[1], 130)}])
    waited = []
    assert idle_cores(cores=cores, read=lambda: next(readings), load=None, wait=waited.append) == expected
    assert len(waited) == 1 and 0 < waited[0] < 1


def test_the_load_counts_without_clocks():
    for load, expected in ((0.1, 4), (1.2, 3), (9.0, 0)):
        assert idle_cores(cores={0, 1, 2, 3}, read=dict, load=lambda load=load: load, wait=pytest.fail) == expected


def test_the_clocks_of_linux(tmp_path):
    (tmp_path / "stat").write_text(STAT.format(10, 80))
    assert proc_stat(tmp_path / "stat") == {0: (10, 97), 1: (27, 132)}
    assert proc_stat(tmp_path / "none") == {}
    assert 0 <= idle_cores(wait=lambda seconds: None) <= core_count() <= os.cpu_count()
