"""The clock on fake time: when it checkpoints, and what it makes of several processes."""

import signal
import threading
from types import SimpleNamespace

import pytest
import torch

from lit_aigc.callbacks import clock as clock_module
from lit_aigc.callbacks.checkpoint import CheckpointWriter
from lit_aigc.callbacks.clock import Budget, Clock, PauseAfter
from lit_aigc.errors import InputError
from tests.callbacks.ranks import FakeTime, drive


def process(world_size, others):
    """A trainer whose other processes have done so many batches."""

    def reduce(bounds, reduce_op):
        assert reduce_op == "max"
        return torch.stack([bounds, *(torch.tensor([n, -n], dtype=bounds.dtype) for n in others)]).amax(dim=0)

    strategy = SimpleNamespace(reduce=reduce, broadcast=lambda value: value, root_device=torch.device("cpu"))
    return SimpleNamespace(world_size=world_size, strategy=strategy)


def start(trainer, batches):
    module = SimpleNamespace(batches=batches, train_seconds=0.0, samples_seen=8 * batches, progress=0.0)
    clock = Clock(Budget(batches=10), PauseAfter())
    try:
        clock.on_train_start(trainer, module)
    finally:
        clock.signals.uninstall()
    return module.progress


@pytest.mark.parametrize("others", [[], [4], [4, 4, 4]])
def test_processes_that_stand_at_the_same_batch_start(others):
    assert start(process(1 + len(others), others), 4) == 0.4


@pytest.mark.parametrize(("own", "others"), [(4, [0]), (0, [4]), (4, [4, 3])])
def test_processes_that_read_different_checkpoints_are_refused(own, others):
    """Say a node that doesn't see the run folder: its weights are broadcast, its optimizers and data order are not."""
    low, high = min(own, *others), max(own, *others)
    with pytest.raises(InputError, match=f"batch {low} and another at batch {high}.*disk that they share"):
        start(process(1 + len(others), others), own)


# -- checkpoints


@pytest.fixture
def fake_time(monkeypatch):
    time = FakeTime()
    monkeypatch.setattr(clock_module, "time", time)
    return time


@pytest.mark.parametrize(
    ("every", "write", "batches", "expected"),
    [
        (1.0, 1.2, 200, range(1, 200, 41)),  # the wait after one is 1.2 s / 0.03
        (5.0, 0.01, 20, [5, 10, 15, 20]),
        (5.0, 3.0, 20, [5]),
        (0.0, 1.2, 20, range(1, 21)),  # asked for
    ],
)
def test_checkpoints_that_take_long_are_written_less_often(fake_time, tmp_path, every, write, batches, expected):
    clock = Clock(Budget(batches=1000), PauseAfter(), validations=0, checkpoint_seconds=every)
    writer, written = CheckpointWriter(tmp_path, clock), []

    def save_checkpoint(path):
        fake_time.now += write
        written.append(module.batches)

    trainer = process(1, [])
    trainer.save_checkpoint = save_checkpoint
    module = SimpleNamespace(
        batches=0, samples_seen=0, train_seconds=0.0, validations=0, raise_if_broken=lambda: None, recipe=None
    )
    clock.on_train_start(trainer, module)
    for module.batches in range(1, batches + 1):
        fake_time.now += 1.0
        clock.on_train_batch_end(trainer, module)
        writer.on_train_batch_end(trainer, module)
    clock.signals.uninstall()
    assert written == list(expected)


# -- agreement


class Ranks:
    """Two processes as threads; each counts its collectives, and each one's clock has an offset of its own.

    As in a real run, the config of the second doesn't say when to pause.
    """

    def __init__(self, time):
        self.time = time
        self.barrier = threading.Barrier(2, timeout=20)
        self.values = [None, None]
        self.collectives = [0, 0]

    def gather(self, rank, value):
        self.collectives[rank] += 1
        self.values[rank] = value
        self.barrier.wait()
        values = list(self.values)
        self.barrier.wait()
        return values

    def run(self, seconds=lambda rank, batch: 0.005, signal_at=None, **options):
        """What each process saw of each batch."""
        options = {"pause_after": PauseAfter(), "validations": 0, "checkpoint_seconds": 1e9, **options}
        seen, clocks = [None, None], [Clock(**options), Clock(**options | {"pause_after": PauseAfter()})]

        def after_batch(rank, batch):
            if rank == 1 and batch == signal_at:
                clocks[1].signals.received = signal.Signals.SIGTERM.name

        def process(rank):
            self.time.now = 100.0 * rank
            try:
                seen[rank] = drive(
                    clocks[rank], rank, 2, lambda votes: torch.stack(self.gather(rank, votes)).amax(dim=0),
                    lambda value: self.gather(rank, value)[0], self.time,
                    lambda batch: seconds(rank, batch), lambda batch: after_batch(rank, batch),
                )  # fmt: skip
            finally:
                self.barrier.abort() if seen[rank] is None else None

        threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen[0] is not None and seen[0] == seen[1]
        assert self.collectives[0] == self.collectives[1]
        self.clocks = clocks
        return seen[0]


@pytest.fixture
def ranks(fake_time):
    return Ranks(fake_time)


def test_limits_in_batches_are_exact_and_need_few_agreements(ranks):
    seen = ranks.run(budget=Budget(batches=100), validations=4)
    assert len(seen) == 100 and seen[-1][1] == 1.0
    assert [batch for batch, _, _, validates in seen if validates] == [25, 50, 75, 100]
    # One at the start, one after each of three validations; without agreements ahead it would be one per batch.
    assert ranks.collectives[0] <= 14


@pytest.mark.parametrize(
    ("options", "end", "paused"),
    [
        ({"budget": Budget(batches=100), "pause_after": PauseAfter(batches=37)}, 37, True),
        ({"budget": Budget(samples=8 * 50)}, 50, False),
        ({"budget": Budget(minutes=0.0101)}, 122, False),  # 0.606 s of 5 ms: the first one's clock
        ({"budget": Budget(batches=1000), "pause_after": PauseAfter(minutes=0.0101)}, 122, True),
    ],
)
def test_all_processes_stop_at_the_same_batch(ranks, options, end, paused):
    """The clock of the other one runs three times as fast."""
    seen = ranks.run(lambda rank, batch: 0.005 * (1 + 2 * rank), **options)
    assert len(seen) == end
    assert seen[-1][2]  # with a checkpoint
    assert [clock.paused for clock in ranks.clocks] == [paused, paused]
    assert ranks.collectives[0] <= end / 20 + 5


def test_a_signal_to_one_process_pauses_all_soon(ranks):
    seen = ranks.run(budget=Budget(batches=1000), signal_at=30)
    assert 30 <= len(seen) <= 50
    ranks.collectives = [0, 0]
    seen = ranks.run(lambda rank, batch: 2.0, budget=Budget(batches=1000), signal_at=30)
    assert len(seen) == 30  # slow batches: each time
    seen = ranks.run(lambda rank, batch: 0.005 if batch < 25 else 5.0, budget=Budget(batches=1000), signal_at=30)
    assert len(seen) <= 45


def test_progress_between_agreements_follows_the_time(ranks):
    seen = ranks.run(budget=Budget(minutes=1 / 60), validations=2)
    assert [progress for _, progress, _, _ in seen] == pytest.approx([0.005 * n for n in range(1, 201)], abs=1e-6)
    assert [batch for batch, _, _, validates in seen if validates] == [100, 200]


def test_a_checkpoint_after_every_batch_is_one_after_every_batch(ranks):
    seen = ranks.run(budget=Budget(batches=9), checkpoint_seconds=0.0)
    assert all(saves for _, _, saves, _ in seen)


def gloo_process(rank, store, results):
    """A process of a run whose collectives are real and counted."""
    counts = []

    def reduce(votes):
        counts.append(len(votes))
        torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX)
        return votes

    def broadcast(value):
        values = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    clock_module.time = FakeTime()
    pause = PauseAfter(batches=None if rank else 90)
    clock = Clock(Budget(batches=120), pause, validations=2, checkpoint_seconds=0.2)
    seen = drive(clock, rank, 2, reduce, broadcast, clock_module.time, lambda batch: 0.005 * (1 + rank))
    results.put((rank, len(counts), seen))
    torch.distributed.destroy_process_group()


def test_the_clock_of_two_gloo_processes_needs_few_collectives(tmp_path):
    context = torch.multiprocessing.get_context("fork")  # a new interpreter would import for seconds
    results = context.SimpleQueue()
    processes = [context.Process(target=gloo_process, args=(rank, tmp_path / "store", results)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    (_, count, seen), (_, other_count, other_seen) = sorted(results.get() for _ in processes)
    assert seen == other_seen and len(seen) == 90
    assert [batch for batch, _, _, validates in seen if validates] == [60]
    assert [batch for batch, _, saves, _ in seen if saves] == [41, 90]  # 0.2 s of the first one, and the pause
    assert count == other_count <= 9  # one each batch before
