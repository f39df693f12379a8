"""The cost of a second process: the figures in the formula of docs/scaling.md, measured on this machine.

* all-reduce: seconds for 1 KiB to 64 MiB between two processes (gloo on CPUs, NCCL on GPUs), and the line
  ``latency + bytes / bandwidth`` through them;
* training: for a few experiments the seconds per batch on one process and on two with twice the batch, alternating, and
  the bytes that each batch sends, counted where DDP passes on a bucket of gradients.

Both processes need a core of their own, and nothing else should run: otherwise it counts as a cost of the second one.

    OMP_NUM_THREADS=1 python benchmarks/ddp_overhead.py [batches]
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lightning as L
import torch
import torch.distributed as dist

from lit_aigc.machine.precision import machine_class

ROOT = Path(__file__).parents[1]
SIZES = [2**n for n in range(10, 27, 2)]  # bytes
PER_PROCESS = 64
EXPERIMENTS = {
    "dcgan_mnist5k": [],
    "vae_mnist5k": [],
    "gpt on pydocs": ["experiment=null", "data=pydocs", "data.cleaning=null", "model=gpt", "callbacks=null"],
}
QUIET = ["validations=0", "monitor=null", "trainer.accelerator=auto", "callbacks.count={_target_: ddp_overhead.Count}"]
ROUNDS = 3


class Count(L.Callback):
    """Record the seconds per batch (the median) and the number of bytes that DDP reduced for it."""

    def __init__(self, run_dir: str) -> None:
        self.file = Path(run_dir) / "count.json"
        self.seconds: list[float] = []
        self.bytes = self.buckets = 0

    def on_train_start(self, trainer, pl_module):
        if trainer.world_size > 1:
            trainer.strategy.model.register_comm_hook(None, self._reduce)

    def on_train_batch_start(self, trainer, pl_module, *args):
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, *args):
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.start)

    def on_train_end(self, trainer, pl_module):
        if trainer.is_global_zero:
            batches = len(self.seconds)
            figures = {
                "seconds": statistics.median(self.seconds[batches // 5 :]),
                "bytes": self.bytes / batches,
                "buckets": self.buckets / batches,
                "parameters": sum(p.numel() for p in pl_module.parameters()),
            }
            self.file.write_text(json.dumps(figures))

    def _reduce(self, state, bucket):
        self.bytes += bucket.buffer().numel() * bucket.buffer().element_size()
        self.buckets += 1
        average = dist.algorithms.ddp_comm_hooks.default_hooks.allreduce_hook
        return average(dist.group.WORLD, bucket)


def reduce_times(rank: int) -> None:
    """In one of two processes: print the median seconds of an all-reduce of each size."""
    gpus = torch.cuda.device_count() > 1
    device = torch.device("cuda", rank) if gpus else torch.device("cpu")
    dist.init_process_group("nccl" if gpus else "gloo", rank=rank, world_size=2)
    seconds = []
    for size in SIZES:
        values, times = torch.zeros(size // 4, device=device), []
        for _ in range(20):
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(values)
            if gpus:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        seconds.append(statistics.median(times))
    dist.destroy_process_group()
    if rank == 0:
        print(json.dumps(seconds))


def measured_reduce() -> list[float]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, __file__, "reduce"]
    first, second = (
        subprocess.Popen([*command, str(rank)], env=environment, stdout=subprocess.PIPE, text=True) for rank in (0, 1)
    )
    second.communicate()
    return json.loads(first.communicate()[0])


def line(seconds: list[float]) -> tuple[float, float]:
    """Return latency in seconds (the smallest size's) and bandwidth in bytes per second (the largest size's)."""
    return seconds[0], SIZES[-1] / (seconds[-1] - seconds[0])


def batch(name: str, more: list[str], processes: int, batches: int) -> dict[str, float]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "benchmarks")))}
    experiment = [] if more else [f"experiment={name}", *(f"callbacks.{c}=null" for c in CALLBACKS)]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "lit_aigc.train", *experiment, *more, *QUIET),
            *(f"run_dir={folder}/run", f"trainer.devices={processes}", f"data.batch_size={PER_PROCESS * processes}"),
            *("trainer.precision=32-true", "budget.samples=null", f"budget.batches={batches}"),
        ]
        subprocess.run(command, env=environment, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return json.loads((Path(folder) / "run/count.json").read_text())


CALLBACKS = ("generative_metrics", "sample_grid", "curves", "neighbors", "progress", "reconstructions")


def main(batches: int) -> None:
    print(machine_class())
    seconds = measured_reduce()
    latency, bandwidth = line(seconds)
    print("all-reduce between two processes")
    for size, each in zip(SIZES, seconds, strict=True):
        print(f"  {size / 1024:10,.0f} KiB  {each * 1e3:9.3f} ms   {size / each / 2**20:9.1f} MiB/s")
    print(f"  latency {latency * 1e3:.3f} ms, bandwidth {bandwidth / 2**20:.0f} MiB/s\n")
    print(f"training, {PER_PROCESS} samples per process and batch, fp32, milliseconds per batch")
    for name, more in EXPERIMENTS.items():
        turns = [[batch(name, more, processes, batches) for processes in (1, 2)] for _ in range(ROUNDS)]
        one, two = (statistics.median(turn[side]["seconds"] for turn in turns) for side in (0, 1))
        sent = turns[0][1]
        predicted = one + sent["buckets"] * latency + sent["bytes"] / bandwidth
        print(
            f"  {name:15} one {one * 1e3:7.2f}  two {two * 1e3:7.2f}  efficiency {one / two:4.0%}  "
            f"{sent['parameters'] / 1e6:.2f} M parameters, {sent['bytes'] / 1e6:.2f} MB in {sent['buckets']:.1f} "
            f"buckets sent per batch; without overlap the formula says {predicted * 1e3:.2f}"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["reduce"]:
        reduce_times(int(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
