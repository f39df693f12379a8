import itertools
import os

import pytest

from lit_aigc.errors import InputError
from lit_aigc.files import check_keep, name_at, thin_out, write_atomically


def test_writes_text_and_bytes_and_replaces(tmp_path):
    path = write_atomically(tmp_path / "new" / "a.txt", "ä\n")
    assert path.read_bytes() == "ä\n".encode()
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "a.txt", "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_of_many_files_those_are_kept_that_are_spread_over_the_run(tmp_path):
    others = ["neighbours.png", "0000000003_reconstructions.png", "0000000003.txt", "x0000000003.png"]
    for name in others:
        (tmp_path / name).touch()
    for moment in range(0, 1001):
        (tmp_path / name_at(10 * moment, ".png")).touch()
        thin_out(tmp_path, ".png", keep=9)
    left = sorted(int(name[:-4]) for name in os.listdir(tmp_path) if name not in others)
    assert len(left) == 9 and (left[0], left[-1]) == (0, 10_000)
    steps = [after - before for before, after in itertools.pairwise(left)]
    assert max(steps) <= 10_000 / 4
    assert set(others) < set(os.listdir(tmp_path))


def test_a_number_of_files_that_can_not_be_kept():
    check_keep(2)
    with pytest.raises(InputError, match="keep=1: expected at least 2"):
        check_keep(1)
