import math
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_aigc.loggers.csv import CsvLogger, read_metrics


def lines(logger):
    return logger.path.read_text().splitlines()


def test_columns_come_in_order_of_appearance_and_new_ones_extend_the_header(tmp_path):
    logger = CsvLogger(str(tmp_path / "run"))
    logger.log_metrics({"train/b": 1.5, "train/a": 2.0, "epoch": 0}, step=64)
    logger.log_metrics({"train/a": 3.0}, step=128)
    logger.log_metrics({"fid_x": torch.tensor(0.25), "train/b": 4}, step=192)
    assert lines(logger) == ["samples_seen,train/b,train/a,fid_x", "64,1.5,2.0,", "128,,3.0,", "192,4,,0.25"]


def test_calls_at_one_step_make_one_row(tmp_path):
    logger = CsvLogger(str(tmp_path))
    logger.log_metrics({"a": 1.0}, step=64)
    logger.log_metrics({"a": 1.0, "b": 2.0}, step=128)
    logger.log_metrics({"c": 3.0}, step=128)
    logger.log_metrics({"a": 11.125}, step=128)
    logger.log_metrics({"a": 5.0}, step=192)
    assert lines(logger) == ["samples_seen,a,b,c", "64,1.0,,", "128,11.125,2.0,3.0", "192,5.0,,"]


def test_nothing_to_log_writes_no_row(tmp_path):
    logger = CsvLogger(str(tmp_path))
    logger.log_metrics({"epoch": 3}, step=1)
    assert lines(logger) == ["samples_seen"]


@given(st.lists(st.floats(allow_infinity=True), min_size=1, max_size=8))
def test_floats_read_back_bit_for_bit(tmp_path_factory, values):
    logger = CsvLogger(str(tmp_path_factory.mktemp("run")))
    for step, value in enumerate(values):
        logger.log_metrics({"x": value}, step=step)
    steps, read = read_metrics(logger.path)["x"]
    assert steps == list(range(len(values)))
    for value, again in zip(values, read, strict=True):
        assert math.isnan(again) if math.isnan(value) else struct.pack("d", value) == struct.pack("d", again)


def test_float32_tensors_keep_their_value(tmp_path):
    value = torch.tensor(0.1)
    logger = CsvLogger(str(tmp_path))
    logger.log_metrics({"x": value}, step=0)
    assert torch.tensor(read_metrics(logger.path)["x"][1][0], dtype=torch.float64).float() == value


def test_a_later_logger_continues_the_file_and_drops_a_torn_line(tmp_path):
    first = CsvLogger(str(tmp_path))
    first.log_metrics({"a": 1.0, "b": 2.0}, step=64)
    with first.path.open("a") as file:
        file.write("128,3.")  # as after kill -9
    second = CsvLogger(str(tmp_path))
    second.log_metrics({"b": 4.0}, step=192)
    assert lines(second) == ["samples_seen,a,b", "64,1.0,2.0", "192,,4.0"]


def test_truncate_makes_a_resumed_file_equal_one_written_in_one_go(tmp_path):
    def log(logger, steps):
        for step in steps:
            logger.log_metrics({"loss": step / 7}, step=step)
            if step >= 4:
                logger.log_metrics({"late": step * 2.0}, step=step)

    whole = CsvLogger(str(tmp_path / "whole"))
    log(whole, range(1, 9))
    for checkpoint in range(9):
        folder = tmp_path / str(checkpoint)
        log(CsvLogger(str(folder)), range(1, 7))
        resumed = CsvLogger(str(folder))
        resumed.truncate(min(checkpoint, 6))
        log(resumed, range(min(checkpoint, 6) + 1, 9))
        assert resumed.path.read_bytes() == whole.path.read_bytes()


def test_the_number_of_rows_has_a_bound_and_validations_stay(tmp_path):
    logger = CsvLogger(str(tmp_path), most_rows=20)
    for step in range(1, 201):
        logger.log_metrics({"train/loss": float(step)}, step=step)
        if step % 50 == 0:
            logger.log_metrics({"fid": step / 10}, step=step)
        if step == 100:  # a later start counts what is there
            logger = CsvLogger(str(tmp_path), most_rows=20)
        assert len(lines(logger)) <= 22
    curves = read_metrics(logger.path)
    assert curves["fid"] == ([50, 100, 150, 200], [5.0, 10.0, 15.0, 20.0])
    steps, values = curves["train/loss"]
    assert values == [float(step) for step in steps] and steps[-1] == 200 and len(steps) > 9


def test_truncate_without_a_file_does_nothing(tmp_path):
    CsvLogger(str(tmp_path / "new")).truncate(10)
    assert not (tmp_path / "new").exists()


def test_only_rank_0_writes(tmp_path, monkeypatch):
    from lightning.pytorch.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = CsvLogger(str(tmp_path / "run"))
    logger.log_metrics({"a": 1.0}, step=1)
    assert not logger.path.exists()


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_metrics(tmp_path / "metrics.csv")
