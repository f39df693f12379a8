import io
import types

import pytest
import torch
from rich.console import Console

from lit_aigc.callbacks import progress
from lit_aigc.callbacks.progress import Progress


class Clock:
    """Time that a test sets."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def make_run(is_global_zero=True):
    trainer = types.SimpleNamespace(is_global_zero=is_global_zero, callback_metrics={})
    module = types.SimpleNamespace(samples_seen=0, progress=0.0, train_seconds=0.0, samples_per_second=35.5, recent={})
    return trainer, module


def train(bar, trainer, module, clock, batches, seconds=0.125):
    for _ in range(batches):
        clock.now += seconds
        module.samples_seen += 64
        module.train_seconds += seconds
        module.progress = module.samples_seen / 64000
        bar.on_train_batch_end(trainer, module, None, None, 0)


def test_plain_lines_come_every_ten_seconds_and_tell_where_training_is(clock):
    out = io.StringIO()
    trainer, module = make_run()
    bar = Progress(console=Console(file=out, width=40))
    bar.on_train_start(trainer, module)
    module.recent = {"d_loss": 0.61234, "g_loss": 1.5}
    train(bar, trainer, module, clock, 500)
    lines = out.getvalue().splitlines()
    assert len(lines) == 7, "the first after 2 seconds, so that one sees that it runs"
    assert lines[1] == " 10% | 6,144 samples | 512/s now | 0:12 elapsed | 1:53 left | d_loss 0.6123 | g_loss 1.500"
    assert "\x1b" not in out.getvalue()


def test_plain_lines_name_what_validation_measured(clock):
    out = io.StringIO()
    trainer, module = make_run()
    bar = Progress(console=Console(file=out), metrics=2)
    bar.on_train_start(trainer, module)
    train(bar, trainer, module, clock, 10)
    bar.on_validation_start(trainer, module)
    trainer.callback_metrics = {"train/d_loss": 1.0, "fid_x": torch.tensor(3.25), "is_x": 9.0, "kid_x": 1.0}
    bar.on_validation_end(trainer, module)
    assert out.getvalue() == "validation at 640 samples: fid_x 3.250, is_x 9.000\n"


def test_samples_per_second_leave_validation_out(clock):
    trainer, module = make_run()
    bar = Progress(console=Console(file=io.StringIO()))
    bar.on_train_start(trainer, module)
    train(bar, trainer, module, clock, 200)
    assert bar._speed() == pytest.approx(512)
    bar.on_validation_start(trainer, module)
    clock.now += 60
    bar.on_validation_end(trainer, module)
    assert bar._speed() == pytest.approx(512), "as it was, while there is nothing newer"
    clock.now += 30  # a checkpoint is written
    train(bar, trainer, module, clock, 200)
    assert bar._speed() == pytest.approx(512)


def test_a_terminal_gets_at_most_four_pictures_a_second(clock):
    out = io.StringIO()
    trainer, module = make_run()
    bar = Progress(console=Console(file=out, force_terminal=True, width=120))
    bar.on_train_start(trainer, module)
    pictures = []
    draw = bar._picture
    bar._picture = lambda *args: pictures.append(1) or draw(*args)
    module.recent = {"d_loss": 0.5}
    train(bar, trainer, module, clock, 1000, seconds=0.01)
    assert 38 <= len(pictures) <= 40
    trainer.callback_metrics = {"fid_x": 3.25}
    bar.on_validation_start(trainer, module)
    bar.on_validation_end(trainer, module)
    module.progress = 1.0
    bar.on_train_end(trainer, module)
    text = out.getvalue()
    for word in ("training", "validating", "done", "d_loss 0.5000", "fid_x 3.250", "/s now", "left"):
        assert word in text
    assert "35.50/s overall" in text, "at the end the rate is the one that the summary gives"
    shown = len(pictures)
    train(bar, trainer, module, clock, 100)
    assert len(pictures) == shown, "closed"


def test_a_stop_before_the_end_is_no_success(clock):
    out = io.StringIO()
    trainer, module = make_run()
    bar = Progress(console=Console(file=out, force_terminal=True, width=120))
    bar.on_train_start(trainer, module)
    train(bar, trainer, module, clock, 3)
    bar.on_train_end(trainer, module)
    assert "stopped" in out.getvalue()
    assert "done" not in out.getvalue()


def test_an_error_closes_the_display(clock):
    trainer, module = make_run()
    bar = Progress(console=Console(file=io.StringIO(), force_terminal=True))
    bar.on_train_start(trainer, module)
    live = bar._live
    assert live.is_started
    bar.on_exception(trainer, module, RuntimeError())
    assert not live.is_started


def test_other_ranks_show_nothing(clock):
    out = io.StringIO()
    trainer, module = make_run(is_global_zero=False)
    bar = Progress(console=Console(file=out))
    bar.on_train_start(trainer, module)
    train(bar, trainer, module, clock, 1000)
    bar.on_validation_start(trainer, module)
    bar.on_validation_end(trainer, module)
    bar.on_train_end(trainer, module)
    assert out.getvalue() == ""


def test_a_batch_costs_next_to_nothing():
    import timeit

    trainer, module = make_run()
    bar = Progress(console=Console(file=io.StringIO()))
    bar.on_train_start(trainer, module)
    seconds = timeit.timeit(lambda: bar.on_train_batch_end(trainer, module, None, None, 0), number=10_000) / 10_000
    assert seconds < 20e-6
