"""The Fréchet distance of 2048 features compared with torch-fidelity's (extra ``[features]``), from the same moments.

torch-fidelity takes the eigenvalues of the general matrix ``S1 S2``; lit_aigc those of the symmetric ``A^T S2 A`` with
``A A^T = S1``. The sides alternate within one run, since machines change their speed from minute to minute. It reports
medians of the times and of the ratios of adjacent turns, in wall-clock time and in processor time, which other programs
on the machine disturb less.

    python benchmarks/frechet_speed.py [rounds [features [items per set]]]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch_fidelity.metric_fid import fid_statistics_to_metric

from lit_aigc.metrics.frechet import FeatureMoments, Moments, frechet_distance


def moments(n: int, d: int, seed: int) -> Moments:
    """Of features as networks give them: none below 0, correlated, of spreads over two orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=torch.Generator().manual_seed(0)) / d**0.5
    spread = torch.arange(1, d + 1) ** -0.7
    metric = FeatureMoments(d)
    for start in range(0, n, 1000):
        x = torch.randn(min(1000, n - start), d, generator=generator)
        metric.update(((x * spread) @ mixing + 0.001 * seed).relu())
    return metric.compute()


def timed(function: Callable[[], float]) -> tuple[float, float, float]:
    clock, processor = time.perf_counter(), time.process_time()
    value = function()
    return value, time.perf_counter() - clock, time.process_time() - processor


def main(rounds: int = 3, d: int = 2048, n: int = 5000) -> None:
    first, second = moments(n, d, 1), moments(n, d, 2)
    statistics_of = [{"mu": each.mean.numpy(), "sigma": each.covariance.numpy()} for each in (first, second)]
    sides = {
        "lit_aigc": lambda: frechet_distance(first, second),
        "torch-fidelity": lambda: fid_statistics_to_metric(*statistics_of, False)["frechet_inception_distance"],
    }
    turns = []
    for number in range(rounds):
        turns.append({name: timed(side) for name, side in sides.items()})
        for name, (value, clock, processor) in turns[-1].items():
            print(f"round {number + 1}  {name:>14}: {value:.12g} in {clock:.2f} s, {processor:.2f} s of processors")
    ours, theirs = ([turn[name] for turn in turns] for name in sides)
    clocks = [b[1] / a[1] for a, b in zip(ours, theirs, strict=True)]
    processors = [b[2] / a[2] for a, b in zip(ours, theirs, strict=True)]
    print(f"median: {statistics.median(a[1] for a in ours):.2f} s and {statistics.median(b[1] for b in theirs):.2f} s")
    print(
        f"ratio: {statistics.median(clocks):.1f}x by the clock, {statistics.median(processors):.1f}x by processor time"
    )
    print(f"relative difference: {abs(ours[0][0] / theirs[0][0] - 1):.1e}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
